package azure

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/verifier/snp"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx/tdxtest"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func onSNP() *Verifier { return must(New(Config{SNP: must(snp.New(snp.Config{}))})) }

func judge(t testing.TB, v *Verifier, body json.RawMessage, b evidence.Binding, at time.Time) (evidence.Claims, evidence.Checks, error) {
	t.Helper()
	claims, err := v.Verify(context.Background(), evidence.Evidence{TEE: v.tee, Body: body}, b, at)
	if err == nil {
		return claims, claims.Checks, nil
	}
	r, ok := errors.AsType[*evidence.RefusedError](err)
	if !ok || claims.Values != nil {
		t.Fatalf("no refusal: %v, %v", err, claims.Values)
	}
	return claims, r.Checks, err
}

// digest is what the vector of version 2 is bound to.
var digest = must(hex.DecodeString("982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef"))

func TestVerifier_AcceptsRealEvidence(t *testing.T) {
	for version, nonce := range map[string][]byte{"1": []byte("challenge"), "2": digest} {
		body := evidencetest.Vector(t, "az-vtpm/snp-evidence-v"+version+".json")
		claims, checks, err := judge(t, onSNP(), body, evidence.Binding{ReportData: nonce}, evidencetest.Now)
		if err != nil {
			t.Fatalf("version %s: %v, %+v", version, err, checks)
		}
		for _, name := range []string{"quote-signature", "pcr-digest", "pcr-selection", "attestation-key", "endorsement-chain", "chip-id", "reported-tcb", "report-signature", "vmpl", "report-data"} {
			if evidencetest.Result(checks, name) != evidence.Passed {
				t.Errorf("version %s: %s is %q", version, name, evidencetest.Result(checks, name))
			}
		}
		if (evidencetest.Result(checks, "user-data") == evidence.Passed) != (version == "2") {
			t.Errorf("version %s: user-data is %q", version, evidencetest.Result(checks, "user-data"))
		}
		var w madeEvidence
		if err := json.Unmarshal(body, &w); err != nil {
			t.Fatal(err)
		}
		pcrs, ok := claims.Values["tpm"].(map[string]any)
		if !ok || pcrs["pcr11"] != strings.ToLower(list(w.Quote.PCRs)[11]) || len(pcrs) != 24 {
			t.Errorf("version %s: registers %v", version, pcrs)
		}
		for name, want := range map[string]any{
			"policy_abi_major": "0", "policy_abi_minor": "31", "policy_debug_allowed": "false", "platform_smt_enabled": "true",
			"init_data": pcrs["pcr08"], "report_data": hex.EncodeToString(nonce),
		} {
			if claims.Values[name] != want {
				t.Errorf("version %s: %s is %v", version, name, claims.Values[name])
			}
		}
		if m, err := base64.StdEncoding.DecodeString(claims.Values["measurement"].(string)); err != nil || len(m) != 48 {
			t.Errorf("version %s: measurement %v", version, claims.Values["measurement"])
		}
		for name, b := range map[string]evidence.Binding{
			"none": {}, "another": {ReportData: bytes.Repeat([]byte{1}, 48)}, "a longer one": {ReportData: append(bytes.Clone(nonce), 0)}, "its beginning": {ReportData: nonce[:5]},
		} {
			if _, checks, err := judge(t, onSNP(), body, b, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Contains(evidencetest.Failed(checks), "report-data") {
				t.Errorf("version %s, %s: %v", version, name, err)
			}
		}
		if _, checks, err := judge(t, onSNP(), body, evidence.Binding{ReportData: nonce, InitData: make([]byte, 32)}, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"init-data"}) {
			t.Errorf("version %s: init-data: %v", version, err)
		}
		if _, checks, err := judge(t, onSNP(), body, evidence.Binding{ReportData: nonce}, evidencetest.Now.AddDate(20, 0, 0)); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"endorsement-dates"}) {
			t.Errorf("version %s, later: %v", version, err)
		}
	}
}

func list(raw json.RawMessage) (out []string) {
	_ = json.Unmarshal(raw, &out)
	return out
}

// madeEvidence is evidence as a test changes it; its registers can be anything.
type madeEvidence struct {
	Version any `json:"version"`
	Quote   struct {
		Signature string          `json:"signature"`
		Message   string          `json:"message"`
		PCRs      json.RawMessage `json:"pcrs"`
	} `json:"tpm_quote"`
	HCL  string `json:"hcl_report"`
	VCEK string `json:"vcek"`
	TD   string `json:"td_quote"`
}

func change(t testing.TB, body []byte, do func(w *madeEvidence)) json.RawMessage {
	t.Helper()
	var w madeEvidence
	if err := json.Unmarshal(body, &w); err != nil {
		t.Fatal(err)
	}
	do(&w)
	return must(json.Marshal(w))
}

func TestVerifier_RefusesSpoiltEvidence(t *testing.T) {
	body := evidencetest.Vector(t, "az-vtpm/snp-evidence-v2.json")
	other := evidencetest.Vector(t, "az-vtpm/snp-evidence-v1.json")
	var foreign madeEvidence
	if err := json.Unmarshal(other, &foreign); err != nil {
		t.Fatal(err)
	}
	hcl := func(w *madeEvidence, do func(b []byte) []byte) {
		w.HCL = base64.RawURLEncoding.EncodeToString(do(must(base64url("", w.HCL))))
	}
	set := func(at int, v byte) func([]byte) []byte { return func(b []byte) []byte { b[at] = v; return b } }
	const text = hclHeader + snp.ReportSize + hclNumber
	for name, c := range map[string]struct {
		do    func(*madeEvidence)
		kind  fault.Kind
		check string
	}{
		"another guest's HCL report": {func(w *madeEvidence) { w.HCL = foreign.HCL }, fault.Denied, "quote-signature"},
		"another guest's quote":      {func(w *madeEvidence) { w.Quote = foreign.Quote }, fault.Denied, "quote-signature"},
		"another chip's VCEK": {func(w *madeEvidence) {
			w.VCEK = base64.RawURLEncoding.EncodeToString(evidencetest.Vector(t, "snp/milan-v2-vcek.der"))
		}, fault.Denied, "chip-id"},
		"another register": {func(w *madeEvidence) {
			p := list(w.Quote.PCRs)
			p[0] = strings.Repeat("0", 64)
			w.Quote.PCRs = must(json.Marshal(p))
		}, fault.Denied, "pcr-digest"},
		"a changed text": {func(w *madeEvidence) {
			hcl(w, func(b []byte) []byte { return bytes.Replace(b, []byte("secure-boot"), []byte("secure-bOOt"), 1) })
		}, fault.Denied, "attestation-key"},
		"a changed report":     {func(w *madeEvidence) { hcl(w, set(hclHeader+0x90, 1)) }, fault.Denied, "report-signature"},
		"VMPL 1":               {func(w *madeEvidence) { hcl(w, set(hclHeader+0x30, 1)) }, fault.Denied, "vmpl"},
		"a report of TDX":      {func(w *madeEvidence) { hcl(w, set(text-12, 4)) }, fault.Denied, "hcl-report-type"},
		"another hash":         {func(w *madeEvidence) { hcl(w, set(text-8, 2)) }, fault.Invalid, "form"},
		"a longer text":        {func(w *madeEvidence) { hcl(w, set(text-3, 0xff)) }, fault.Invalid, "form"},
		"a size of its own":    {func(w *madeEvidence) { hcl(w, set(text-20, 1)) }, fault.Invalid, "form"},
		"bytes behind":         {func(w *madeEvidence) { hcl(w, func(b []byte) []byte { return append(b, 1) }) }, fault.Invalid, "form"},
		"a short report":       {func(w *madeEvidence) { hcl(w, func(b []byte) []byte { return b[:text-1] }) }, fault.Invalid, "form"},
		"another signature":    {func(w *madeEvidence) { hcl(w, set(0, 'X')) }, fault.Invalid, "form"},
		"version 3 of the HCL": {func(w *madeEvidence) { hcl(w, set(4, 3)) }, fault.Invalid, "form"},
		"no attestation key": {func(w *madeEvidence) {
			hcl(w, func(b []byte) []byte { return bytes.Replace(b, []byte("HCLAkPub"), []byte("HCLXkPub"), 1) })
		}, fault.Invalid, "form"},
		"two attestation keys": {func(w *madeEvidence) {
			hcl(w, func(b []byte) []byte { return bytes.Replace(b, []byte("HCLEkPub"), []byte("HCLAkPub"), 1) })
		}, fault.Invalid, "form"},
		"version 3":         {func(w *madeEvidence) { w.Version = "3" }, fault.Invalid, "form"},
		"no version":        {func(w *madeEvidence) { w.Version = "" }, fault.Invalid, "form"},
		"23 registers":      {func(w *madeEvidence) { w.Quote.PCRs = must(json.Marshal(list(w.Quote.PCRs)[1:])) }, fault.Invalid, "form"},
		"no VCEK":           {func(w *madeEvidence) { w.VCEK = "" }, fault.Invalid, "form"},
		"a quote of no hex": {func(w *madeEvidence) { w.Quote.Message = "x" }, fault.Invalid, "form"},
	} {
		_, checks, err := judge(t, onSNP(), change(t, body, c.do), evidence.Binding{ReportData: digest}, evidencetest.Now)
		if !fault.Is(err, c.kind) || !slices.Contains(evidencetest.Failed(checks), c.check) {
			t.Errorf("%s: %v, failed %v", name, err, evidencetest.Failed(checks))
		}
	}
	trimmed := string(bytes.TrimSpace(body))
	for name, text := range map[string]string{
		"empty": "", "array": "[]", "null": "null", "deep": strings.Repeat("[", 99), "followed": trimmed + "{}",
		"twice": strings.Replace(trimmed, "{", `{"version":"2",`, 1), "too long": trimmed + strings.Repeat(" ", maxEvidence),
		"a deep member": strings.Replace(trimmed, "{", `{"x":`+strings.Repeat("[", 20)+strings.Repeat("]", 20)+",", 1),
	} {
		if _, checks, err := judge(t, onSNP(), json.RawMessage(text), evidence.Binding{ReportData: digest}, evidencetest.Now); !fault.Is(err, fault.Invalid) || !slices.Equal(evidencetest.Failed(checks), []string{"form"}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Version 2 without its data in the processor's report is of another handshake.
	v1 := change(t, other, func(w *madeEvidence) { w.Version = "2" })
	if _, checks, err := judge(t, onSNP(), v1, evidence.Binding{ReportData: []byte("challenge")}, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"user-data"}) {
		t.Errorf("version 2 without user-data: %v, failed %v", err, evidencetest.Failed(checks))
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a verifier of nothing")
	}
}

func TestVerifier_AcceptsNoMutant(t *testing.T) {
	body := evidencetest.Vector(t, "az-vtpm/snp-evidence-v2.json")
	v := onSNP()
	const n = 10_000
	var w madeEvidence
	if err := json.Unmarshal(body, &w); err != nil {
		t.Fatal(err)
	}
	known := must(base64url("", w.HCL))
	with := func(h, message, signature []byte) bool {
		made := change(t, body, func(w *madeEvidence) {
			w.HCL = base64.RawURLEncoding.EncodeToString(h)
			w.Quote.Message, w.Quote.Signature = hex.EncodeToString(message), hex.EncodeToString(signature)
		})
		_, _, err := judge(t, v, made, evidence.Binding{Unknown: true}, evidencetest.Now)
		return err == nil
	}
	message, signature := must(hex.DecodeString(w.Quote.Message)), must(hex.DecodeString(w.Quote.Signature))
	if !with(known, message, signature) {
		t.Fatal("unchanged evidence is refused")
	}
	const text = hclHeader + snp.ReportSize + hclNumber
	end := len(bytes.TrimRight(known, "\x00"))
	evidencetest.Mutants(known[:end], n, func(i int, m []byte) {
		// Most mutants are of the text, and the processor's report is of another one
		// then. To find that out by judging the report's signature, too, takes a minute
		// of them all: each hundredth does.
		if untied(m) && i%100 > 0 {
			return
		}
		// The header says nothing that anybody signs or reads, and zeros may follow.
		if with(m, message, signature) && (len(m) < text || !bytes.Equal(bytes.TrimRight(m[hclHeader:], "\x00"), known[hclHeader:end])) {
			t.Fatalf("mutant %d of the HCL report was accepted", i)
		}
	})
	// The quote and its signature have their 10,000 mutants in the package of TPMs.
	evidencetest.Mutants(message, n/20, func(i int, m []byte) {
		if with(known, m, signature) {
			t.Fatalf("mutant %d of the quote was accepted", i)
		}
	})
	evidencetest.Mutants(signature, n/20, func(i int, m []byte) {
		if with(known, message, m) {
			t.Fatalf("mutant %d of the signature was accepted", i)
		}
	})
	evidencetest.Cuts(known[:end], func(m []byte) {
		if with(m, message, signature) {
			t.Fatalf("an HCL report cut at %d was accepted", len(m))
		}
	})
	evidencetest.Cuts(bytes.TrimSpace(body), func(m []byte) {
		if _, _, err := judge(t, v, m, evidence.Binding{Unknown: true}, evidencetest.Now); err == nil {
			t.Fatalf("evidence cut at %d was accepted", len(m))
		}
	})
}

// untied reports whether an HCL report is none, or one whose processor's report is
// of another text: the check attestation-key refuses it.
func untied(raw []byte) bool {
	h, err := parseHCL(raw)
	if err != nil {
		return true
	}
	r, err := snp.ParseReport(h.report)
	sum := sha256.Sum256(h.text)
	return err != nil || !evidence.Matches(r.ReportData(), sum[:])
}

// onTDX makes evidence of a made-up guest: a TPM's key, the text that names it,
// and a TD's quote over that text.
func onTDX(t testing.TB, n *tdxtest.Intel, nonce []byte, spoil func(w *madeEvidence)) json.RawMessage {
	t.Helper()
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	b64 := base64.RawURLEncoding.EncodeToString
	text := must(json.Marshal(map[string]any{
		"keys":      []any{map[string]any{"kid": "HCLAkPub", "kty": "RSA", "e": b64(big.NewInt(int64(key.E)).Bytes()), "n": b64(key.N.Bytes())}},
		"user-data": hex.EncodeToString(append(bytes.Clone(nonce), make([]byte, 16)...)),
	}))
	le := binary.LittleEndian
	hcl := append([]byte("HCLA\x02\x00\x00\x00"), make([]byte, hclHeader-8+snp.ReportSize)...)
	for _, v := range []uint32{uint32(len(text) + hclNumber), 1, 4, 1, uint32(len(text))} {
		hcl = le.AppendUint32(hcl, v)
	}
	hcl = append(append(hcl, text...), make([]byte, 100)...)
	sum := sha256.Sum256(text)
	n.Report = func(b []byte) { copy(b[520:], append(sum[:], make([]byte, 32)...)) }

	be := binary.BigEndian
	zeros := make([]byte, 24*32)
	pcrs := sha256.Sum256(zeros)
	message := append(be.AppendUint16(be.AppendUint32(nil, 0xff544347), 0x8018), 0, 2, 0, 0x0b)
	message = append(be.AppendUint16(message, uint16(len(nonce))), nonce...)
	message = append(message, make([]byte, 8+4+4)...)
	message = append(append(message, 1), make([]byte, 8)...)
	message = append(message, 0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0xff, 0, 32)
	message = append(message, pcrs[:]...)
	hashed := sha256.Sum256(message)
	w := madeEvidence{Version: "2", HCL: b64(hcl), TD: b64(n.Quote())}
	w.Quote.Message, w.Quote.Signature = hex.EncodeToString(message), hex.EncodeToString(must(rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hashed[:])))
	w.Quote.PCRs = must(json.Marshal(slices.Repeat([]string{strings.Repeat("0", 64)}, 24)))
	if spoil != nil {
		spoil(&w)
	}
	return must(json.Marshal(w))
}

func TestVerifier_JudgesTDX(t *testing.T) {
	n := tdxtest.New()
	v := must(New(Config{TDX: must(tdx.New(tdx.Config{Endorsements: n.Shelf(), Root: n.Root}))}))
	b := evidence.Binding{ReportData: digest}
	claims, checks, err := judge(t, v, onTDX(t, n, digest, nil), b, evidencetest.Now)
	if err != nil {
		t.Fatalf("%v, failed %v", err, evidencetest.Failed(checks))
	}
	if claims.Values["tcb_status"] != "UpToDate" || claims.Values["report_data"] != hex.EncodeToString(digest) || claims.Values["tpm"] == nil || claims.Values["quote"] == nil {
		t.Errorf("claims %v", claims.Values)
	}
	other := onTDX(t, tdxtest.New(), digest, nil)
	var foreign madeEvidence
	if err := json.Unmarshal(other, &foreign); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		body  json.RawMessage
		kind  fault.Kind
		check string
	}{
		"another TD's quote":  {onTDX(t, n, digest, func(w *madeEvidence) { w.TD = foreign.TD }), fault.Denied, "attestation-key"},
		"another TPM":         {onTDX(t, n, digest, func(w *madeEvidence) { w.HCL = foreign.HCL }), fault.Denied, "quote-signature"},
		"another nonce":       {onTDX(t, n, bytes.Repeat([]byte{1}, 48), nil), fault.Denied, "report-data"},
		"no quote":            {onTDX(t, n, digest, func(w *madeEvidence) { w.TD = "" }), fault.Invalid, "form"},
		"evidence of SNP":     {evidencetest.Vector(t, "az-vtpm/snp-evidence-v2.json"), fault.Invalid, "form"},
		"a quote that is cut": {onTDX(t, n, digest, func(w *madeEvidence) { w.TD = w.TD[:400] }), fault.Invalid, "form"},
	} {
		if _, checks, err := judge(t, v, c.body, b, evidencetest.Now); !fault.Is(err, c.kind) || !slices.Contains(evidencetest.Failed(checks), c.check) {
			t.Errorf("%s: %v, failed %v", name, err, evidencetest.Failed(checks))
		}
	}
	if d := cmp.Diff([]string{"report-data"}, failedOf(t, v, onTDX(t, n, digest, nil), evidence.Binding{ReportData: digest[:47]})); d != "" {
		t.Error(d)
	}
}

func failedOf(t *testing.T, v *Verifier, body json.RawMessage, b evidence.Binding) []string {
	_, checks, _ := judge(t, v, body, b, evidencetest.Now)
	return evidencetest.Failed(checks)
}

func FuzzVerify(f *testing.F) {
	v := onSNP()
	var known [][]byte
	for _, n := range []string{"1", "2"} {
		body := evidencetest.Vector(f, "az-vtpm/snp-evidence-v"+n+".json")
		f.Add(body)
		known = append(known, must(v.parse(body)).quote.Message)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, _, err := judge(t, v, body, evidence.Binding{Unknown: true}, evidencetest.Now); err != nil {
			return
		}
		if s, err := v.parse(body); err != nil || !slices.ContainsFunc(known, func(m []byte) bool { return bytes.Equal(m, s.quote.Message) }) {
			t.Fatalf("forged evidence was accepted: %v", err)
		}
	})
}

// What is built of evidence is bounded by the evidence.
func TestVerifier_AllocatesNoMoreThanTwiceTheEvidence(t *testing.T) {
	body, v := evidencetest.Vector(t, "az-vtpm/snp-evidence-v2.json"), onSNP()
	evidencetest.AtMost(t, 2*len(body), func() { _, _, _ = judge(t, v, body, evidence.Binding{ReportData: digest}, evidencetest.Now) })
}
