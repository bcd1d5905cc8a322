package flow_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// vendors serve kinds of credential.
type vendors map[string]grant.Provider

func (v vendors) Provider(kind string) (grant.Provider, error) {
	if p := v[kind]; p != nil {
		return p, nil
	}
	return nil, fault.NotFoundf("no plugin serves %s", kind)
}

func (v vendors) Revoker(kind string) (grant.Revoker, error) {
	if r, ok := v[kind].(grant.Revoker); ok {
		return r, nil
	}
	return nil, fault.NotFoundf("no plugin revokes %s", kind)
}

func (v vendors) Kinds() []string { return slices.Sorted(maps.Keys(v)) }

// vendor issues random values, narrowed as policy says, unless it is told to do
// something else.
type vendor struct {
	source grant.Source
	issue  func(context.Context, grant.Scope, grant.Bounds) (grant.Issued, error)

	mu    sync.Mutex
	asked []grant.Scope
	made  []string // the values
}

func newVendor(effects grant.Effects) *vendor {
	return &vendor{source: grant.Source{Plugin: "test", Version: "1.0.0", Digest: "sha256:00", Effects: effects, Address: "https://console.example/revoke"}}
}

func (v *vendor) Vet(context.Context, grant.Scope) error { return nil }
func (v *vendor) Source() grant.Source                   { return v.source }

func (v *vendor) Issue(ctx context.Context, asked grant.Scope, bounds grant.Bounds) (grant.Issued, error) {
	v.mu.Lock()
	v.asked = append(v.asked, asked)
	issue := v.issue
	v.mu.Unlock()
	if issue != nil {
		return issue(ctx, asked, bounds)
	}
	return v.proper(asked, bounds), nil
}

// proper is a correct answer: within request and bounds.
func (v *vendor) proper(asked grant.Scope, bounds grant.Bounds) grant.Issued {
	params := maps.Clone(asked.Params)
	if list, ok := params["principals"].([]any); ok {
		allowed, _ := bounds.MaxParams["principals"].([]any)
		params["principals"] = slices.DeleteFunc(slices.Clone(list), func(p any) bool { return !slices.Contains(allowed, p) })
	}
	b := make([]byte, 24)
	_, _ = rand.Read(b)
	value := "cred-" + hex.EncodeToString(b)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.made = append(v.made, value)
	return grant.Issued{
		Scope: grant.Scope{Kind: asked.Kind, Params: params, TTL: min(asked.TTL, bounds.MaxTTL)}, Value: secret.FromString(value), Handle: "handle-" + value[5:13],
	}
}

func (v *vendor) calls() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.asked)
}

// taker is a vendor that takes back what it issued.
type taker struct {
	*vendor
	rmu      sync.Mutex
	taken    []string // handles of all tries
	values   []string
	revoke   func(try int, handle string) error
	supports func() (bool, error)
}

func newTaker(effects grant.Effects) *taker {
	t := &taker{vendor: newVendor(effects), supports: func() (bool, error) { return true, nil }}
	t.source.Revocable = true
	return t
}

func (r *taker) Supports(context.Context) (bool, error) { return r.supports() }

func (r *taker) Revoke(_ context.Context, which grant.Revocation) error {
	handle := which.Handle
	r.rmu.Lock()
	r.taken, r.values = append(r.taken, handle), append(r.values, string(which.Value.Reveal()))
	try, revoke := len(r.taken), r.revoke
	r.rmu.Unlock()
	if revoke != nil {
		return revoke(try, handle)
	}
	return nil
}

func (r *taker) tries() []string {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	return slices.Clone(r.taken)
}

// phone is a channel to people.
type phone struct {
	name string
	mu   sync.Mutex
	got  []notify.Notification
	fail func(try int) error
	n    int
}

func (p *phone) Name() string { return p.name }

func (p *phone) Notify(_ context.Context, n notify.Notification) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	if p.fail != nil {
		if err := p.fail(p.n); err != nil {
			return err
		}
	}
	p.got = append(p.got, n)
	return nil
}

func (p *phone) heard() []notify.Notification {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

const hour = time.Hour

func seedOf(s crypto.Signer) secret.Bytes {
	private, _ := s.(ed25519.PrivateKey)
	return secret.New(private.Seed())
}
