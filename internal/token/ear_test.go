package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/seal"
)

const teeJWK = `{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"rOy3DyWZGju2zGna07LFolgPlokBDrgF-JENNSyLD-c","y":"W2G4oFImrmBHkuETU0CjwzVmX5bx3Ho7BlnqhAbbJHc"}`

func teeKey(t testing.TB) seal.PublicKey {
	t.Helper()
	k, err := seal.ParseKey([]byte(teeJWK))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func verdict(t testing.TB) evidence.Verdict {
	t.Helper()
	k := teeKey(t)
	nonce := evidence.NonceOf([32]byte{})
	return evidence.Verdict{
		Runtime: evidence.Runtime{Nonce: nonce, Key: k},
		Devices: []evidence.Device{
			{
				Name: "cpu0", TEE: evidence.Sample, Class: evidence.CPU, Policy: "default_cpu",
				Vector: evidence.Vector{"hardware": 2, "executables": 3, "configuration": 36},
				Annotated: map[string]any{
					"sample": map[string]any{"svn": "1"}, "report_data": "AA==",
					"runtime_data_claims": map[string]any{"nonce": string(nonce), "tee-pubkey": k.Members()},
				},
				Extensions: map[string]any{"ear.trustee.identifiers": map[string]any{"vm": "x<y>&"}},
			},
			{
				Name: "gpu0", TEE: evidence.SampleDevice, Class: evidence.GPU, Policy: "default_gpu",
				Vector: evidence.Vector{"hardware": 2}, Annotated: map[string]any{"sampledevice": map[string]any{"svn": "2"}},
			},
		},
	}
}

func minter(t testing.TB, key crypto.Signer, chain ...*x509.Certificate) *Minter {
	t.Helper()
	m, err := NewMinter(MinterConfig{Key: key, Chain: chain, Build: "v1", Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func trust(t testing.TB, at time.Time, cfg TrustConfig) *Trust {
	t.Helper()
	cfg.Now = func() time.Time { return at }
	tr, err := NewTrust(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func mint(t testing.TB, m *Minter) string {
	t.Helper()
	tok, expires, err := m.Mint(verdict(t))
	if err != nil || expires.Sub(start) != EARLife {
		t.Fatalf("expires %s, %v", expires, err)
	}
	return tok
}

func TestMinter_WritesWhatKeyBrokersRead(t *testing.T) {
	key := p256(t)
	tok := mint(t, minter(t, key))
	jws, err := jwt.ParseSigned(tok, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := jws.Claims(&key.PublicKey, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"eat_profile": EARProfile, "iss": EARIssuer, "iat": float64(start.Unix()), "exp": float64(start.Add(5 * time.Minute).Unix()),
		"ear.verifier-id": map[string]any{"build": "v1", "developer": EARDeveloper},
		"submods": map[string]any{
			"cpu0": map[string]any{
				"ear.status":                 "warning",
				"ear.trustworthiness-vector": map[string]any{"hardware": 2., "executables": 3., "configuration": 36.},
				"ear.appraisal-policy-id":    "default_cpu",
				"ear.trustee.identifiers":    map[string]any{"vm": "x<y>&"},
				"ear.veraison.annotated-evidence": map[string]any{
					"sample": map[string]any{"svn": "1"}, "report_data": "AA==",
					"runtime_data_claims": map[string]any{"nonce": strings.Repeat("A", 43) + "=", "tee-pubkey": teeKey(t).Members()},
				},
			},
			"gpu0": map[string]any{
				"ear.status": "affirming", "ear.trustworthiness-vector": map[string]any{"hardware": 2.},
				"ear.appraisal-policy-id": "default_gpu", "ear.veraison.annotated-evidence": map[string]any{"sampledevice": map[string]any{"svn": "2"}},
			},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	head, _ := decode(strings.Split(tok, ".")[0])
	var h map[string]any
	if err := json.Unmarshal(head, &h); err != nil {
		t.Fatal(err)
	}
	jwk, _ := h["jwk"].(map[string]any)
	if h["typ"] != "JWT" || h["alg"] != "ES256" || jwk["alg"] != "ES256" || jwk["crv"] != "P-256" || h["kid"] != nil || len(h) != 3 {
		t.Errorf("header %s", head)
	}
}

// brokenSigner is a key in a device that breaks when it was taken.
type brokenSigner struct {
	*ecdsa.PrivateKey
	out   []byte
	err   error
	taken *bool
}

func (s brokenSigner) Sign(random io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if !*s.taken {
		return s.PrivateKey.Sign(random, digest, o)
	}
	return s.out, s.err
}

func TestMinter_FailsClosed(t *testing.T) {
	key := p256(t)
	for name, change := range map[string]func(*evidence.Verdict){
		"no devices":   func(v *evidence.Verdict) { v.Devices = nil },
		"no key":       func(v *evidence.Verdict) { v.Runtime.Key = seal.PublicKey{} },
		"no vector":    func(v *evidence.Verdict) { v.Devices[1].Vector = nil },
		"no evidence":  func(v *evidence.Verdict) { v.Devices[1].Annotated = nil },
		"no name":      func(v *evidence.Verdict) { v.Devices[1].Name = "" },
		"same name":    func(v *evidence.Verdict) { v.Devices[1].Name = "cpu0" },
		"own status":   func(v *evidence.Verdict) { v.Devices[0].Extensions = map[string]any{memberStatus: "affirming"} },
		"too large":    func(v *evidence.Verdict) { v.Devices[0].Annotated["x"] = strings.Repeat("x", MaxEAR) },
		"no JSON form": func(v *evidence.Verdict) { v.Devices[0].Annotated["x"] = func() {} },
	} {
		v := verdict(t)
		change(&v)
		if tok, _, err := minter(t, key).Mint(v); err == nil || tok != "" {
			t.Errorf("%s: minted", name)
		}
	}
	for name, s := range map[string]brokenSigner{
		"fails": {err: errors.New("device gone")}, "nonsense": {out: []byte("x")}, "zero": {out: []byte{0x30, 6, 2, 1, 0, 2, 1, 0}},
		"trailing": {out: []byte{0x30, 6, 2, 1, 1, 2, 1, 1, 0}},
	} {
		s.PrivateKey, s.taken = key, new(bool)
		m := minter(t, s)
		*s.taken = true
		if _, _, err := m.Mint(verdict(t)); err == nil {
			t.Errorf("signer %s: minted", name)
		}
	}
	now := func() time.Time { return start }
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]MinterConfig{
		"no key": {Build: "v", Now: now}, "no clock": {Key: key, Build: "v"}, "no build": {Key: key, Now: now}, "P-384": {Key: p384, Build: "v", Now: now},
		"Ed25519": {Key: edKey(t), Build: "v", Now: now}, "a day and more": {Key: key, Build: "v", Now: now, Life: 25 * time.Hour},
		"other's chain": {Key: key, Build: "v", Now: now, Chain: []*x509.Certificate{certificate(t, p256(t), start, start.Add(time.Hour))}},
	} {
		if m, err := NewMinter(cfg); err == nil || m != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewTrust(TrustConfig{}); err == nil {
		t.Error("trust without a clock")
	}
	if _, err := NewTrust(TrustConfig{Now: now, Keys: []SignerKey{{Public: p384.Public()}}}); err == nil {
		t.Error("trust in P-384")
	}
}
