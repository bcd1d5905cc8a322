package sallyport

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"
)

// VendRequest asks for a credential.
type VendRequest struct {
	Kind   string         // for example ssh-user-cert
	Params map[string]any // JSON values, as the kind wants them
	TTL    time.Duration  // wanted; policy may shorten it
}

// Plugin names the code that made a credential.
type Plugin struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
}

// Anomaly is something unusual that a plugin saw in what was asked for.
type Anomaly struct {
	Level   string `json:"level"` // info, warn or alert
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Credential is what was handed out.
type Credential struct {
	Grant      string         `json:"grant"` // by which it is looked up and taken back
	Kind       string         `json:"kind"`
	Value      Secret         `json:"value"`
	PrivateKey Secret         `json:"private_key,omitzero"` // of a key pair that was made for it
	Params     map[string]any `json:"params,omitempty"`     // as granted
	IssuedAt   time.Time      `json:"issued_at"`
	ExpiresAt  time.Time      `json:"expires_at"`
	Plugin     Plugin         `json:"plugin"`
	Anomalies  []Anomaly      `json:"anomalies,omitempty"`
	Replayed   bool           `json:"replayed,omitempty"` // the first answer under this key, once more
}

// Vend gets a credential. It repeats the request under one idempotency key
// while the server is not there, so at most one credential comes of it.
func (c *Client) Vend(ctx context.Context, r VendRequest) (Credential, error) {
	body := struct {
		Kind   string         `json:"kind"`
		Params map[string]any `json:"params,omitempty"`
		TTL    int64          `json:"ttl_seconds"`
	}{r.Kind, r.Params, seconds(r.TTL)}
	var out struct {
		Credential
		Encoding string `json:"encoding"`
	}
	a, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/credentials", body: body, keyed: true}, &out)
	if err != nil || out.Encoding == "" {
		return out.Credential, err
	}
	for _, s := range []*Secret{&out.Value, &out.PrivateKey} { // bytes that are no text
		raw, err := base64.StdEncoding.DecodeString(s.Reveal())
		if err != nil || out.Encoding != "base64" {
			return Credential{}, unreadable(a.status, requestID(a.header), err)
		}
		*s = NewSecret(string(raw))
	}
	return out.Credential, nil
}

// Grant is the record of a credential, never the credential itself.
type Grant struct {
	ID         string         `json:"id"`
	Version    int64          `json:"version"`
	State      string         `json:"state"` // intent, active, revoking, revoked, expired, manual or void
	Subject    string         `json:"subject"`
	Session    string         `json:"session,omitempty"`
	Kind       string         `json:"kind"`
	Params     map[string]any `json:"params,omitempty"`
	TTLSeconds int64          `json:"ttl_seconds"`
	ScopeHash  string         `json:"scope_hash"`
	Plugin     Plugin         `json:"plugin"`
	Policy     []string       `json:"policy"`
	Tags       []string       `json:"tags"`
	Reason     string         `json:"reason,omitempty"`
	Handle     string         `json:"handle,omitempty"`
	IssuedAt   time.Time      `json:"issued_at"`
	ExpiresAt  time.Time      `json:"expires_at"`
	EndedAt    time.Time      `json:"ended_at,omitzero"`
	Revocable  bool           `json:"revocable"`
	Address    string         `json:"address,omitempty"` // where a person can revoke it
}

// GrantQuery selects grants. Zero members do not restrict, but for Subject:
// empty means the caller, and "all" everybody, which operators may ask.
type GrantQuery struct {
	Subject, Kind, State, After string
	Limit                       int
}

// Grants lists grants.
func (c *Client) Grants(ctx context.Context, q GrantQuery) (Page[Grant], error) {
	r := get("/v1/credentials")
	r.query = set("subject", q.Subject, "kind", q.Kind, "state", q.State, "after", q.After, "limit", number(q.Limit))
	return list[Grant](ctx, c, r)
}

// Grant reads one grant.
func (c *Client) Grant(ctx context.Context, id string) (Grant, error) {
	var out Grant
	_, err := c.do(ctx, get(join("/v1/credentials/{}", id)), &out)
	return out, err
}

// Match is what became of one grant.
type Match struct {
	Grant   string `json:"grant"`
	Subject string `json:"subject"`
	Kind    string `json:"kind"`
	State   string `json:"state"`
	Tag     string `json:"tag,omitempty"` // detected_after_expiry, revoked_on_detection or manual_revoke_required; empty while a revocation is under way
	Repeat  bool   `json:"repeat"`        // it was done already
	Address string `json:"address,omitempty"`
	Failed  string `json:"failed,omitempty"` // why the provider did not revoke yet; it is tried again
}

// RevokeGrant takes a credential back. It may be repeated: what was done is found
// done.
func (c *Client) RevokeGrant(ctx context.Context, id, reason string) (Match, error) {
	var out Match
	_, err := c.do(ctx, call{method: http.MethodPost, path: join("/v1/credentials/{}/revoke", id), body: reasoned{reason}, again: true}, &out)
	return out, err
}

// Leak is a report of a value that was seen where it must not be. Exactly one
// of Value and Fingerprint is set.
type Leak struct {
	Value       Secret
	Fingerprint string // SHA-256 of the trimmed value, hex; counts from reporters only
	Source      string // who found it
	Location    string // where
	Reason      string
	SeenAt      time.Time
}

// Reaction is what was done about a leak.
type Reaction struct {
	Record  string  `json:"record"` // of the report, in the ledger
	Matches []Match `json:"matches"`
}

// ReportLeak finds the grants that a leaked value may concern and takes them
// back. Repeated, it finds done what was done.
func (c *Client) ReportLeak(ctx context.Context, l Leak) (Reaction, error) {
	body := struct {
		Value       string    `json:"value,omitempty"`
		Fingerprint string    `json:"fingerprint,omitempty"`
		Source      string    `json:"source,omitempty"`
		Location    string    `json:"location,omitempty"`
		Reason      string    `json:"reason,omitempty"`
		SeenAt      time.Time `json:"seen_at,omitzero"`
	}{l.Value.Reveal(), l.Fingerprint, l.Source, l.Location, l.Reason, l.SeenAt.UTC()}
	var out Reaction
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/leaks", body: body, keyed: true, limit: maxList}, &out)
	return out, err
}
