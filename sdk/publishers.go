package sallyport

import (
	"context"
	"net/http"
	"time"
)

// Publisher is somebody whose packages may run.
type Publisher struct {
	Name      string         `json:"name"`      // empty for the keys of development
	Threshold int            `json:"threshold"` // distinct keys that must have signed
	Serial    int64          `json:"serial"`    // of the last rotation that was applied
	Keys      []PublisherKey `json:"keys"`
}

// PublisherKey is one key of a publisher.
type PublisherKey struct {
	KeyID     string    `json:"key_id"`
	Publisher string    `json:"publisher"`
	Use       string    `json:"use"`        // package, agentkms or development
	PublicKey string    `json:"public_key"` // PKIX PEM
	Names     []string  `json:"names"`      // patterns of package names
	NotBefore time.Time `json:"not_before,omitzero"`
	Expires   time.Time `json:"expires,omitzero"` // zero: never
	State     string    `json:"state"`            // active, retired or revoked
	Reason    string    `json:"reason,omitempty"` // why it was revoked
	Author    string    `json:"author,omitempty"`
	At        time.Time `json:"at"`
}

// TrustRequest is a key that is to be trusted.
type TrustRequest struct {
	Publisher string    `json:"publisher"`
	PublicKey string    `json:"public_key"`      // PKIX PEM
	Names     []string  `json:"names,omitempty"` // patterns of package names; none means all
	Use       string    `json:"use,omitempty"`   // empty: package
	NotBefore time.Time `json:"not_before,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
}

// PublisherRotation is what a publisher's statement has changed.
type PublisherRotation struct {
	Publisher string         `json:"publisher"`
	Serial    int64          `json:"serial"`
	Threshold int            `json:"threshold"`
	Added     []PublisherKey `json:"added"`
	Ended     []PublisherKey `json:"ended"` // retired or revoked
	Signers   []string       `json:"signers"`
}

// Publishers lists the trusted publishers with their keys.
func (c *Client) Publishers(ctx context.Context) (Page[Publisher], error) {
	return list[Publisher](ctx, c, get("/v1/publishers"))
}

// TrustPublisher lets a publisher's key sign packages, or trusts one that is known
// on other terms.
func (c *Client) TrustPublisher(ctx context.Context, r TrustRequest) (PublisherKey, error) {
	var out PublisherKey
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/publishers", body: r, keyed: true}, &out)
	return out, err
}

// DistrustPublisher takes a key out of trust.
func (c *Client) DistrustPublisher(ctx context.Context, keyID string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: join("/v1/publishers/{}", keyID), keyed: true}, nil)
	return err
}

// RetirePublisherKey lets a key sign nothing new.
func (c *Client) RetirePublisherKey(ctx context.Context, keyID string) error {
	_, err := c.do(ctx, call{method: http.MethodPost, path: join("/v1/publishers/{}/retire", keyID), keyed: true}, nil)
	return err
}

// RevokePublisherKey ends a key for ever, with what runs by its signature.
func (c *Client) RevokePublisherKey(ctx context.Context, keyID, reason string) error {
	body := struct {
		Reason string `json:"reason,omitempty"`
	}{reason}
	_, err := c.do(ctx, call{method: http.MethodPost, path: join("/v1/publishers/{}/revoke", keyID), body: body, keyed: true}, nil)
	return err
}

// SetPublisherThreshold sets how many distinct keys of a publisher must have
// signed its packages.
func (c *Client) SetPublisherThreshold(ctx context.Context, publisher string, threshold int) error {
	body := struct {
		Threshold int `json:"threshold"`
	}{threshold}
	_, err := c.do(ctx, call{method: http.MethodPut, path: join("/v1/publishers/{}/threshold", publisher), body: body, keyed: true}, nil)
	return err
}

// RotatePublisher applies a publisher's own statement which keys are its own.
func (c *Client) RotatePublisher(ctx context.Context, statement []byte) (PublisherRotation, error) {
	body := struct {
		Statement string `json:"statement"`
	}{string(statement)}
	var out PublisherRotation
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/publishers/rotations", body: body, keyed: true}, &out)
	return out, err
}
