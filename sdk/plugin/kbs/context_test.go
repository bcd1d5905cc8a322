package kbs

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// broker signs contexts as a broker does, and publishes its keys.
type broker struct {
	t    *testing.T
	name string // by which its keys differ from another's
	keys map[string]ed25519.PrivateKey
	down bool
	read int
	made int
}

func newBroker(t *testing.T) *broker { return brokerOf(t, "house") }

func brokerOf(t *testing.T, name string) *broker {
	b := &broker{t: t, name: name, keys: map[string]ed25519.PrivateKey{}}
	b.rotate("one")
	return b
}

func (b *broker) rotate(kid string) {
	seed := sha256.Sum256([]byte(b.name + " " + kid)) // the same in each run: see vectors_test.go
	b.keys[kid] = ed25519.NewKeyFromSeed(seed[:])
}

func (b *broker) set(context.Context) ([]byte, error) {
	if b.read++; b.down {
		return nil, errors.New("down")
	}
	keys := []any{map[string]any{"kty": "EC", "crv": "P-256", "x": "AAAA", "kid": "other"}}
	for _, kid := range slices.Sorted(maps.Keys(b.keys)) {
		x, _ := b.keys[kid].Public().(ed25519.PublicKey)
		keys = append(keys, map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64.RawURLEncoding.EncodeToString(x)})
	}
	return json.Marshal(map[string]any{"keys": keys})
}

// asked is the request of these tests.
func asked() *Request {
	return &Request{Method: "GET", Path: []string{"a", ""}, Query: map[string]string{"q": "1", "p": "2"}, Body: []byte("body")}
}

// sign makes a context for it, with what change does to header and claims.
func (b *broker) sign(kid string, change func(head, claims map[string]any)) string {
	b.made++
	r := asked()
	head := map[string]any{"alg": "EdDSA", "typ": pluginv1.ContextType, "kid": kid}
	claims := map[string]any{
		"iss": "house", "aud": "models", "jti": strings.Repeat("x", b.made), "iat": noon.Unix(), "exp": noon.Add(time.Minute).Unix(),
		"request": pluginv1.RequestDigest(r.Method, r.Path, r.Query, r.Body), "caller": "guest",
		"guest": map[string]any{"workload": "w", "status": "affirming", "devices": []any{map[string]any{"name": "cpu0", "tee": "snp"}}},
	}
	if change != nil {
		change(head, claims)
	}
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			b.t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	raw := part(head) + "." + part(claims)
	return raw + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(b.keys[kid], []byte(raw)))
}

func (b *broker) verifier(now *time.Time) *verifier {
	return &verifier{audience: "models", source: b.set, now: func() time.Time { return *now }, seen: map[string]bool{}}
}

func shown(contexts ...string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.MD{pluginv1.ContextKey: contexts})
}

func TestContext_SaysWhoCalls(t *testing.T) {
	b, now := newBroker(t), noon
	c, err := b.verifier(&now).check(shown(b.sign("one", nil)), asked(), false)
	if err != nil || c.Caller != "guest" || c.Broker != "house" || c.Guest.Workload != "w" || c.Guest.Devices[0].TEE != "snp" || !c.Expires.Equal(noon.Add(time.Minute)) {
		t.Fatalf("%+v %v", c, err)
	}
	c, err = b.verifier(&now).check(shown(b.sign("one", func(_, claims map[string]any) {
		delete(claims, "guest")
		claims["caller"], claims["administrator"] = "administrator", "alice"
	})), asked(), false)
	if err != nil || c.Guest != nil || c.Administrator != "alice" {
		t.Fatalf("%+v %v", c, err)
	}
}

// showing is what somebody shows with a request.
type showing struct {
	name     string
	contexts []string
	change   func(*Request) // what differs from the request that it was signed for
	at       time.Duration  // after noon
}

// request is what is asked.
func (s showing) request() *Request {
	r := asked()
	r.Query = maps.Clone(r.Query)
	if s.change != nil {
		s.change(r)
	}
	return r
}

// refusals are whatever somebody on the way, another plugin or a direct caller could show.
func refusals(t *testing.T, b *broker) []showing {
	stranger := brokerOf(t, "stranger")
	claim := func(name string, v any) string {
		return b.sign("one", func(_, claims map[string]any) { claims[name] = v })
	}
	header := func(name string, v any) string {
		return b.sign("one", func(head, _ map[string]any) { head[name] = v })
	}
	good := b.sign("one", nil)
	parts := strings.Split(good, ".")
	other := strings.Split(claim("administrator", "alice"), ".")
	return []showing{
		{name: "nothing"},
		{name: "two", contexts: []string{b.sign("one", nil), b.sign("one", nil)}},
		{name: "no token", contexts: []string{"x"}},
		{name: "another plugin", contexts: []string{claim("aud", "vault")}},
		{name: "several audiences", contexts: []string{claim("aud", []string{"models", "vault"})}},
		{name: "expired", contexts: []string{b.sign("one", nil)}, at: time.Minute},
		{name: "of the future", contexts: []string{b.sign("one", nil)}, at: -time.Minute},
		{name: "for a day", contexts: []string{claim("exp", noon.Add(24*time.Hour).Unix())}},
		{name: "no expiry", contexts: []string{claim("exp", 0)}},
		{name: "no number", contexts: []string{claim("jti", "")}},
		{name: "a guest who is none", contexts: []string{claim("guest", nil)}},
		{name: "an anybody with claims", contexts: []string{claim("caller", "anybody")}},
		{name: "changed claims", contexts: []string{parts[0] + "." + other[1] + "." + parts[2]}},
		{name: "no signature", contexts: []string{parts[0] + "." + parts[1] + "."}},
		{name: "another's key", contexts: []string{stranger.sign("one", nil)}},
		{name: "alg none", contexts: []string{header("alg", "none")}},
		{name: "alg HS256", contexts: []string{header("alg", "HS256")}},
		{name: "an attestation token", contexts: []string{header("typ", "JWT")}},
		{name: "critical members", contexts: []string{header("crit", []string{"x"})}},
		{name: "an unknown key", contexts: []string{header("kid", "two")}},
		{name: "too long", contexts: []string{claim("x", strings.Repeat("x", maxContext))}},
		{name: "another method", contexts: []string{b.sign("one", nil)}, change: func(r *Request) { r.Method = "PUT" }},
		{name: "another path", contexts: []string{b.sign("one", nil)}, change: func(r *Request) { r.Path = []string{"a"} }},
		{name: "segments put together", contexts: []string{b.sign("one", nil)}, change: func(r *Request) { r.Path = []string{"a", "", ""} }},
		{name: "another query", contexts: []string{b.sign("one", nil)}, change: func(r *Request) { r.Query["q"] = "2" }},
		{name: "another body", contexts: []string{b.sign("one", nil)}, change: func(r *Request) { r.Body = nil }},
	}
}

func TestContext_RefusesOthers(t *testing.T) {
	b, now := newBroker(t), noon
	for _, c := range refusals(t, b) {
		t.Run(c.name, func(t *testing.T) {
			now = noon.Add(c.at)
			if who, err := b.verifier(&now).check(shown(c.contexts...), c.request(), false); err == nil {
				t.Errorf("it is taken for %+v", who)
			}
		})
	}
	now = noon
	v, good := b.verifier(&now), b.sign("one", nil)
	for i, want := range []bool{true, false, false} {
		if _, err := v.check(shown(good), asked(), false); (err == nil) != want {
			t.Errorf("shown for the %d. time: %v", i+1, err)
		}
		now = noon.Add(time.Duration(i) * 29 * time.Second)
	}
}

// A rotated key is looked for, but not at each unknown one, and what is known
// counts while the broker cannot be asked.
func TestContext_FollowsRotation(t *testing.T) {
	b, now := newBroker(t), noon
	v := b.verifier(&now)
	check := func(kid string) error {
		_, err := v.check(shown(b.sign(kid, func(_, c map[string]any) {
			c["iat"], c["exp"] = now.Unix(), now.Add(time.Minute).Unix()
		})), asked(), false)
		return err
	}
	if err := check("one"); err != nil || b.read != 1 {
		t.Fatalf("%v after %d looks", err, b.read)
	}
	b.rotate("two")
	for range 3 {
		if check("two") == nil {
			t.Fatal("a key is known that was not read")
		}
	}
	if b.read != 1 {
		t.Errorf("unknown keys make it look %d times", b.read)
	}
	now = now.Add(keysAtMost)
	if err := check("two"); err != nil || b.read != 2 {
		t.Errorf("%v after %d looks", err, b.read)
	}
	delete(b.keys, "one")
	b.down, now = true, now.Add(keysAtLeast)
	if err := check("two"); err != nil {
		t.Errorf("while the broker is down: %v", err)
	}
	now = now.Add(keysAtLongest)
	if check("two") == nil {
		t.Error("a key counts that nobody has confirmed for an hour")
	}
	b.down, now = false, now.Add(keysAtLeast)
	if err := check("two"); err != nil {
		t.Error(err)
	}
	b.keys["one"] = b.keys["two"] // signs under the name of the key that is gone
	if check("one") == nil {
		t.Error("a key that the broker does not publish any more is believed")
	}
}

// Who goes away while the keys are read takes them from nobody.
func TestContext_ReadsKeysForAll(t *testing.T) {
	b, now := newBroker(t), noon
	v := b.verifier(&now)
	v.source = func(ctx context.Context) ([]byte, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return b.set(ctx)
	}
	gone, leave := context.WithCancel(shown(b.sign("one", func(map[string]any, map[string]any) {})))
	leave()
	if _, err := v.check(gone, asked(), false); err != nil {
		t.Error(err)
	}
}

// A server that wants contexts calls its handler with them alone.
func TestServer_WithContext(t *testing.T) {
	b := newBroker(t)
	called := 0
	s := NewServer(HandlerFunc(func(ctx context.Context, _ *Request) (*Response, error) {
		called++
		return &Response{Body: []byte(FromContext(ctx).Guest.Workload)}, nil
	})).WithContext("models", b.set)
	conn, log, _ := begin(t, s)
	r := asked()
	q := &pluginv1.PluginRequest{Method: r.Method, Path: r.Path, Query: r.Query, Body: r.Body}
	client := pluginv1.NewKbsPluginClient(conn)
	_, err := client.Handle(t.Context(), q)
	if status.Code(err) != codes.Unauthenticated || called != 0 || !strings.Contains(log.String(), "sent no context") {
		t.Errorf("without a context: %v", err)
	}
	raw := b.sign("one", func(_, c map[string]any) { c["iat"], c["exp"] = time.Now().Unix(), time.Now().Add(time.Minute).Unix() })
	a, err := client.Handle(metadata.AppendToOutgoingContext(t.Context(), pluginv1.ContextKey, raw), q)
	if err != nil || string(a.GetBody()) != "w" || called != 1 {
		t.Errorf("%v %v", a, err)
	}
	if FromContext(t.Context()) != nil {
		t.Error("a context that nobody gave")
	}
}

// Nothing that the broker did not sign is taken, whatever it looks like.
func FuzzContext(f *testing.F) {
	f.Add("e30.e30.e30")
	f.Add("eyJhbGciOiJFZERTQSIsInR5cCI6InNhbGx5cG9ydC1jb250ZXh0K2p3dCIsImtpZCI6Im9uZSJ9.e30.AAAA")
	f.Add("..")
	key, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	v := &verifier{
		audience: "models", now: func() time.Time { return noon }, seen: map[string]bool{},
		keys: map[string]ed25519.PublicKey{"one": key}, read: noon,
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if who, err := v.check(shown(raw), asked(), false); err == nil {
			t.Fatalf("%q is taken for %+v", raw, who)
		}
		if who, err := v.check(shown(raw), asked(), true); err == nil && (who.Caller == pluginv1.CallerGuest) != (who.Guest != nil) {
			t.Fatalf("%q contradicts itself: %+v", raw, who)
		}
	})
}
