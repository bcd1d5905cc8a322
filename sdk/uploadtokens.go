package sallyport

import (
	"context"
	"crypto/x509"
	"net/http"
	"time"
)

// UploadTokenRequest asks for an upload token.
type UploadTokenRequest struct {
	Publisher string        // whose packages it may bring
	Names     []string      // patterns of their names
	TTL       time.Duration // one minute to 366 days
	Address   string        // host:port under which its bearer finds the server; empty for the server's own view
}

// UploadTokenRow is an upload token as the server knows it.
type UploadTokenRow struct {
	ID         string    `json:"id"`
	Publisher  string    `json:"publisher"`
	Names      []string  `json:"names"`
	Repository string    `json:"repository"` // SHA-256 of its first root
	State      string    `json:"state"`      // active, expired or revoked
	ExpiresAt  time.Time `json:"expires_at"`
	CreatedAt  time.Time `json:"created_at"`
	Author     string    `json:"author"`
	Reason     string    `json:"reason,omitempty"`
}

// NewUploadToken is a new upload token. Its text is not shown again.
type NewUploadToken struct {
	UploadTokenRow
	Token Secret `json:"token"`
}

// CreateUploadToken makes an upload token for the server's own repository.
func (c *Client) CreateUploadToken(ctx context.Context, r UploadTokenRequest) (NewUploadToken, error) {
	body := struct {
		Publisher  string   `json:"publisher"`
		Names      []string `json:"names"`
		TTLSeconds int64    `json:"ttl_seconds"`
		Address    string   `json:"address,omitempty"`
	}{r.Publisher, r.Names, int64(r.TTL / time.Second), r.Address}
	var out NewUploadToken
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/upload-tokens", body: body, keyed: true}, &out)
	return out, err
}

// UploadTokens lists the upload tokens.
func (c *Client) UploadTokens(ctx context.Context) ([]UploadTokenRow, error) {
	var out struct {
		Items []UploadTokenRow `json:"items"`
	}
	r := get("/v1/upload-tokens")
	r.limit = maxList
	_, err := c.do(ctx, r, &out)
	return out.Items, err
}

// RevokeUploadToken ends an upload token at once, on every replica.
func (c *Client) RevokeUploadToken(ctx context.Context, id, reason string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: join("/v1/upload-tokens/{}", id), query: set("reason", reason), keyed: true}, nil)
	return err
}

// NewUploader is a client that shows an upload token in place of an identity, for
// [Client.UploadPlugin] alone. It calls the server that the token names, and
// sends the token to nobody whose chain does not lead up to the authority that
// the token names; with roots, to these. A token that has expired is
// [Unauthenticated].
func NewUploader(token Secret, roots *x509.CertPool, userAgent string) (*Client, error) {
	t, err := ParseUploadToken(token.Reveal())
	if err != nil {
		return nil, err
	}
	if !time.Now().Before(t.Expires) {
		return nil, &Error{Kind: Unauthenticated, Detail: "the upload token has expired: ask the operator of the repository for a new one"}
	}
	c := Config{URL: "https://" + t.Address, RootHash: t.RootHash, Token: token, UserAgent: userAgent}
	if roots != nil {
		c.Roots, c.RootHash = roots, [32]byte{}
	}
	return New(c)
}
