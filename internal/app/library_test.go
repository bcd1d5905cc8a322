package app

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/verifier/snp"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx"
	"github.com/sallyport-project/sallyport/internal/verifier/tpm"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func collateral(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../verifier/tdx/testdata", name))
	must(t, err)
	return data
}

// genoa is real evidence without the certificate in it, and the certificate.
func genoa(t *testing.T) (body, vcek []byte) {
	t.Helper()
	var w map[string]json.RawMessage
	must(t, json.Unmarshal(evidencetest.Vector(t, "snp/genoa-v3-evidence.json"), &w))
	var chain []struct {
		Type string `json:"cert_type"`
		Data []int  `json:"data"`
	}
	must(t, json.Unmarshal(w["cert_chain"], &chain))
	for _, n := range chain[0].Data {
		vcek = append(vcek, byte(n))
	}
	w["cert_chain"] = json.RawMessage("null")
	body, err := json.Marshal(w)
	must(t, err)
	return body, vcek
}

// want is what a verifier misses for evidence.
func want(t *testing.T, tee evidence.TEE, body []byte, shelf evidence.Shelf, at time.Time) evidence.Want {
	t.Helper()
	v, err := hardware[tee](shelf)
	must(t, err)
	_, err = v.Verify(t.Context(), evidence.Evidence{TEE: tee, Body: body}, evidence.Binding{Unknown: true}, at)
	if err == nil {
		return evidence.Want{}
	}
	r, ok := err.(*evidence.RefusedError) //nolint:errorlint // as verifiers return it
	if !ok || !fault.Is(err, fault.Unavailable) {
		t.Fatalf("refused: %v", err)
	}
	return r.Want
}

// makers speak the paths of AMD's and Intel's services, with what real hardware
// was given.
func makers(t *testing.T, vcek []byte) (flow.Fetcher, *[]string) {
	t.Helper()
	asked := &[]string{}
	chain := url.QueryEscape(string(collateral(t, "tcb-signing-2023.pem")))
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.RequestURI())
		switch {
		case strings.HasPrefix(r.URL.Path, "/vcek/v1/Genoa/") && r.URL.RawQuery != "":
			_, _ = w.Write(vcek)
		case r.URL.RequestURI() == "/tdx/certification/v4/tcb?fmspc=50806f000000":
			w.Header().Set("TCB-Info-Issuer-Chain", chain)
			_, _ = w.Write(collateral(t, "tcb-info-2023-06.json"))
		case r.URL.RequestURI() == "/tdx/certification/v4/qe/identity":
			w.Header().Set("SGX-Enclave-Identity-Issuer-Chain", chain)
			_, _ = w.Write(collateral(t, "qe-identity-2023-06.json"))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	must(t, os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	f, err := Fetch{KDS: s.URL + "/", PCS: s.URL, Roots: roots}.open()
	must(t, err)
	return f, asked
}

// fetched puts what a fetcher brings on a shelf, verified.
func fetched(t *testing.T, f flow.Fetcher, w evidence.Want, shelf evidence.Shelf) {
	t.Helper()
	files, err := f.Fetch(t.Context(), w)
	must(t, err)
	found, err := library{}.Read(files, "", shelf)
	must(t, err)
	for _, e := range found {
		shelf.Put(e.Endorsement)
	}
}

func TestFetcher_BringsTheVCEKOfAChip(t *testing.T) {
	body, vcek := genoa(t)
	f, asked := makers(t, vcek)
	shelf := evidence.Shelf{}
	w := want(t, evidence.Snp, body, shelf, evidencetest.Now)
	fetched(t, f, w, shelf)
	if got := want(t, evidence.Snp, body, shelf, evidencetest.Now); got != (evidence.Want{}) {
		t.Errorf("still wanted: %v", got)
	}
	chip := strings.Split(w.Key, "/")[1]
	if u := (*asked)[0]; !strings.HasPrefix(u, "/vcek/v1/Genoa/"+chip+"?blSPL=") || !strings.Contains(u, "&teeSPL=") || !strings.Contains(u, "&snpSPL=") || !strings.Contains(u, "&ucodeSPL=") {
		t.Errorf("asked %s", u)
	}
	if all := f.With(w); len(all) != 1 || all[0] != (evidence.Want{Kind: snp.KindCRL, Key: "Genoa"}) {
		t.Errorf("with it: %v", all)
	}
	if _, err := f.Fetch(t.Context(), evidence.Want{Kind: snp.KindCRL, Key: "Genoa"}); !fault.Is(err, fault.NotFound) || (*asked)[1] != "/vcek/v1/Genoa/crl" {
		t.Errorf("the list: %v, asked %v", err, *asked)
	}
}

func TestFetcher_BringsTheCollateralOfAPlatform(t *testing.T) {
	f, _ := makers(t, nil)
	quote, err := tdx.Wrap(evidencetest.Vector(t, "tdx/quote-v4.dat"))
	must(t, err)
	at := time.Date(2023, 7, 1, 0, 0, 0, 0, time.UTC)
	shelf := evidence.Shelf{}
	for _, kind := range []string{tdx.KindTCBInfo, tdx.KindIdentity} { // the signer's chain comes with the first
		w := want(t, evidence.Tdx, quote, shelf, at)
		if w.Kind != kind {
			t.Fatalf("wanted %v", w)
		}
		fetched(t, f, w, shelf)
	}
	if w := want(t, evidence.Tdx, quote, shelf, at); w != (evidence.Want{}) {
		t.Errorf("still wanted: %v", w)
	}
	if n := len(f.With(evidence.Want{Kind: tdx.KindTCBInfo, Key: "50806f000000"})); n != 4 {
		t.Errorf("%d with it", n)
	}
}

func TestFetcher_AsksForNothingElse(t *testing.T) {
	f, asked := makers(t, nil)
	for _, w := range []evidence.Want{
		{},
		{Kind: snp.KindVCEK},
		{Kind: snp.KindVCEK, Key: "Genoa"},
		{Kind: snp.KindVCEK, Key: "Genoa/../.."},
		{Kind: snp.KindVCEK, Key: "Naples/00/00"},
		{Kind: snp.KindVCEK, Key: "Turin/" + strings.Repeat("00", 64) + "/0000000000000000"},
		{Kind: snp.KindCRL, Key: "Genoa/x"},
		{Kind: snp.KindCRL},
		{Kind: tdx.KindTCBInfo, Key: "50806F000000"},
		{Kind: tdx.KindTCBInfo, Key: "x&y=z"},
		{Kind: tdx.KindCRL, Key: "x"},
		{Kind: tdx.KindSigner},
		{Kind: tpm.KindAuthorities, Key: "x"},
		{Kind: tpm.KindCRL, Key: "00"},
	} {
		if _, err := f.Fetch(t.Context(), w); !fault.Is(err, fault.NotFound) {
			t.Errorf("%v: %v", w, err)
		}
	}
	if len(*asked) > 0 {
		t.Errorf("asked %v", *asked)
	}
	for _, bad := range []Fetch{{KDS: "http://kds.example"}, {PCS: "https://u:p@x"}, {KDS: "kds.example"}, {KDS: "https://x?y"}, {KDS: "https://x", Roots: "/nowhere"}} {
		if _, err := bad.open(); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if f, err := (Fetch{}).open(); f != nil || err != nil {
		t.Errorf("nothing configured: %v %v", f, err)
	}
}

// Everything that is stored leads to its maker; a change of one byte, a missing
// or another signer, and what only the operator vouches for, do not.
func TestLibrary_ReadsWhatMakersSigned(t *testing.T) {
	info, identity, signing := collateral(t, "tcb-info-2023-06.json"), collateral(t, "qe-identity-2023-06.json"), collateral(t, "tcb-signing-2023.pem")
	vcek := evidencetest.Vector(t, "snp/milan-v2-vcek.der")
	read := func(kind string, files ...[]byte) ([]reference.Found, error) {
		var list []reference.File
		for _, data := range files {
			list = append(list, reference.File{Name: "x", Data: data})
		}
		return library{}.Read(list, kind, nil)
	}
	found, err := read("", info, identity, signing, vcek)
	if err != nil || len(found) != 4 {
		t.Fatalf("%v %v", found, err)
	}
	for _, f := range found {
		if f.NotBefore.IsZero() || !f.NotBefore.Before(f.NotAfter) {
			t.Errorf("%s counts from %s to %s", f.Kind, f.NotBefore, f.NotAfter)
		}
	}
	flipped := func(data []byte) []byte {
		out := append([]byte{}, data...)
		out[len(out)/2] ^= 1
		return out
	}
	roots := evidencetest.Vector(t, "ek-ca/tpm-root-ca.pem")
	for name, files := range map[string][][]byte{
		"without its signer": {info}, "tampered info": {flipped(info), signing}, "tampered identity": {flipped(identity), signing},
		"tampered certificate": {flipped(vcek)}, "authorities of TPMs": {roots}, "nothing": {[]byte("x")}, "one bad file": {vcek, []byte("x")},
		"wrong TCB": {flipped(evidencetest.Vector(t, "snp/invalid-vcek-legacy.der"))},
	} {
		if _, err := read("", files...); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if found, err := read(tpm.KindAuthorities, roots); err != nil || found[0].Key != "x" {
		t.Errorf("vouched for: %v %v", found, err)
	}
	if _, err := read(snp.KindVCEK, vcek); !fault.Is(err, fault.Invalid) {
		t.Errorf("another kind by word: %v", err)
	}
}
