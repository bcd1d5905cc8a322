package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// A kept token is spared its signature and nothing else: what has changed since it
// was kept counts, whether or not it is remembered.
func TestTrust_VerifyKept(t *testing.T) {
	key, other := p256(t), p256(t)
	tests := []struct {
		name   string
		change func(t *testing.T, trust *Trust, at *time.Time)
	}{
		{"its key was replaced", func(t *testing.T, trust *Trust, _ *time.Time) {
			if err := trust.Replace([]SignerKey{{Public: other.Public()}}); err != nil {
				t.Fatal(err)
			}
		}},
		{"its key has retired", func(t *testing.T, trust *Trust, at *time.Time) {
			if err := trust.Replace([]SignerKey{{Public: key.Public(), RetireAt: *at}}); err != nil {
				t.Fatal(err)
			}
		}},
		{"its key retires while the header is remembered", func(_ *testing.T, _ *Trust, at *time.Time) {
			*at = at.Add(4 * time.Minute)
		}},
		{"it has expired", func(_ *testing.T, _ *Trust, at *time.Time) { *at = at.Add(EARLife + leeway) }},
	}
	for _, tt := range tests {
		for _, remembered := range []bool{true, false} {
			at := time.Now().UTC().Truncate(time.Second)
			clock := func() time.Time { return at }
			m, err := NewMinter(MinterConfig{Key: key, Build: "test", Now: clock})
			if err != nil {
				t.Fatal(err)
			}
			trust, err := NewTrust(TrustConfig{Keys: []SignerKey{{Public: key.Public(), RetireAt: at.Add(4 * time.Minute)}}, Now: clock})
			if err != nil {
				t.Fatal(err)
			}
			raw, _, err := m.Mint(verdict(t))
			if err != nil {
				t.Fatal(err)
			}
			first, err := trust.VerifyKept(raw)
			if err != nil || !first.Own || first.Signer == "" || first.Key.IsZero() {
				t.Fatalf("%s: got %v, %v", tt.name, first, err)
			}
			if !remembered {
				trust.seen.clear()
			}
			tt.change(t, trust, &at)
			if _, err := trust.VerifyKept(raw); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("%s (remembered: %t): got %v, want Unauthenticated", tt.name, remembered, err)
			}
		}
	}
}

// Nobody's token becomes good because one with the same header was.
func TestTrust_HeaderIsNoSignature(t *testing.T) {
	key := p256(t)
	at := time.Now()
	m, err := NewMinter(MinterConfig{Key: key, Build: "test", Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	trust := trust(t, at, TrustConfig{Keys: []SignerKey{{Public: key.Public()}}})
	raw, _, err := m.Mint(verdict(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Verify(raw); err != nil {
		t.Fatal(err)
	}
	at = at.Add(time.Second)
	second, _, err := m.Mint(verdict(t))
	if err != nil {
		t.Fatal(err)
	}
	parts, others := strings.Split(raw, "."), strings.Split(second, ".")
	payload, _ := decode(parts[1])
	changed := strings.Replace(string(payload), EARIssuer, "Coco-Attestation-Service", 1)
	for name, forged := range map[string]string{
		"signature of another token": parts[0] + "." + parts[1] + "." + others[2],
		"changed payload":            parts[0] + "." + encode([]byte(changed)) + "." + parts[2],
		"no signature":               parts[0] + "." + parts[1] + ".",
	} {
		if _, err := trust.Verify(forged); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v, want Unauthenticated", name, err)
		}
	}
}

// brokenKey signs something else than it is asked to.
type brokenKey struct{ *ecdsa.PrivateKey }

func (k brokenKey) Sign(random io.Reader, _ []byte, o crypto.SignerOpts) ([]byte, error) {
	sum := sha256.Sum256([]byte("something else"))
	return k.PrivateKey.Sign(random, sum[:], o)
}

// Tokens are not verified when they are minted, so that a key which signs nonsense
// has to be found when it is taken.
func TestMinter_RefusesAKeyThatDoesNotSign(t *testing.T) {
	good := p256(t)
	m, err := NewMinter(MinterConfig{Key: good, Build: "test", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Replace(brokenKey{p256(t)}, nil); !fault.Is(err, fault.Internal) {
		t.Errorf("got %v, want Internal", err)
	}
	trust := trust(t, time.Now(), TrustConfig{Keys: []SignerKey{{Public: good.Public()}}})
	raw, _, err := m.Mint(verdict(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Verify(raw); err != nil {
		t.Errorf("the old key did not stay: %v", err)
	}
}
