package token

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// A context is signed for a minute and one audience, and is neither an attestation
// result nor a session, also to who holds its key for one of those.
func TestContexts_Sign(t *testing.T) {
	at := time.Now().UTC()
	now := func() time.Time { return at }
	private := seed(7)
	ring, err := NewRing([]Key{{ID: "one", Seed: private, NotBefore: at.Add(-time.Hour), RetireAt: at.Add(time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewContexts("house", "sallyport-context+jwt", ring, now)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.Sign("models", map[string]any{"caller": "guest", "aud": "another", "exp": 0, "tee-pubkey": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	parts, err := split(raw, MaxContext)
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(parts.payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims["aud"] != "models" || claims["iss"] != "house" || claims["exp"].(float64)-claims["iat"].(float64) != 60 || claims["jti"] == "" {
		t.Errorf("the claims are %v", claims)
	}
	set, err := c.KeySet()
	if err != nil || strings.Contains(string(set), `"d"`) {
		t.Fatalf("the key set is %s, %v", set, err)
	}
	// Even a server whose operator mixes up the two key sets refuses it.
	keys, err := ParseKeySet(set)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := NewTrust(TrustConfig{Sets: []KeySet{keys}, Insecure: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Verify(raw); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("it is taken for an attestation result: %v", err)
	}
	sessions, err := NewSessions(SessionsConfig{Issuer: "house", Ring: ring, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sessions.Verify(raw, Presentation{}); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("it is taken for a session: %v", err)
	}
	if _, err := c.Sign("models", map[string]any{"x": strings.Repeat("x", MaxContext)}); !fault.Is(err, fault.Internal) {
		t.Errorf("one that plugins do not take: %v", err)
	}
	at = at.Add(time.Hour)
	if _, err := c.Sign("models", nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without an active key: %v", err)
	}
}
