package plugin

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func public(key ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(key[32:]) }

func TestEnvelope_AgreesWithTheReferenceImplementation(t *testing.T) {
	p := newPublisher(t)
	for _, payload := range []string{"", "x", `{"a":1}`, "ünïcode\x00\xff"} {
		want := dsse.PAE(manifest.PayloadType, []byte(payload))
		if got := pae(manifest.PayloadType, []byte(payload)); string(got) != string(want) {
			t.Fatalf("%q: %q, want %q", payload, got, want)
		}
	}
	e, err := newEnvelope([]byte("manifest")).sign(p.key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := e.bytes()
	if err != nil {
		t.Fatal(err)
	}
	var theirs dsse.Envelope
	if err := json.Unmarshal(data, &theirs); err != nil {
		t.Fatal(err)
	}
	payload, err := theirs.DecodeB64Payload()
	if err != nil || string(payload) != "manifest" || theirs.PayloadType != manifest.PayloadType {
		t.Fatalf("%q, %v", payload, err)
	}
	sig, err := base64.StdEncoding.DecodeString(theirs.Signatures[0].Sig)
	if err != nil || !ed25519.Verify(public(p.key), dsse.PAE(theirs.PayloadType, payload), sig) {
		t.Fatal("the reference implementation's view does not verify")
	}
}

func TestTrust_CountsKeysNotSignatures(t *testing.T) {
	p := newPublisher(t)
	m, err := encodeManifest(withFile(testManifest("x")))
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEnvelope(m).sign(p.key)
	if err != nil {
		t.Fatal(err)
	}
	judge := func(e envelope, trust Trust) error {
		data, err := e.bytes()
		if err != nil {
			t.Fatal(err)
		}
		_, err = trust.verify(m, data, forInstall)
		return err
	}
	if err := judge(e, p.trust); err != nil {
		t.Fatal(err)
	}
	twice := e
	twice.Signatures = append(twice.Signatures, e.Signatures[0])
	two := p.trust
	two.Thresholds = map[string]int{"tester": 2}
	if err := judge(twice, two); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("the same signature twice: %v", err)
	}
	row := p.trust.Keys[0]
	row.ID = "another"
	if err := judge(twice, Trust{Keys: []Key{p.trust.Keys[0], row}, Thresholds: map[string]int{"tester": 2}}); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("the same key under two ids: %v", err)
	}
	spoofed := e
	other := newPublisher(t)
	spoofed.Signatures = []signature{{KeyID: KeyID(public(other.key)), Sig: e.Signatures[0].Sig}}
	if err := judge(spoofed, Trust{Keys: append(other.trust.Keys, p.trust.Keys...)}); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("a spoofed key id: %v", err)
	}
	wrong := e
	wrong.PayloadType = "application/vnd.in-toto+json"
	if err := judge(wrong, p.trust); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("another payload type: %v", err)
	}
	// A valid signature of the same key over the same bytes for another purpose.
	wrong.PayloadType = manifest.PayloadType
	wrong.Signatures = []signature{{KeyID: p.trust.Keys[0].ID, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(p.key, m))}}
	if err := judge(wrong, p.trust); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("a signature without domain separation: %v", err)
	}
	many := e
	for range maxSignatures + 1 {
		many.Signatures = append(many.Signatures, e.Signatures[0])
	}
	if err := judge(many, p.trust); !fault.Is(err, fault.Invalid) {
		t.Fatalf("too many signatures: %v", err)
	}
}

func withFile(m manifest.Manifest) manifest.Manifest {
	m.Files = []manifest.File{{OS: "linux", Arch: "amd64", Path: "x", Size: 1, SHA256: Digest(nil)[len(digestPrefix):]}}
	return m
}

func FuzzEnvelope(f *testing.F) {
	p := newPublisher(f)
	m, err := encodeManifest(withFile(testManifest("x")))
	if err != nil {
		f.Fatal(err)
	}
	e, err := newEnvelope(m).sign(p.key)
	if err != nil {
		f.Fatal(err)
	}
	good, err := e.bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"payloadType":"x","payload":"","signatures":[{"keyid":"","sig":""}]}`))
	f.Add([]byte(`{"payloadType":"a","payloadType":"b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, payload, err := parseEnvelope(data)
		if err != nil {
			return
		}
		if again, err := base64.StdEncoding.DecodeString(got.Payload); err != nil || string(again) != string(payload) {
			t.Fatal("the payload does not read back")
		}
		if _, err := p.trust.verify(m, data, forInstall); err == nil && got.Signatures == nil {
			t.Fatal("accepted without signatures")
		}
	})
}
