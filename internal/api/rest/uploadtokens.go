package rest

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/secret"
)

type uploadTokenBody struct {
	Publisher  string   `json:"publisher" doc:"Whose packages it may bring. The signatures that they need are those of this publisher, as ever."`
	Names      []string `json:"names" doc:"Patterns of the names that it may bring, for example acme-*."`
	TTLSeconds int64    `json:"ttl_seconds" doc:"60 to 31622400 (366 days)."`
	Address    string   `json:"address,omitempty" doc:"host:port under which its bearer finds this server; that of the main listener by default."`
}

type uploadTokenView struct {
	ID         string    `json:"id" doc:"Names the token; no secret."`
	Publisher  string    `json:"publisher"`
	Names      []string  `json:"names" nullable:"false"`
	Repository string    `json:"repository" doc:"The one that it is for: SHA-256 of its first root, lower-case hex."`
	State      string    `json:"state" enum:"active,expired,revoked"`
	ExpiresAt  time.Time `json:"expires_at"`
	CreatedAt  time.Time `json:"created_at"`
	Author     string    `json:"author" doc:"The operator as whom it acts, and with whom it ends."`
	Reason     string    `json:"reason,omitempty" doc:"Why it was revoked."`
}

type newUploadTokenView struct {
	uploadTokenView
	Token string `json:"token" doc:"The upload token as a whole; shown this once."`
}

func (d *Door) uploadTokens() []route {
	return []route{
		endpoint(route{
			id: "create-upload-token", method: http.MethodPost, path: "/v1/upload-tokens", tag: "plugins", keyed: true, status: http.StatusCreated,
			summary: "Make an upload token",
			about: "Whoever bears it may bring packages of one publisher, under given names, to /plugins/upload of this server, and do nothing else. " +
				"It takes the place of an identity, not of a signature.",
		}, d.createUploadToken),
		endpoint(route{
			id: "list-upload-tokens", method: http.MethodGet, path: "/v1/upload-tokens", tag: "plugins",
			summary: "List the upload tokens", about: "Revoked ones too, and for a week those that have expired.",
		}, d.listUploadTokens),
		endpoint(route{
			id: "revoke-upload-token", method: http.MethodDelete, path: "/v1/upload-tokens/{id}", tag: "plugins", keyed: true,
			summary: "Revoke an upload token", about: "At once, on every replica.",
			query: []param{{name: "reason", about: "At most 512 bytes."}},
		}, d.revokeUploadToken),
	}
}

func (d *Door) viewUploadToken(u plugin.UploadToken) uploadTokenView {
	state := "active"
	switch {
	case !u.Revoked.IsZero():
		state = "revoked"
	case !u.Good(d.cfg.Now()):
		state = "expired"
	}
	return uploadTokenView{
		ID: u.ID, Publisher: u.Publisher, Names: filled(u.Names), Repository: u.Audience, State: state,
		ExpiresAt: u.Expires.UTC(), CreatedAt: u.Created.UTC(), Author: u.Author, Reason: u.Reason,
	}
}

func (d *Door) createUploadToken(ctx context.Context, x *exchange, in uploadTokenBody) (newUploadTokenView, error) {
	life, err := duration(in.TTLSeconds)
	if err != nil {
		return newUploadTokenView{}, err
	}
	// What the text cannot say is refused before there is a token.
	if _, err := d.cfg.UploadToken(make([]byte, 32), id.New(), in.Address, d.cfg.Now().Add(life)); err != nil {
		return newUploadTokenView{}, err
	}
	out, err := d.cfg.Gate.CreateUploadToken(ctx, x.caller, flow.UploadTokenRequest{Publisher: in.Publisher, Names: in.Names, Life: life})
	if err != nil {
		return newUploadTokenView{}, err
	}
	defer out.Secret.Wipe()
	text, err := d.cfg.UploadToken(out.Secret.Reveal(), out.ID, in.Address, out.Expires)
	return newUploadTokenView{d.viewUploadToken(out.UploadToken), text}, err
}

func (d *Door) listUploadTokens(ctx context.Context, x *exchange, _ none) (page[uploadTokenView], error) {
	all, err := d.cfg.Gate.UploadTokens(ctx, x.caller)
	if err != nil {
		return page[uploadTokenView]{}, err
	}
	return paged(all, 0, d.viewUploadToken, nil), nil
}

func (d *Door) revokeUploadToken(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.RevokeUploadToken(ctx, x.caller, x.value("id"), x.query.Get("reason"))
}

// The limits of bearers of upload tokens, per replica. What an address may ask
// without authentication bounds them too, before anything is looked up.
const (
	uploadRate  = 1  // of one token, per second
	uploadBurst = 30 // of one token, at once
	mostUploads = 4  // at a time, of all tokens: each may lie on the disk with 256 MiB
	mostOfOne   = 2  // at a time, of one token: a package may take minutes, and others have some too
)

// uploads limits bearers of upload tokens.
type uploads struct {
	each *limits

	mu   sync.Mutex
	held map[string]int // places, by token
	all  int
}

func newUploads(now func() time.Time) *uploads {
	return &uploads{each: newLimits(uploadRate, uploadBurst, now), held: map[string]int{}}
}

// enter takes a place for a token, until leave; false if there is none.
func (u *uploads) enter(token string) (leave func(), ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == mostUploads || u.held[token] == mostOfOne {
		return nil, false
	}
	u.all++
	u.held[token]++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.all--
		if u.held[token]--; u.held[token] == 0 {
			delete(u.held, token)
		}
	}, true
}

// uploader recognises the bearer of an upload token, and makes room for one
// package of theirs; the returned function gives it back.
func (d *Door) uploader(ctx context.Context, name string, value secret.Bytes, p flow.Presented) (flow.Caller, func(), error) {
	nothing := func() {}
	if err := d.limits.take(p.Address); err != nil {
		return flow.Caller{}, nothing, err
	}
	c, err := d.cfg.Gate.Uploader(ctx, name, value, p)
	if err != nil {
		return c, nothing, err
	}
	if err := d.uploads.each.take(name); err != nil {
		return c, nothing, fault.New(fault.Exhausted, "too many uploads with this token").After(fault.RetryAfter(err))
	}
	leave, ok := d.uploads.enter(name)
	if !ok {
		return c, nothing, fault.New(fault.Exhausted, "too many uploads at a time").After(5 * time.Second)
	}
	return c, leave, nil
}
