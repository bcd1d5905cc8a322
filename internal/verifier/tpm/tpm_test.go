package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func judge(t testing.TB, body json.RawMessage, b evidence.Binding) (evidence.Claims, evidence.Checks, error) {
	t.Helper()
	claims, err := Verifier{}.Verify(context.Background(), evidence.Evidence{TEE: evidence.Tpm, Body: body}, b, evidencetest.Now)
	if err == nil {
		return claims, claims.Checks, nil
	}
	r, ok := errors.AsType[*evidence.RefusedError](err)
	if !ok || claims.Values != nil {
		t.Fatalf("no refusal: %v, %v", err, claims.Values)
	}
	return claims, r.Checks, err
}

// vector is evidence of a real guest with the nonce it was made for.
func vector(t testing.TB) (json.RawMessage, *Quote) {
	t.Helper()
	body := bytes.TrimSpace(evidencetest.Vector(t, "tpm/evidence-64-byte-nonce.json"))
	s, _, _, err := parse(body)
	if err != nil {
		t.Fatal(err)
	}
	q, err := ParseQuote(s.Message)
	if err != nil {
		t.Fatal(err)
	}
	return body, q
}

func TestVerifier_AcceptsRealEvidence(t *testing.T) {
	body, q := vector(t)
	claims, checks, err := judge(t, body, evidence.Binding{ReportData: q.Nonce})
	if err != nil {
		t.Fatalf("%v\n%+v", err, checks)
	}
	for _, name := range []string{"ak-strength", "signature-hash", "quote-signature", "pcr-selection", "pcr-digest", "report-data"} {
		if evidencetest.Result(checks, name) != evidence.Passed {
			t.Errorf("%s is %q", name, evidencetest.Result(checks, name))
		}
	}
	var w madeEvidence
	if err := json.Unmarshal(body, &w); err != nil {
		t.Fatal(err)
	}
	for i, v := range list(w.Quote.PCRs) {
		if name := "pcr" + string(rune('0'+i/10)) + string(rune('0'+i%10)); claims.Values[name] != v {
			t.Errorf("%s is %v", name, claims.Values[name])
		}
	}
	if claims.Values["ak_public"] != w.AK || claims.Values["init_data"] != list(w.Quote.PCRs)[8] || claims.InitData != "" || claims.Class != evidence.CPU {
		t.Errorf("%+v", claims)
	}
	if c, ok := claims.Values["tpm_clock"].(map[string]any); !ok || c["safe"] != true || c["resets"] != 2.0 {
		t.Errorf("clock %v", claims.Values["tpm_clock"])
	}
	for name, b := range map[string]evidence.Binding{
		"none": {}, "another": {ReportData: []byte(strings.Repeat("x", 48))}, "the beginning": {ReportData: q.Nonce[:40]},
	} {
		if _, checks, err := judge(t, body, b); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"report-data"}) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNonce_HasOneOfTwoForms(t *testing.T) {
	digest := bytes.Repeat([]byte{7}, 48)
	padded := append(bytes.Clone(digest), make([]byte, 16)...)
	for _, c := range []struct {
		got, want []byte
		ok        bool
	}{
		{digest[:32], digest, true},
		{padded, digest, true},
		{digest, digest, false},
		{digest[:31], digest, false},
		{nil, digest, false},
		{digest[:32], nil, false},
		{nil, nil, false},
		{append(bytes.Clone(padded[:63]), 1), digest, false},
		{make([]byte, 32), make([]byte, 48), false},
	} {
		if nonce(c.got, c.want) != c.ok {
			t.Errorf("%x for %x is %t", c.got, c.want, !c.ok)
		}
	}
}

// madeEvidence is evidence as a test changes it; its registers can be anything.
type madeEvidence struct {
	AK    string `json:"ak_public"`
	Quote struct {
		Signature string          `json:"signature"`
		Message   string          `json:"message"`
		PCRs      json.RawMessage `json:"pcrs"`
	} `json:"tpm_quote"`
	Log string `json:"event_log"`
}

// spoil changes evidence of the vector.
func spoil(t testing.TB, body json.RawMessage, change func(w *madeEvidence)) json.RawMessage {
	t.Helper()
	var w madeEvidence
	if err := json.Unmarshal(body, &w); err != nil {
		t.Fatal(err)
	}
	change(&w)
	out, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func list(raw json.RawMessage) (out []string) {
	_ = json.Unmarshal(raw, &out)
	return out
}

func registersOf(w *madeEvidence, change func([]string) []string) {
	w.Quote.PCRs, _ = json.Marshal(change(list(w.Quote.PCRs)))
}

func TestVerifier_RefusesSpoiltEvidence(t *testing.T) {
	body, q := vector(t)
	b64 := base64.StdEncoding
	bytesOf := func(s *string, change func([]byte) []byte) {
		raw, err := b64.DecodeString(*s)
		if err != nil {
			t.Fatal(err)
		}
		*s = b64.EncodeToString(change(raw))
	}
	set := func(at int, v byte) func([]byte) []byte { return func(b []byte) []byte { b[at] = v; return b } }
	more := func(b []byte) []byte { return append(b, 0) }
	for name, c := range map[string]struct {
		change func(*madeEvidence)
		kind   fault.Kind
		check  string
	}{
		"another PCR": {func(w *madeEvidence) {
			registersOf(w, func(p []string) []string { p[4] = strings.Repeat("a", 64); return p })
		}, fault.Denied, "pcr-digest"},
		"two PCRs swapped": {func(w *madeEvidence) {
			registersOf(w, func(p []string) []string { p[4], p[17] = p[17], p[4]; return p })
		}, fault.Denied, "pcr-digest"},
		"23 PCRs":             {func(w *madeEvidence) { registersOf(w, func(p []string) []string { return p[:23] }) }, fault.Invalid, "form"},
		"a million PCRs":      {func(w *madeEvidence) { w.Quote.PCRs = json.RawMessage("[" + strings.Repeat(`"",`, 1e5) + `""]`) }, fault.Invalid, "form"},
		"a short PCR":         {func(w *madeEvidence) { registersOf(w, func(p []string) []string { p[0] = "00"; return p }) }, fault.Invalid, "form"},
		"a changed clock":     {func(w *madeEvidence) { bytesOf(&w.Quote.Message, set(110, 9)) }, fault.Denied, "quote-signature"},
		"not made by a TPM":   {func(w *madeEvidence) { bytesOf(&w.Quote.Message, set(0, 0)) }, fault.Invalid, "form"},
		"another attestation": {func(w *madeEvidence) { bytesOf(&w.Quote.Message, set(5, 0x17)) }, fault.Invalid, "form"},
		"bytes behind":        {func(w *madeEvidence) { bytesOf(&w.Quote.Message, more) }, fault.Invalid, "form"},
		"another signature":   {func(w *madeEvidence) { bytesOf(&w.Quote.Signature, set(100, 1)) }, fault.Denied, "quote-signature"},
		"another scheme":      {func(w *madeEvidence) { bytesOf(&w.Quote.Signature, set(1, 0x16)) }, fault.Denied, "quote-signature"},
		"SHA-1":               {func(w *madeEvidence) { bytesOf(&w.Quote.Signature, set(3, 0x04)) }, fault.Denied, "signature-hash"},
		"an unknown hash":     {func(w *madeEvidence) { bytesOf(&w.Quote.Signature, set(3, 0x99)) }, fault.Denied, "signature-hash"},
		"an HMAC":             {func(w *madeEvidence) { bytesOf(&w.Quote.Signature, set(1, 0x05)) }, fault.Invalid, "form"},
		"a longer signature":  {func(w *madeEvidence) { bytesOf(&w.Quote.Signature, more) }, fault.Invalid, "form"},
		"a huge length":       {func(w *madeEvidence) { bytesOf(&w.Quote.Signature, set(4, 0xff)) }, fault.Invalid, "form"},
		"no key":              {func(w *madeEvidence) { w.AK = "" }, fault.Invalid, "form"},
		"another encoding":    {func(w *madeEvidence) { w.AK = "!" + w.AK }, fault.Invalid, "form"},
		"a log of nothing":    {func(w *madeEvidence) { w.Log = b64.EncodeToString([]byte("log")) }, fault.Denied, "event-log"},
		"somebody's log": {func(w *madeEvidence) {
			w.Log = b64.EncodeToString(evidencetest.Vector(t, "eventlog/rhel8-uefi.bin"))
		}, fault.Denied, "event-log-replay"},
	} {
		_, checks, err := judge(t, spoil(t, body, c.change), evidence.Binding{ReportData: q.Nonce})
		if !fault.Is(err, c.kind) || !slices.Contains(evidencetest.Failed(checks), c.check) {
			t.Errorf("%s: %v, failed %v", name, err, evidencetest.Failed(checks))
		}
	}
	for name, text := range map[string]string{"empty": "", "array": "[]", "null": "null", "deep": strings.Repeat("[", 99), "twice": `{"ak_public":"","ak_public":""}`} {
		if _, _, err := judge(t, json.RawMessage(text), evidence.Binding{ReportData: q.Nonce}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifier_AcceptsNoMutant(t *testing.T) {
	body, _ := vector(t)
	s, ak, _, err := parse(body)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(ak)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(func() string { var w madeEvidence; _ = json.Unmarshal(body, &w); return w.Quote.Signature }())
	if err != nil {
		t.Fatal(err)
	}
	with := func(message, signature, key []byte) bool {
		made := spoil(t, body, func(w *madeEvidence) {
			e := base64.StdEncoding.EncodeToString
			w.Quote.Message, w.Quote.Signature, w.AK = e(message), e(signature), e(key)
		})
		_, _, err := judge(t, made, evidence.Binding{Unknown: true})
		return err == nil
	}
	if !with(s.Message, signature, key) {
		t.Fatal("unchanged evidence is refused")
	}
	const n = 10_000
	evidencetest.Mutants(s.Message, n, func(i int, m []byte) {
		if with(m, signature, key) {
			t.Fatalf("mutant %d of the quote was accepted", i)
		}
	})
	evidencetest.Mutants(signature, n, func(i int, m []byte) {
		if with(s.Message, m, key) {
			t.Fatalf("mutant %d of the signature was accepted", i)
		}
	})
	evidencetest.Mutants(key, n/10, func(i int, m []byte) {
		if with(s.Message, signature, m) {
			t.Fatalf("mutant %d of the key was accepted", i)
		}
	})
	evidencetest.Cuts(s.Message, func(m []byte) {
		if with(m, signature, key) {
			t.Fatalf("a quote cut at %d was accepted", len(m))
		}
	})
	evidencetest.Cuts(signature, func(m []byte) {
		if with(s.Message, m, key) {
			t.Fatalf("a signature cut at %d was accepted", len(m))
		}
	})
	evidencetest.Cuts(body, func(m []byte) {
		if _, _, err := judge(t, m, evidence.Binding{Unknown: true}); err == nil {
			t.Fatalf("evidence cut at %d was accepted", len(m))
		}
	})
}

func TestJudgeInitData_WantsTheDigestInRegister8(t *testing.T) {
	digest := bytes.Repeat([]byte{3}, 32)
	want := sha256.Sum256(append(make([]byte, 32), digest...))
	pcrs := make([][]byte, registers)
	for i := range pcrs {
		pcrs[i] = make([]byte, 32)
	}
	ok := func(d []byte) bool {
		var c evidence.Checks
		JudgeInitData(&c, evidence.Binding{InitData: d}, pcrs)
		_, failed := c.Refused()
		return !failed
	}
	if ok(digest) {
		t.Error("an empty register holds init-data")
	}
	pcrs[8] = want[:]
	if !ok(digest) {
		t.Error("the right register is refused")
	}
	for _, n := range []int{0, 31, 48, 64} { // the known broker panics here
		if ok(bytes.Repeat([]byte{3}, n)) {
			t.Errorf("a digest of %d bytes is accepted", n)
		}
	}
}

// TestQuote_OfARealMachine is a quote, a key and a log of one real machine. Its
// quote over the old bank is signed over SHA-1, which is refused; all else holds.
func TestQuote_OfARealMachine(t *testing.T) {
	var v struct {
		AK    struct{ Public []byte }
		Quote struct{ Quote, Signature []byte }
		Log   struct {
			PCRs []struct {
				Index, DigestAlg int
				Digest           []byte
			}
			Raw []byte
		}
	}
	if err := json.Unmarshal(evidencetest.Vector(t, "eventlog/windows-gcp-shielded-vm.json"), &v); err != nil {
		t.Fatal(err)
	}
	p, err := ParsePublic(v.AK.Public)
	if err != nil {
		t.Fatal(err)
	}
	var c evidence.Checks
	p.JudgeAK(&c)
	if failed := evidencetest.Failed(c); len(failed) > 0 {
		t.Errorf("the attestation key fails %v", failed)
	}
	s, err := ParseSignature(v.Quote.Signature)
	if err != nil {
		t.Fatal(err)
	}
	pcrs := make([][]byte, registers)
	for _, one := range v.Log.PCRs {
		if one.DigestAlg == 3 { // crypto.SHA1
			pcrs[one.Index] = one.Digest
		}
	}
	q, err := Shown{v.Quote.Quote, s, p.Key, eventlog.SHA1, pcrs}.Judge(&c, evidence.Tpm)
	if err != nil || len(q.Signer) != 34 {
		t.Fatal(err)
	}
	if failed := evidencetest.Failed(c); !slices.Equal(failed, []string{"signature-hash"}) {
		t.Errorf("failed: %v", failed)
	}
	if l := JudgeLog(&c, v.Log.Raw, eventlog.SHA1, pcrs); l == nil {
		t.Errorf("the log does not lead to the quoted registers: %+v", c)
	}
	pcrs[7][0]++
	if l := JudgeLog(&c, v.Log.Raw, eventlog.SHA1, pcrs); l != nil {
		t.Error("a log is believed that does not lead to the registers")
	}

	for bit, name := range map[uint32]string{
		attrFixedTPM: "ak-fixedTPM", attrFixedParent: "ak-fixedParent", attrSensitiveDataOrigin: "ak-sensitiveDataOrigin",
		attrRestricted: "ak-restricted", attrSign: "ak-sign", attrDecrypt: "ak-decrypt",
	} {
		raw := bytes.Clone(v.AK.Public)
		binary.BigEndian.PutUint32(raw[4:], p.Attributes^bit)
		other, err := ParsePublic(raw)
		if err != nil {
			t.Fatal(err)
		}
		var c evidence.Checks
		other.JudgeAK(&c)
		if failed := evidencetest.Failed(c); !slices.Equal(failed, []string{name}) {
			t.Errorf("without %s: %v", name, failed)
		}
		if bytes.Equal(other.Name(), p.Name()) {
			t.Errorf("another public area has the same name")
		}
	}
	for i := range v.AK.Public {
		if _, err := ParsePublic(v.AK.Public[:i]); !fault.Is(err, fault.Invalid) {
			t.Fatalf("a public area cut at %d: %v", i, err)
		}
	}
}

func TestEK_OfTheCloudIsReadLeniently(t *testing.T) {
	for name, want := range map[string]string{"rsa": "key encipherment", "ecc": "key agreement"} {
		text := evidencetest.Vector(t, "ek-ca/gce-ek-"+name+"_enc-cert.pem")
		ek, err := ParseEK(text)
		if err != nil || ek.Manufacturer != "id:474F4F47" || ek.Model != "vTPM" || ek.Firmware == "" {
			t.Fatalf("%s: %+v, %v", name, ek, err)
		}
		if ok, usage := ek.usage(); !ok || usage != want {
			t.Errorf("%s: %t, %s", name, ok, usage)
		}
		for _, tail := range [][]byte{make([]byte, 300), bytes.Repeat([]byte{0xff}, 300)} { // as a TPM's area is filled up
			if padded, err := ParseEK(append(bytes.Clone(ek.Certificate.Raw), tail...)); err != nil || !padded.Certificate.Equal(ek.Certificate) {
				t.Errorf("%s, filled up: %v", name, err)
			}
		}
		for _, bad := range [][]byte{append(bytes.Clone(ek.Certificate.Raw), 1), ek.Certificate.Raw[:400], nil, append(bytes.Clone(text), text...)} {
			if _, err := ParseEK(bad); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s, broken: %v", name, err)
			}
		}
		a, err := NewAuthorities(evidencetest.Vector(t, "ek-ca/tpm-root-ca.pem"), evidencetest.Vector(t, "ek-ca/tpm-intermediate-ca.pem"))
		if err != nil || len(a.all) != 26+143 {
			t.Fatalf("%d authorities, %v", len(a.all), err)
		}
		var c evidence.Checks
		ek.Judge(&c, a, evidencetest.Now)
		if failed := evidencetest.Failed(c); !slices.Equal(failed, []string{"ek-chain"}) { // the cloud's authority is not in this bundle
			t.Errorf("%s: failed %v", name, failed)
		}
	}
	if _, err := NewAuthorities([]byte("nothing")); !fault.Is(err, fault.Invalid) {
		t.Errorf("an empty bundle: %v", err)
	}
	leaf := evidencetest.Vector(t, "ek-ca/gce-ek-rsa_enc-cert.pem")
	if _, err := NewAuthorities(leaf); !fault.Is(err, fault.Invalid) {
		t.Errorf("a leaf as an authority: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	body, _ := vector(f)
	f.Add([]byte(body))
	f.Add([]byte(spoil(f, body, func(w *madeEvidence) {
		w.Log = base64.StdEncoding.EncodeToString(evidencetest.Vector(f, "eventlog/arch-linux-workstation.bin"))
	})))
	known, _, _, err := parse(body)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		agree(t, data)
		if _, _, err := judge(t, data, evidence.Binding{Unknown: true}); err != nil {
			return
		}
		if s, _, _, err := parse(data); err != nil || !bytes.Equal(s.Message, known.Message) {
			t.Fatalf("forged evidence was accepted: %v", err)
		}
	})
}

func FuzzStructures(f *testing.F) {
	body, _ := vector(f)
	s, _, _, err := parse(body)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Message)
	f.Add([]byte{0, 0x18, 0, 0x0b, 0, 1, 1, 0, 1, 2})
	f.Add(evidencetest.Vector(f, "ek-ca/gce-ek-ecc_enc-cert.pem"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = ParseQuote(data)
		_, _ = ParseSignature(data)
		_, _ = ParseEK(data)
		if p, err := ParsePublic(data); err == nil {
			var c evidence.Checks
			p.JudgeAK(&c)
			_ = p.Name()
		}
	})
}
