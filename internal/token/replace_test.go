package token

import (
	"testing"
	"time"
)

// TestTrust_Replace rotates the key of attestation results: tokens of both keys
// are good while both are trusted, and none of a key that is gone, even if it was
// verified before.
func TestTrust_Replace(t *testing.T) {
	old, fresh := p256(t), p256(t)
	now := time.Now()
	clock := func() time.Time { return now }
	m, err := NewMinter(MinterConfig{Key: old, Build: "test", Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	trust, err := NewTrust(TrustConfig{Keys: []SignerKey{{Public: old.Public()}}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	mint := func() string {
		t.Helper()
		raw, _, err := m.Mint(verdict(t))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	before := mint()
	if err := m.Replace(fresh, nil); err != nil {
		t.Fatal(err)
	}
	after := mint()
	check := func(when, raw string, good bool) {
		t.Helper()
		if _, err := trust.Verify(raw); (err == nil) != good {
			t.Errorf("%s: %v, want good: %t", when, err, good)
		}
	}
	check("the old key", before, true)
	check("a key that is not trusted yet", after, false)
	if err := trust.Replace([]SignerKey{{Public: old.Public(), RetireAt: now.Add(time.Minute)}, {Public: fresh.Public()}}); err != nil {
		t.Fatal(err)
	}
	check("the old key, which retires", before, true)
	check("the new key", after, true)
	if err := trust.Replace([]SignerKey{{Public: fresh.Public()}}); err != nil {
		t.Fatal(err)
	}
	check("the old key, which is gone", before, false)
	check("the new key alone", after, true)
	if err := trust.Replace([]SignerKey{{Public: "none"}}); err == nil {
		t.Error("a key of another kind was taken")
	}
	check("after a refused replacement", after, true)
}
