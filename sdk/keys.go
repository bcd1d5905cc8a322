package sallyport

import (
	"context"
	"net/http"
	"time"
)

// Key is a key of the server; private parts never leave it.
type Key struct {
	ID        string    `json:"id"`
	Purpose   string    `json:"purpose"` // token, ear, cookie, context, pepper, row-mac, ledger, ca-root, ca-intermediate, ssh-ca or root
	Algorithm string    `json:"algorithm"`
	State     string    `json:"state"` // active, retiring or retired
	Does      string    `json:"does"`  // now: signs, announced (it signs from SignsFrom on), verifies or nothing
	Public    string    `json:"public,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	SignsFrom time.Time `json:"signs_from,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"` // zero while no time ends what it made
}

// KeyRotation is what one rotation has changed.
type KeyRotation struct {
	Key     Key   `json:"key"`     // the new one
	Under   []Key `json:"under"`   // new too: the intermediate of a new root
	Changed []Key `json:"changed"` // those that it replaces, and those whose time is over
}

// Keys lists the keys of the server, by purpose, the youngest first.
func (c *Client) Keys(ctx context.Context) (Page[Key], error) {
	return list[Key](ctx, c, get("/v1/keys"))
}

// RotateKey replaces the signing key of a purpose; what the old one signed stays
// good to its own end.
func (c *Client) RotateKey(ctx context.Context, purpose string) (KeyRotation, error) {
	var out KeyRotation
	_, err := c.do(ctx, call{method: http.MethodPost, path: join("/v1/keys/{}/rotate", purpose), keyed: true}, &out)
	return out, err
}

// RetireKey ends a key that was replaced. One that something good still needs is
// a [Conflict], unless force says that this shall not be believed any more.
func (c *Client) RetireKey(ctx context.Context, id string, force bool) (Key, error) {
	body := struct {
		Force bool `json:"force,omitempty"`
	}{force}
	var out Key
	_, err := c.do(ctx, call{method: http.MethodPost, path: join("/v1/keys/{}/retire", id), body: body, keyed: true}, &out)
	return out, err
}
