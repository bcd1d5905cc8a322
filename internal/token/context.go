package token

import (
	"encoding/json"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// ContextLife is how long a plugin may believe what it is told of a caller: the
// way to the plugin, and clocks that differ.
const ContextLife = time.Minute

// MaxContext is the size limit of a signed context, in bytes: servers of gRPC take
// 8 KiB of metadata.
const MaxContext = 6 << 10

// Contexts signs what plugins of the key broker are told of who calls them. Its
// keys sign nothing else, so that a plugin can show what it got to nobody as an
// attestation result or a session. Safe for concurrent use.
type Contexts struct {
	issuer, kind string
	ring         *Ring
	now          func() time.Time
}

// NewContexts makes a signer of tokens of a type (the header's typ).
func NewContexts(issuer, kind string, ring *Ring, now func() time.Time) (*Contexts, error) {
	if issuer == "" || kind == "" || ring == nil || now == nil {
		return nil, fault.Internalf("make a signer of contexts without issuer, type, keys or clock")
	}
	return &Contexts{issuer, kind, ring, now}, nil
}

// Sign makes a context for one audience. The members iss, aud, iat, exp and jti
// are its own. Faults: Internal for one that is too large, Unavailable without an
// active key.
func (c *Contexts) Sign(audience string, members map[string]any) (string, error) {
	now := c.now().UTC().Truncate(time.Second)
	expires := now.Add(ContextLife)
	key, err := c.ring.signer(now, expires)
	if err != nil {
		return "", err
	}
	all := map[string]any{}
	for name, v := range members {
		all[name] = v
	}
	all["iss"], all["aud"], all["iat"], all["exp"], all["jti"] = c.issuer, audience, now.Unix(), expires.Unix(), id.New()
	payload, err := json.Marshal(all)
	if err != nil {
		return "", fault.Wrap(err, "encode context")
	}
	opts := (&jose.SignerOptions{}).WithType(jose.ContentType(c.kind)).WithHeader("kid", key.ID)
	raw, err := signCompact(jose.SigningKey{Algorithm: jose.EdDSA, Key: key.private}, opts, payload)
	if err == nil && len(raw) > MaxContext {
		return "", fault.Internalf("a context of %d bytes is larger than the %d that plugins take", len(raw), MaxContext)
	}
	return raw, err
}

// KeySet writes the keys as a JWK set, for plugins.
func (c *Contexts) KeySet() ([]byte, error) {
	set, now := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}, c.now()
	for _, k := range *c.ring.keys.Load() {
		if now.Before(k.RetireAt) {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public, KeyID: k.ID, Algorithm: string(jose.EdDSA), Use: "sig"})
		}
	}
	text, err := json.Marshal(set)
	return text, fault.Wrap(err, "encode key set")
}
