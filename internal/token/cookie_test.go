package token

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func cookieKey(name string, b byte) CookieKey {
	return CookieKey{ID: name, Secret: seed(b), NotBefore: start.Add(-time.Hour), RetireAt: start.Add(24 * time.Hour)}
}

func newCookies(t testing.TB, c *clock, keys ...CookieKey) *Cookies {
	t.Helper()
	out, err := NewCookies(CookiesConfig{Keys: keys, Now: c.read})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func handshake(t testing.TB) Handshake {
	t.Helper()
	n, err := evidence.NewNonce(nil)
	if err != nil {
		t.Fatal(err)
	}
	return Handshake{Nonce: n, TEE: evidence.SampleDevice, Version: evidence.V040, Expires: start.Add(CookieLife)}
}

func TestCookies_CarryTheHandshake(t *testing.T) {
	c := &clock{start}
	one, two := newCookies(t, c, cookieKey("a", 1)), newCookies(t, c, cookieKey("b", 2), cookieKey("a", 1))
	for _, tee := range []evidence.TEE{evidence.Sample, evidence.AzSnpVtpm, evidence.NvidiaDpu} {
		for _, v := range []evidence.Version{evidence.V040, evidence.V020} {
			h := handshake(t)
			h.TEE, h.Version = tee, v
			value, err := one.Seal(h)
			if err != nil {
				t.Fatal(err)
			}
			got, err := two.Open(value) // any replica
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(h, got); d != "" {
				t.Error(d)
			}
			if len(value) > 256 || strings.Contains(value, string(h.Nonce)[:20]) || strings.ContainsAny(value, "+/=;, \"") {
				t.Errorf("value %s", value)
			}
		}
	}
	h := handshake(t)
	h.Expires = time.Time{}
	value, err := one.Seal(h)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := one.Open(value); err != nil || got.Expires.Sub(start) != CookieLife {
		t.Errorf("%v, %v", got.Expires, err)
	}
	if again, _ := one.Seal(h); again == value {
		t.Error("two cookies are the same")
	}
}

func TestCookies_RefuseOthers(t *testing.T) {
	c := &clock{start}
	cs := newCookies(t, c, cookieKey("a", 1))
	value, err := cs.Seal(handshake(t))
	if err != nil {
		t.Fatal(err)
	}
	renamed := newCookies(t, c, cookieKey("b", 1))
	foreign := newCookies(t, c, cookieKey("a", 2))
	old := cookieKey("a", 1)
	old.RetireAt = start
	for name, x := range map[string]*Cookies{"other id": renamed, "other key": foreign, "retired": newCookies(t, c, old)} {
		if _, err := x.Open(value); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "a", "AQ", "Af8", strings.Repeat("A", MaxCookie+1), "0123456789abcdef0123456789abcdef", value + "=", value + "\n", " " + value} {
		if _, err := cs.Open(bad); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	c.pass(CookieLife - time.Second)
	if _, err := cs.Open(value); err != nil {
		t.Errorf("right before it expires: %v", err)
	}
	c.pass(time.Second)
	if _, err := cs.Open(value); !fault.Is(err, fault.Unauthenticated) || !strings.Contains(fault.Public(err), "expired") {
		t.Errorf("expired: %v", err)
	}
}

func TestCookies_RefuseEveryMutant(t *testing.T) {
	c := &clock{start}
	cs := newCookies(t, c, cookieKey("a", 1), cookieKey("b", 2))
	value, err := cs.Seal(handshake(t))
	if err != nil {
		t.Fatal(err)
	}
	mutants := 0
	for i := range value {
		for _, r := range "ABQZaz09-_." {
			m := value[:i] + string(r) + value[i+1:]
			if m == value {
				continue
			}
			mutants++
			if _, err := cs.Open(m); !fault.Is(err, fault.Unauthenticated) {
				t.Fatalf("mutant at %d: %v", i, err)
			}
		}
		if _, err := cs.Open(value[:i]); err == nil {
			t.Fatalf("cut at %d", i)
		}
	}
	if mutants < 1000 {
		t.Errorf("only %d mutants", mutants)
	}
}

func TestCookies_Rotate(t *testing.T) {
	c := &clock{start}
	cs := newCookies(t, c, cookieKey("a", 1))
	old, err := cs.Seal(handshake(t))
	if err != nil {
		t.Fatal(err)
	}
	next := cookieKey("b", 2)
	next.NotBefore = start
	if err := cs.Replace([]CookieKey{cookieKey("a", 1), next}); err != nil {
		t.Fatal(err)
	}
	fresh, err := cs.Seal(handshake(t))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := decode(fresh); string(b[2:3]) != "b" {
		t.Error("not sealed with the newest key")
	}
	if _, err := cs.Open(old); err != nil {
		t.Errorf("a cookie of the old key: %v", err)
	}
	c.pass(48 * time.Hour)
	if _, err := cs.Seal(handshake(t)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("all keys retired: %v", err)
	}
}

func TestCookies_FailClosed(t *testing.T) {
	c := &clock{start}
	short, endless, name := cookieKey("a", 1), cookieKey("a", 1), cookieKey("a b", 1)
	short.Secret = Key{}.Seed
	endless.RetireAt = endless.NotBefore
	for label, keys := range map[string][]CookieKey{
		"none": nil, "short": {short}, "no life": {endless}, "name": {name},
		"same id": {cookieKey("a", 1), cookieKey("a", 2)}, "same key": {cookieKey("a", 1), cookieKey("b", 1)},
	} {
		if _, err := NewCookies(CookiesConfig{Keys: keys, Now: c.read}); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %v", label, err)
		}
	}
	if _, err := NewCookies(CookiesConfig{Keys: []CookieKey{cookieKey("a", 1)}}); err == nil {
		t.Error("cookies without a clock")
	}
	cs := newCookies(t, c, cookieKey("a", 1))
	for label, change := range map[string]func(*Handshake){
		"no nonce": func(h *Handshake) { h.Nonce = "" }, "odd nonce": func(h *Handshake) { h.Nonce = "AAAA" },
		"odd TEE": func(h *Handshake) { h.TEE = "X" }, "odd version": func(h *Handshake) { h.Version = "1" },
		"before 1970": func(h *Handshake) { h.Expires = time.Unix(-5, 0) },
	} {
		h := handshake(t)
		change(&h)
		if _, err := cs.Seal(h); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %v", label, err)
		}
	}
}

// knownCookie was sealed with cookieKey("a", 1): the format must stay readable
// over an upgrade, and the fuzzer's workers must share one good value.
const knownCookie = "AQFhCNQYx4CbjiXyBLrDMGg92-EAEMiOQyIsrbIY12Rr4DfhSQPlX0c4_5aA68GMZSCkaiPsNBvS8NKuOIa6QRbmY3FgRFcgeGDym_31t3dEy2CwOeb6sdXN-ITGis8cv2AOTxMWUaRV38G-q1Y"

func TestCookies_ReadTheKnownFormat(t *testing.T) {
	got, err := newCookies(t, &clock{start}, cookieKey("a", 1)).Open(knownCookie)
	want := Handshake{evidence.NonceOf([evidence.NonceSize]byte{}), evidence.SampleDevice, evidence.V040, "finance", start.Add(CookieLife)}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

// TestHandshake_ID: handshakes sort by their time, differ by their nonce, and the
// name has nothing of the nonce.
func TestHandshake_ID(t *testing.T) {
	before, other := handshake(t), handshake(t)
	after := before
	after.Expires = before.Expires.Add(time.Microsecond)
	if before.ID() >= after.ID() || before.ID() == other.ID() {
		t.Errorf("%s, a microsecond later %s, another %s", before.ID(), after.ID(), other.ID())
	}
	if len(before.ID()) != 64 || strings.Contains(before.ID(), hex.EncodeToString(before.Nonce.Bytes()[:4])) {
		t.Errorf("the id %s", before.ID())
	}
}

func FuzzCookie(f *testing.F) {
	cs := newCookies(f, &clock{start}, cookieKey("a", 1))
	f.Add(knownCookie)
	f.Add("AQFh")
	f.Fuzz(func(t *testing.T, s string) {
		_, err := cs.Open(s)
		if (err == nil) != (s == knownCookie) || err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("%q: %v", s, err)
		}
		if b, ok := decode(s); ok {
			if h, ok := unpack(b); ok && h.Nonce.Bytes() == nil {
				t.Fatal("unpacked a malformed nonce")
			}
		}
	})
}

func BenchmarkCookie(b *testing.B) {
	c := &clock{start}
	cs := newCookies(b, c, cookieKey("a", 1))
	value, err := cs.Seal(handshake(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cs.Open(value); err != nil {
			b.Fatal(err)
		}
	}
}
