package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"reflect"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// agree fails where the quick reader takes what the strict one refuses, or
// something else.
func agree(t testing.TB, body []byte) (quick bool) {
	t.Helper()
	fast, ok := plain(body)
	if !ok {
		return false
	}
	slow, err := decode(body)
	if err != nil {
		// Bytes that no JSON may hold reach the decoders of base64, which refuse them.
		if _, _, _, err := parse(body); !fault.Is(err, fault.Invalid) {
			t.Fatalf("read, although it is no JSON: %q", body)
		}
		return true
	}
	for _, p := range [][2][]byte{{fast.ak, slow.ak}, {fast.message, slow.message}, {fast.signature, slow.signature}, {fast.log, slow.log}, {fast.pcrs.all, slow.pcrs.all}} {
		if !bytes.Equal(p[0], p[1]) {
			t.Fatalf("two readers disagree about %q: %q and %q", body, p[0], p[1])
		}
	}
	return true
}

func TestPlain_AgreesWithTheStrictReader(t *testing.T) {
	body, _ := vector(t)
	if !agree(t, body) {
		t.Error("real evidence is not read quickly")
	}
	pcrs := `["` + strings.Repeat(strings.Repeat("0", 64)+`","`, 23) + strings.Repeat("F", 64) + `"]`
	for text, quick := range map[string]bool{
		` { "event_log" : "" , "tpm_quote" : { "pcrs":` + pcrs + ` , "message":"AA==","signature":"AA==" },` + "\n\t" + `"ak_public":"AA==" } ` + "\r\n": true,
		`{"ak_public":"A","ak_public":"B"}`:                                                     false,
		`{"ak_public":"","ak_public":""}`:                                                       false,
		`{"tpm_quote":{"pcrs":` + pcrs + `,"pcrs":` + pcrs + `}}`:                               false,
		`{"tpm_quote":{},"tpm_quote":{}}`:                                                       false,
		`{"tpm_quote":{"message":"AA=="},"tpm_quote":{"signature":"AA=="}}`:                     false,
		`{"tpm_quote":{"message":"AA==","pcrs":` + pcrs + `},"tpm_quote":{"signature":"AA=="}}`: false,
		`{"ak_public":"\u0041A=="}`:                                                             false,
		"{\"ak_public\":\"AA\n==\"}":                                                            false,
		"{\"ak_public\":\"AA==\",}":                                                             false,
		`{"ak_public":"AA=="} {}`:                                                               false,
		`{"ak_public":"AA=="`:                                                                   false,
		`{"ak_public":null}`:                                                                    false,
		`{"another":"AA=="}`:                                                                    false,
		`{"tpm_quote":{"another":1}}`:                                                           false,
		`{"tpm_quote":{"pcrs":[]}}`:                                                             false,
		`{,}`:                                                                                   false,
		`{}`:                                                                                    false,
		``:                                                                                      false,
		"{\"ak_public\":\"\x01\"}":                                                              true,
		"{\"ak_public\":\"\xff\"}":                                                              true,
	} {
		if agree(t, []byte(text)) != quick {
			t.Errorf("%q is read quickly: %t", text, !quick)
		}
	}
	evidencetest.Mutants(body, 10_000, func(_ int, m []byte) { agree(t, m) })
	evidencetest.Cuts(body, func(m []byte) {
		if agree(t, m) {
			t.Fatalf("evidence cut at %d is read quickly", len(m))
		}
	})
}

func TestPublicKey_IsWhatTheLibraryReads(t *testing.T) {
	quick := 0
	try := func(der []byte) {
		t.Helper()
		got, err := publicKey(der)
		want, wantErr := x509.ParsePKIXPublicKey(der)
		if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%x is %v, %v; want %v, %v", der, got, err, want, wantErr)
		}
		if len(der) == spkiSize && err == nil {
			quick++
		}
	}
	for range 3 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		try(der)
		evidencetest.Mutants(der, 5000, func(_ int, m []byte) { try(m) })
		der[len(spkiBefore)] &= 0x7f // shorter than it says
		try(der)
	}
	if quick < 100 {
		t.Errorf("only %d keys were read quickly", quick)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&other.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	try(der)
	body, _ := vector(t)
	_, ak, _, err := parse(body)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := base64.StdEncoding.DecodeString(ak)
	if err != nil {
		t.Fatal(err)
	}
	try(seen)
}
