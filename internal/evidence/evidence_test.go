package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/seal"
)

const vectorJWK = `{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"rOy3DyWZGju2zGna07LFolgPlokBDrgF-JENNSyLD-c","y":"W2G4oFImrmBHkuETU0CjwzVmX5bx3Ho7BlnqhAbbJHc"}`

var zeroNonce = NonceOf([NonceSize]byte{})

func vectorRuntime(t testing.TB) Runtime {
	t.Helper()
	k, err := seal.ParseKey([]byte(vectorJWK))
	if err != nil {
		t.Fatal(err)
	}
	return Runtime{Nonce: zeroNonce, Key: k}
}

// The vectors of kbs.md 3.1.
func TestRuntime_DigestMatchesVectors(t *testing.T) {
	got, err := digest(json.RawMessage(`{"b":1,"c":{"d":"e"},"a":"test"}`))
	if err != nil || hex.EncodeToString(got) != "e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c4597480a186427c813ca941da78870c3" {
		t.Errorf("repository vector: %x, %v", got, err)
	}
	r := vectorRuntime(t)
	got, err = r.Digest(V040)
	if err != nil || hex.EncodeToString(got) != "d99c3fe0ee40c7d4422dedd21ddee7eb1f55352cf5c97049f8797553a5ee8b592f8b532499b0b588679419d90726d3a9" {
		t.Errorf("own vector: %x, %v", got, err)
	}
}

func TestRuntime_DigestDependsOnVersionAndEveryMember(t *testing.T) {
	r := vectorRuntime(t)
	seen := map[string]string{}
	add := func(name string, d []byte, err error) {
		if err != nil || len(d) != 48 {
			t.Fatalf("%s: %x, %v", name, d, err)
		}
		if other, dup := seen[string(d)]; dup {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[string(d)] = name
	}
	d, err := r.Digest(V040)
	add("0.4.0", d, err)
	d, err = r.Digest(V020)
	add("0.2.0", d, err)
	dev, err := r.DeviceDigest()
	if err != nil || !bytes.Equal(dev, d) {
		t.Error("a device of 0.4.0 is bound to the object of 0.2.0")
	}
	r.Additional = `{"sampledevice":{}}`
	d, err = r.Digest(V040)
	add("with additional evidence", d, err)
	r = vectorRuntime(t)
	r.Nonce = NonceOf([NonceSize]byte{1})
	d, err = r.Digest(V040)
	add("another nonce", d, err)
	r = vectorRuntime(t)
	other, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	r.Key = other.Public()
	d, err = r.Digest(V040)
	add("another key", d, err)
}

func TestParseRequest_AcceptsRealGuests(t *testing.T) {
	for text, want := range map[string]Request{
		`{"version":"0.4.0","tee":"snp","extra-params":""}`:                                                                     {Version: V040, TEE: Snp},
		`{"version":"0.2.0","tee":"azsnpvtpm","extra-params":""}`:                                                               {Version: V020, TEE: AzSnpVtpm},
		`{"version":"0.4.0","tee":"aztdxvtpm","extra-params":{}}`:                                                               {Version: V040, TEE: AzTdxVtpm},
		`{"version":"0.4.0","tee":"sample","extra-params":null}`:                                                                {Version: V040, TEE: Sample},
		`{"version":"0.4.0","tee":"sample","extra-params":[1,{"a":2}]}`:                                                         {Version: V040, TEE: Sample},
		`{"version":"0.4.0","tee":"tdx","extra-params":{"supported-hash-algorithms":["sha256","sha384","sha512","sm3"]},"x":1}`: {Version: V040, TEE: Tdx, Algorithms: []string{"sha256", "sha384", "sha512", "sm3"}},
		`{"version":"0.4.0","tee":"tdx","extra-params":{"attestation-policy-selector":"gold"}}`:                                 {Version: V040, TEE: Tdx, Selector: "gold"},
	} {
		got, err := ParseRequest([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
		encoded, err := got.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRequest(encoded)
		if err != nil || cmp.Diff(got, again) != "" {
			t.Errorf("%s: round trip: %v", text, err)
		}
	}
}

func TestParseRequest_RefusesOthers(t *testing.T) {
	for _, text := range []string{
		``, `null`, `{}`, `[]`,
		`{"version":"0.4.0","tee":"snp"}`,
		`{"version":"0.1.1","tee":"snp","extra-params":""}`,
		`{"version":"0.4","tee":"snp","extra-params":""}`,
		`{"version":"0.4.1","tee":"snp","extra-params":""}`,
		`{"version":"0.4.0","tee":"SNP","extra-params":""}`,
		`{"version":"0.4.0","tee":"","extra-params":""}`,
		`{"version":"0.4.0","version":"0.2.0","tee":"snp","extra-params":""}`,
		`{"Version":"0.4.0","tee":"snp","extra-params":""}`,
		`{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":7}}`,
		`{"version":"0.4.0","tee":"snp","extra-params":""} x`,
		`{"version":"0.4.0","tee":"snp","extra-params":"` + strings.Repeat("x", MaxRequest) + `"}`,
		`{"version":"0.4.0","tee":"snp","extra-params":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		if _, err := ParseRequest([]byte(text)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.80s: %v", text, err)
		}
	}
	_, err := ParseVersion("0.1.1")
	if p := fault.Public(err); !strings.Contains(p, "0.1.1") || !strings.Contains(p, "0.4.0") || !strings.Contains(p, "0.2.0") {
		t.Errorf("the refusal does not name the versions: %s", p)
	}
}

func TestNonce_IsOneText(t *testing.T) {
	a, err := NewNonce(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := NewNonce(nil)
	if a == b || len(a) != 44 || len(a.Bytes()) != NonceSize || len(a.ID()) != 64 || a.ID() == b.ID() {
		t.Errorf("nonces %s, %s", a, b)
	}
	if _, err := NewNonce(strings.NewReader("short")); err == nil {
		t.Error("a nonce without enough randomness")
	}
	for _, bad := range []string{"", string(a[:43]), string(a) + "=", "\n" + string(a), strings.Repeat("A", 43) + "_", strings.Repeat("A", 42) + "B=", strings.Repeat("A", 64)} {
		if _, err := ParseNonce(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
		if Nonce(bad).Bytes() != nil && len(bad) == 44 {
			t.Errorf("%q has bytes", bad)
		}
	}
}

func TestParseChallenge_RefusesOtherHashes(t *testing.T) {
	text, err := json.Marshal(Challenge{Nonce: zeroNonce})
	if err != nil || string(text) != `{"nonce":"`+string(zeroNonce)+`","extra-params":""}` {
		t.Errorf("%s, %v", text, err)
	}
	for body, want := range map[string]bool{
		string(text): true,
		`{"nonce":"` + string(zeroNonce) + `","extra-params":{"selected-hash-algorithm":"sha384"}}`: true,
		`{"nonce":"` + string(zeroNonce) + `","extra-params":{"selected-hash-algorithm":"sha512"}}`: false,
		`{"nonce":"AAAA","extra-params":""}`: false,
		`{"extra-params":""}`:                false,
		`[]`:                                 false,
	} {
		if _, err := ParseChallenge([]byte(body)); (err == nil) != want || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", body, err)
		}
	}
	if _, err := ParseResponse([]byte(`{"token":""}`)); !fault.Is(err, fault.Invalid) {
		t.Error("an empty token is an answer")
	}
}

func attestation(v Version, r Runtime) Attestation {
	return Attestation{Version: v, Runtime: r, Primary: json.RawMessage(`{"svn":"1"}`)}
}

func TestAttestation_SurvivesTheWire(t *testing.T) {
	for _, v := range []Version{V040, V020} {
		a := attestation(v, vectorRuntime(t))
		a.InitData = &InitData{"toml", `version = "1"`}
		if v == V040 {
			a.Runtime.Additional = `{"sampledevice":{"svn":"2"}}`
		}
		text, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if has := bytes.Contains(text, []byte("primary_evidence")); has != (v == V040) {
			t.Errorf("%s: shape %s", v, text)
		}
		got, err := ParseAttestation(v, text)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, got, cmp.Comparer(seal.PublicKey.Equal)); d != "" {
			t.Error(d)
		}
		if !got.Answers(zeroNonce) || got.Answers("") || got.Answers(NonceOf([NonceSize]byte{1})) {
			t.Errorf("%s: answers the wrong nonce", v)
		}
	}
}

func TestParseAttestation_RefusesOthers(t *testing.T) {
	text := func(init, nonce, key, ev string) string {
		return `{"init-data":` + init + `,"runtime-data":{"nonce":"` + nonce + `","tee-pubkey":` + key + `},"tee-evidence":` + ev + `}`
	}
	good := `{"primary_evidence":{"a":1},"additional_evidence":""}`
	if _, err := ParseAttestation(V040, []byte(text("null", string(zeroNonce), vectorJWK, good))); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, bad := range map[string]string{
		"empty":              ``,
		"no members":         `{}`,
		"short nonce":        text("null", "AAAA", vectorJWK, good),
		"no key":             text("null", string(zeroNonce), "null", good),
		"RSA1_5":             text("null", string(zeroNonce), `{"kty":"RSA","alg":"RSA1_5","n":"AQAB","e":"AQAB"}`, good),
		"no additional":      text("null", string(zeroNonce), vectorJWK, `{"primary_evidence":{}}`),
		"no primary":         text("null", string(zeroNonce), vectorJWK, `{"additional_evidence":""}`),
		"null primary":       text("null", string(zeroNonce), vectorJWK, `{"primary_evidence":null,"additional_evidence":""}`),
		"bare evidence":      text("null", string(zeroNonce), vectorJWK, `"evidence"`),
		"init-data as JSON":  text(`{"format":"json","body":"{}"}`, string(zeroNonce), vectorJWK, good),
		"init-data too long": text(`{"format":"toml","body":"`+strings.Repeat("#", MaxInitData+1)+`"}`, string(zeroNonce), vectorJWK, good),
		"twice":              `{"runtime-data":{},` + text("null", string(zeroNonce), vectorJWK, good)[1:],
		"too long":           text("null", string(zeroNonce), vectorJWK, `{"primary_evidence":"`+strings.Repeat("x", MaxAttestation)+`","additional_evidence":""}`),
	} {
		if _, err := ParseAttestation(V040, []byte(bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseAttestation("0.9.9", []byte(text("null", string(zeroNonce), vectorJWK, good))); !fault.Is(err, fault.Internal) {
		t.Errorf("unknown version: %v", err)
	}
}

func TestRuntime_DevicesAreBounded(t *testing.T) {
	many := map[string]string{}
	for i := range 40 {
		many[strings.Repeat("x", i+1)] = ""
	}
	crowd, _ := json.Marshal(many)
	for _, bad := range []string{`[]`, `{"Not A Name":{}}`, `{"azsnpvtpm":{},"az-snp-vtpm":{}}`, `{"snp":{},"snp":{}}`, string(crowd), `x`} {
		if _, err := (Runtime{Additional: bad}).Devices(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.60s: %v", bad, err)
		}
	}
	got, err := (Runtime{Additional: `{"sampledevice":{"b":1},"nvidia":[]}`}).Devices()
	if err != nil || len(got) != 2 || got[0].TEE != Nvidia || got[1].TEE != SampleDevice {
		t.Errorf("%v, %v", got, err)
	}
}

func TestProblem_SpeaksTheProtocol(t *testing.T) {
	text, _ := json.Marshal(NewProblem(PolicyDeny, "no"))
	if want := `{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny","detail":"no"}`; string(text) != want {
		t.Errorf("%s", text)
	}
	p, err := ParseProblem(text)
	if err != nil || p.Variant() != PolicyDeny || p.Variant().NotFound() || !PluginNotFound.NotFound() || !InvalidRequestPath.NotFound() {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := ParseProblem([]byte(`{}`)); err == nil {
		t.Error("an empty object is an error object")
	}
	if (Problem{Type: "about:blank"}).Variant() != "" {
		t.Error("a foreign type has a variant")
	}
}

func TestTier_CoversTheWholeRange(t *testing.T) {
	for n := -128; n <= 127; n++ {
		want := Contraindicated
		switch {
		case n >= -1 && n <= 1:
			want = None
		case n >= 2 && n <= 31, n >= -32 && n <= -2:
			want = Affirming
		case n >= 32 && n <= 95, n >= -96 && n <= -33:
			want = Warning
		}
		if got := TierOf(int8(n)); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	for _, tier := range []Tier{None, Affirming, Warning, Contraindicated} {
		if got, err := ParseTier(tier.String()); err != nil || got != tier {
			t.Errorf("%s: %v", tier, err)
		}
	}
	if got, err := ParseTier("Affirming"); err == nil || got != Contraindicated {
		t.Error("an unknown tier is accepted")
	}
	if Tier(9).String() != "contraindicated" || Tier(-1).String() != "contraindicated" {
		t.Error("an impossible tier looks good")
	}
}

func TestVector_StatusIsTheWorst(t *testing.T) {
	for _, c := range []struct {
		claims map[string]any
		want   Tier
	}{
		{map[string]any{"hardware": float64(2), "executables": 3, "configuration": int64(2)}, Affirming},
		{map[string]any{"hardware": json.Number("2"), "executables": 33}, Warning},
		{map[string]any{"hardware": 97, "executables": 3}, Contraindicated},
		{map[string]any{"hardware": 0, "sourced-data": -1}, None},
	} {
		v, err := NewVector(c.claims)
		if err != nil || v.Status() != c.want {
			t.Errorf("%v: %s, %v", c.claims, v.Status(), err)
		}
	}
	for _, bad := range []map[string]any{
		nil,
		{},
		{"hardwear": 2},
		{"hardware": "2"},
		{"hardware": 2.5},
		{"hardware": 128},
		{"hardware": -129},
		{"hardware": 1e300},
		{"hardware": nil},
		{"hardware": true},
		{"hardware": json.Number("x")},
	} {
		if _, err := NewVector(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if Vector(nil).Status() != Contraindicated || (Verdict{}).Status() != Contraindicated {
		t.Error("nothing looks good")
	}
	if len(Dimensions()) != 8 {
		t.Error("there are eight dimensions")
	}
	worst := Verdict{Devices: []Device{{Vector: Vector{"hardware": 2}}, {Vector: Vector{"hardware": 40}}}}
	if worst.Status() != Warning {
		t.Error("the worst device does not count")
	}
}

func TestMatches_AcceptsEveryLengthWithoutPanic(t *testing.T) {
	d32, d48 := sha256.Sum256([]byte("x")), sha512.Sum384([]byte("x"))
	for field := range 130 {
		for digest := range 130 {
			_ = Matches(make([]byte, field), make([]byte, digest))
			if got := Fit(make([]byte, digest), field); len(got) != field {
				t.Fatal("wrong width")
			}
		}
	}
	for name, c := range map[string]struct {
		field, digest []byte
		want          bool
	}{
		"same":            {d32[:], d32[:], true},
		"padded":          {Fit(d48[:], 64), d48[:], true},
		"cut":             {d48[:32], d48[:], true},
		"padding is dirt": {append(Fit(d48[:], 63), 1), d48[:], false},
		"another":         {d32[:], d48[:], false},
		"empty digest":    {make([]byte, 32), nil, false},
		"empty field":     {nil, d32[:], false},
		"narrow":          {d32[:16], d32[:], false},
		"all zero":        {make([]byte, 32), make([]byte, 32), false},
	} {
		if got := Matches(c.field, c.digest); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

type judge struct {
	class Class
	init  bool
	err   error
	seen  *[]Binding
}

func (j judge) Verify(_ context.Context, _ Evidence, b Binding, _ time.Time) (Claims, error) {
	*j.seen = append(*j.seen, b)
	c := Claims{Class: j.class, Values: map[string]any{"svn": "1"}, ReportData: hex.EncodeToString(b.ReportData)}
	if j.init {
		c.InitData = hex.EncodeToString(b.InitData)
	}
	return c, j.err
}

func TestVerifiers_BindEachDevice(t *testing.T) {
	var seen []Binding
	vs := Verifiers{Sample: judge{class: CPU, init: true, seen: &seen}, SampleDevice: judge{class: GPU, seen: &seen}}
	a := attestation(V040, vectorRuntime(t))
	a.Runtime.Additional = `{"sampledevice":{"svn":"2"}}`
	a.InitData = &InitData{"toml", "version = '0.1.0'\nalgorithm = 'sha256'\n[data]\nx = 'y'\n"}
	v, err := vs.Verify(context.Background(), Sample, a, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	want0, _ := a.Runtime.Digest(V040)
	want1, _ := a.Runtime.DeviceDigest()
	if len(seen) != 2 || !bytes.Equal(seen[0].ReportData, want0) || !bytes.Equal(seen[1].ReportData, want1) {
		t.Fatalf("bindings %v", seen)
	}
	sum := sha256.Sum256([]byte(a.InitData.Body))
	if !bytes.Equal(seen[0].InitData, sum[:]) {
		t.Error("the init-data is not the hash of its raw text")
	}
	if len(v.Devices) != 2 || v.Devices[0].Name != "cpu0" || v.Devices[1].Name != "gpu0" {
		t.Fatalf("devices %+v", v.Devices)
	}
	if d := cmp.Diff(map[string]any{"x": "y"}, v.Devices[0].Annotated["init_data_claims"]); d != "" {
		t.Error(d)
	}
	if _, has := v.Devices[1].Annotated["init_data_claims"]; has {
		t.Error("init-data claims without a verifier that checked them")
	}
	if d := cmp.Diff(map[string]any{"nonce": string(zeroNonce), "tee-pubkey": a.Runtime.Key.Members()}, v.Devices[0].Annotated["runtime_data_claims"]); d != "" {
		t.Error(d)
	}
}

func TestVerifiers_FailClosed(t *testing.T) {
	var seen []Binding
	good := judge{class: CPU, seen: &seen}
	denied := fault.Deniedf("forged")
	for name, c := range map[string]struct {
		vs   Verifiers
		tee  TEE
		more string
		kind fault.Kind
	}{
		"no verifier":            {Verifiers{Snp: good}, Sample, "", fault.Invalid},
		"nil set":                {nil, Sample, "", fault.Invalid},
		"no verifier for device": {Verifiers{Sample: good}, Sample, `{"nvidia":{}}`, fault.Invalid},
		"device denied":          {Verifiers{Sample: good, Nvidia: judge{class: GPU, err: denied, seen: &seen}}, Sample, `{"nvidia":{}}`, fault.Denied},
		"unknown class":          {Verifiers{Sample: judge{class: "xpu", seen: &seen}}, Sample, "", fault.Internal},
		"invented init-data":     {Verifiers{Sample: fixed{}}, Sample, "", fault.Internal},
		"malformed devices":      {Verifiers{Sample: good}, Sample, `[`, fault.Invalid},
	} {
		a := attestation(V040, vectorRuntime(t))
		a.Runtime.Additional = c.more
		v, err := c.vs.Verify(context.Background(), c.tee, a, time.Time{})
		if !fault.Is(err, c.kind) || len(v.Devices) > 0 {
			t.Errorf("%s: %v, %v", name, v.Devices, err)
		}
	}
	a := attestation(V040, vectorRuntime(t))
	a.InitData = &InitData{"toml", "algorithm = 'sm3'"}
	if _, err := (Verifiers{Sample: good}).Verify(context.Background(), Sample, a, time.Time{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("init-data with sm3: %v", err)
	}
	if err := errors.Unwrap(fault.Wrap(denied, "x")); !fault.Is(err, fault.Denied) {
		t.Error("wrapping lost the kind")
	}
}

type fixed struct{}

func (fixed) Verify(context.Context, Evidence, Binding, time.Time) (Claims, error) {
	return Claims{Class: CPU, InitData: "x"}, nil
}
