package kbs

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
)

// Context is what a broker says of who has sent a request, as [Server.WithContext]
// has checked it. Sallyport says it where its operator has switched rich mode on
// for the plugin; Trustee says nothing.
type Context struct {
	Broker        string // the trust domain of the broker
	Caller        string // guest, administrator or anybody
	Administrator string // name of the operator; empty for none
	Guest         *Guest // nil for none
	Expires       time.Time
}

// Guest is an attested guest, which the broker's policy allows to ask the plugin.
type Guest struct {
	Workload string   `json:"workload"` // the broker's number of it
	Token    string   `json:"token"`    // SHA-256 of its attestation token, as the broker's records have it
	Key      string   `json:"key"`      // RFC 7638 thumbprint of the key that answers are sealed to
	Own      bool     `json:"own"`      // attested at this broker, and not by a token of another service
	Status   string   `json:"status"`   // affirming, warning, contraindicated or none: the worst of the devices
	Devices  []Device `json:"devices"`
}

// Device is one device of a guest. A member is empty where the token does not have
// it.
type Device struct {
	Name     string `json:"name"` // cpu0, gpu0
	TEE      string `json:"tee"`
	Status   string `json:"status"`
	Policy   string `json:"policy"`    // the attestation policy that appraised it
	InitData string `json:"init_data"` // digest of the init-data, as the evidence has it
}

// Keys gives the broker's key set for contexts (a JWK set). It is called when the
// plugin starts to need it, when a key is not known, and now and again, by one
// goroutine at a time; [KeyFile] and [KeyURL] make one.
type Keys func(ctx context.Context) ([]byte, error)

const (
	contextLeeway = 30 * time.Second // for clocks that differ
	longestLife   = 5 * time.Minute
	maxContext    = 8 << 10
	maxKeySet     = 256 << 10
	keysAtMost    = 10 * time.Second // between two looks for a key that is not known
	keysAtLeast   = 5 * time.Minute  // until the set is read again
	keysAtLongest = time.Hour        // that a set counts while it cannot be read again
	readWithin    = 10 * time.Second
)

// verifier checks contexts: signature, audience, times, that it belongs to this
// very request, and that it was not shown before.
type verifier struct {
	audience string
	source   Keys
	now      func() time.Time

	looking sync.Mutex // held while the set is read
	mu      sync.Mutex
	keys    map[string]ed25519.PublicKey
	read    time.Time // tried to
	good    time.Time // the last time that it went well
	// Two generations of what was shown, so that nothing is forgotten within the
	// life of a context.
	seen, before map[string]bool
	turned       time.Time
}

type contextClaims struct {
	Issuer        string `json:"iss"`
	Audience      string `json:"aud"`
	ID            string `json:"jti"`
	IssuedAt      int64  `json:"iat"`
	Expires       int64  `json:"exp"`
	Request       string `json:"request"`
	Caller        string `json:"caller"`
	Administrator string `json:"administrator"`
	Guest         *Guest `json:"guest"`
}

// check judges the context of a request. private says that it came over the
// channel that this process shares with the host which has started it, where a
// signature would prove nothing more.
func (v *verifier) check(ctx context.Context, r *Request, private bool) (*Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	sent := md.Get(pluginv1.ContextKey)
	if len(sent) != 1 || len(sent[0]) > maxContext {
		return nil, errors.New("the broker sent no context: it must be told to, by rich: true for this plugin")
	}
	head, payload, ok := splitContext(sent[0])
	if !ok {
		return nil, errors.New("the context is no signed token")
	}
	if !private {
		if err := v.signed(ctx, sent[0], head); err != nil {
			return nil, err
		}
	}
	var c contextClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, fmt.Errorf("read the context: %w", err)
	}
	now := v.now()
	issued, expires := time.Unix(c.IssuedAt, 0), time.Unix(c.Expires, 0)
	switch {
	case c.Audience != v.audience:
		return nil, errors.New("the context is for another plugin")
	case !now.Before(expires) || now.Before(issued.Add(-contextLeeway)) || expires.Sub(issued) > longestLife:
		return nil, errors.New("the context has expired, or the clocks differ")
	case c.Request != pluginv1.RequestDigest(r.Method, r.Path, r.Query, r.Body):
		return nil, errors.New("the context is for another request")
	case c.ID == "" || !v.first(c.ID, now):
		return nil, errors.New("the context was shown before")
	case (c.Guest != nil) != (c.Caller == pluginv1.CallerGuest):
		return nil, errors.New("the context contradicts itself")
	}
	return &Context{Broker: c.Issuer, Caller: c.Caller, Administrator: c.Administrator, Guest: c.Guest, Expires: expires}, nil
}

type contextHeader struct {
	Alg  string   `json:"alg"`
	Type string   `json:"typ"`
	Kid  string   `json:"kid"`
	Crit []string `json:"crit"`
}

func splitContext(raw string) (head contextHeader, payload []byte, ok bool) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return head, nil, false
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(parts[0])
	if err != nil || json.Unmarshal(text, &head) != nil {
		return head, nil, false
	}
	payload, err = base64.RawURLEncoding.Strict().DecodeString(parts[1])
	return head, payload, err == nil && head.Alg == "EdDSA" && head.Type == pluginv1.ContextType && head.Crit == nil
}

// signed checks the signature by a key of the set. One that is not known may be
// newer than the set is.
func (v *verifier) signed(ctx context.Context, raw string, head contextHeader) error {
	end := strings.LastIndexByte(raw, '.')
	signature, err := base64.RawURLEncoding.Strict().DecodeString(raw[end+1:])
	if err != nil || len(signature) != ed25519.SignatureSize {
		return errors.New("the context is no signed token")
	}
	key, err := v.key(ctx, head.Kid)
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, []byte(raw[:end]), signature) {
		return errors.New("the signature of the context is wrong")
	}
	return nil
}

func (v *verifier) key(ctx context.Context, kid string) (ed25519.PublicKey, error) {
	known := func() (ed25519.PublicKey, bool) {
		v.mu.Lock()
		defer v.mu.Unlock()
		age := v.now().Sub(v.read)
		key, ok := v.keys[kid]
		return key, ok && age < keysAtLeast || age < keysAtMost
	}
	if key, fresh := known(); fresh {
		return key, unknownKey(key)
	}
	v.looking.Lock()
	defer v.looking.Unlock()
	if key, fresh := known(); fresh { // somebody has looked meanwhile
		return key, unknownKey(key)
	}
	// A caller who goes away stops nothing: others wait for the same set.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readWithin)
	defer cancel()
	set, err := readKeys(ctx, v.source)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.read = v.now()
	switch {
	case err == nil:
		v.keys, v.good = set, v.read
	case v.read.Sub(v.good) >= keysAtLongest: // one of them may be withdrawn long since
		v.keys = nil
	}
	if key := v.keys[kid]; key != nil { // what is known still counts for a while
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the broker's keys: %w", err)
	}
	return nil, unknownKey(nil)
}

func unknownKey(key ed25519.PublicKey) error {
	if key == nil {
		return errors.New("the context is signed by no key of the broker")
	}
	return nil
}

// first reports whether a context was not shown before.
func (v *verifier) first(id string, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Sub(v.turned) > longestLife+contextLeeway {
		v.before, v.seen, v.turned = v.seen, map[string]bool{}, now
	}
	if v.seen[id] || v.before[id] {
		return false
	}
	v.seen[id] = true
	return true
}

func readKeys(ctx context.Context, source Keys) (map[string]ed25519.PublicKey, error) {
	if source == nil {
		return nil, errors.New("this plugin was given none")
	}
	text, err := source(ctx)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []struct{ Kty, Crv, X, Kid, D string } `json:"keys"`
	}
	if len(text) > maxKeySet {
		return nil, errors.New("the key set is too large")
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("read the key set: %w", err)
	}
	out := map[string]ed25519.PublicKey{}
	for _, k := range set.Keys {
		x, err := base64.RawURLEncoding.Strict().DecodeString(k.X)
		if k.Kty == "OKP" && k.Crv == "Ed25519" && k.Kid != "" && k.D == "" && err == nil && len(x) == ed25519.PublicKeySize {
			out[k.Kid] = x
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the key set has no key for contexts: take that of /.well-known/sallyport-context-jwks.json")
	}
	return out, nil
}
