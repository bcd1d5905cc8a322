package app

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestTLS_Profiles(t *testing.T) {
	for name, c := range map[string]struct {
		in        TLS
		low, high uint16
		suites    int
		groups    int
	}{
		"nothing":      {TLS{}, tls.VersionTLS13, 0, 0, 0},
		"modern":       {TLS{Profile: "modern"}, tls.VersionTLS13, 0, 0, 0},
		"intermediate": {TLS{Profile: "intermediate"}, tls.VersionTLS12, 0, 6, 0},
		"old":          {TLS{Profile: "old"}, tls.VersionTLS10, 0, 0, 0},
		"custom": {
			TLS{Profile: "custom", MinVersion: "1.2", MaxVersion: "1.2", Ciphers: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"}, Groups: []string{"X25519MLKEM768", "secp384r1"}},
			tls.VersionTLS12, tls.VersionTLS12, 1, 2,
		},
	} {
		var got tls.Config
		if err := c.in.apply(&got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got.MinVersion != c.low || got.MaxVersion != c.high || len(got.CipherSuites) != c.suites || len(got.CurvePreferences) != c.groups {
			t.Errorf("%s: %x to %x, suites %x, groups %v", name, got.MinVersion, got.MaxVersion, got.CipherSuites, got.CurvePreferences)
		}
	}
	for name, in := range map[string]TLS{
		"unknown profile": {Profile: "legacy"}, "members without custom": {MinVersion: "1.2"}, "old version": {Profile: "custom", MinVersion: "1.0"},
		"turned around": {Profile: "custom", MinVersion: "1.3", MaxVersion: "1.2"}, "unknown cipher": {Profile: "custom", Ciphers: []string{"AES"}},
		"insecure cipher": {Profile: "custom", Ciphers: []string{"TLS_RSA_WITH_RC4_128_SHA"}}, "no cipher of 1.2": {Profile: "custom", Ciphers: []string{"TLS_AES_128_GCM_SHA256"}},
		"unknown group": {Profile: "custom", Groups: []string{"curve9"}},
	} {
		if err := in.apply(&tls.Config{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWeakListeners(t *testing.T) {
	c := Config{KBS: KBS{Admin: KBSAdmin{Mode: adminJWT}}}
	c.Listen.Further = []Listener{
		{Name: "good", Address: "0.0.0.0:8443", Doors: []string{"kbs"}},
		{Name: "near", Address: "127.0.0.1:8080", Doors: []string{"kbs"}, Plain: true},
		{Name: "open", Address: "0.0.0.0:8080", Doors: []string{"kbs"}, Plain: true},
		{Name: "old", Address: "0.0.0.0:8444", Doors: []string{"kbs"}, TLS: TLS{Profile: tlsOld}},
	}
	if got := c.weakListeners(); len(got) != 2 || !strings.Contains(got[0], "open takes the tokens") || !strings.Contains(got[1], "old has the TLS profile") {
		t.Errorf("%q", got)
	}
	c.KBS.Admin.Mode = adminOperators
	if got := c.weakListeners(); len(got) != 2 || !strings.Contains(got[0], "open is plain HTTP") {
		t.Errorf("where nobody shows a token: %q", got)
	}
}

// What is bound to every address is announced by a name that is in the certificate.
func TestApp_Announced(t *testing.T) {
	for _, c := range []struct {
		bound string
		names []string
		want  string
	}{
		{"127.0.0.1:8443", []string{"far.example.org"}, "127.0.0.1:8443"},
		{"192.0.2.7:8443", nil, "192.0.2.7:8443"},
		{"[::]:8443", []string{"far.example.org", "localhost"}, "far.example.org:8443"},
		{"0.0.0.0:8443", []string{"2001:db8::1"}, "[2001:db8::1]:8443"},
		{"[::]:8443", nil, "localhost:8443"},
	} {
		a := &App{bound: map[string]string{mainListener: c.bound}}
		a.cfg.Listen.Main = Listener{Address: c.bound, Names: c.names}
		if got := a.announced(); got != c.want {
			t.Errorf("bound to %s, called %q: %s, want %s", c.bound, c.names, got, c.want)
		}
	}
}
