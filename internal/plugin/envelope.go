package plugin

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strconv"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// The limits of signature.dat. Base64 makes 4 bytes of 3.
const (
	maxEnvelopeBytes = 2*manifest.MaxBytes + 64<<10
	maxSignatures    = 16
)

// envelope is signature.dat: a DSSE envelope in JSON, version 1.0.2 of
// secure-systems-lab/dsse.
type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// pae is DSSE's pre-authentication encoding, the bytes that are signed.
func pae(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(payloadType)+64)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(append(append(b, ' '), payloadType...), ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	return append(append(b, ' '), payload...)
}

// parseEnvelope reads signature.dat strictly and returns the payload. Nothing
// is verified yet.
func parseEnvelope(data []byte) (envelope, []byte, error) {
	e, payload, err := openEnvelope(data, signatureName)
	if err == nil && uses[e.PayloadType] == "" {
		err = fault.Invalidf("signature.dat signs another kind of document, not a plugin manifest")
	}
	if err != nil {
		return envelope{}, nil, err
	}
	return e, payload, nil
}

// openEnvelope reads a DSSE envelope strictly; name is what it is called in
// messages. The caller checks the payload type.
func openEnvelope(data []byte, name string) (envelope, []byte, error) {
	var e envelope
	if err := canon.Strict(data, maxEnvelopeBytes, 4, &e); err != nil {
		return envelope{}, nil, fault.Wrap(err, "read %s", name)
	}
	if len(e.Signatures) > maxSignatures {
		return envelope{}, nil, fault.Invalidf("%s has more than %d signatures", name, maxSignatures)
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return envelope{}, nil, fault.Invalidf("the payload in %s is not base64", name)
	}
	return e, payload, nil
}

// newEnvelope makes an envelope of a manifest, without signatures.
func newEnvelope(manifestBytes []byte) envelope {
	return sealEnvelope(manifest.PayloadType, manifestBytes)
}

func sealEnvelope(payloadType string, payload []byte) envelope {
	return envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(payload), Signatures: []signature{}}
}

// bytes encodes the envelope; equal envelopes give equal bytes.
func (e envelope) bytes() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fault.Internalf("encode envelope").Because(err)
	}
	return b.Bytes(), nil
}

// sign adds a signature; a key that has signed already replaces its own.
func (e envelope) sign(key ed25519.PrivateKey) (envelope, error) {
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return envelope{}, fault.Invalidf("the payload in signature.dat is not base64")
	}
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return envelope{}, fault.Internalf("an Ed25519 key without a public half")
	}
	id := KeyID(pub)
	sig := signature{KeyID: id, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(key, pae(e.PayloadType, payload)))}
	out := make([]signature, 0, len(e.Signatures)+1)
	for _, s := range e.Signatures {
		if s.KeyID != id {
			out = append(out, s)
		}
	}
	if len(out) >= maxSignatures {
		return envelope{}, fault.Invalidf("the package has %d signatures already", maxSignatures)
	}
	e.Signatures = append(out, sig)
	return e, nil
}

// verified returns the ids of the distinct keys, of those given, that have
// signed. The keyid in a signature only finds the key: it proves nothing, and a
// key counts once however often it signed.
func (e envelope) verified(payload []byte, keys map[string]ed25519.PublicKey) []string {
	message := pae(e.PayloadType, payload)
	return e.distinct(keys, func(key ed25519.PublicKey, sig []byte) bool { return ed25519.Verify(key, message, sig) })
}

// distinct returns the ids of the keys that have a signature which is good.
func (e envelope) distinct(keys map[string]ed25519.PublicKey, good func(ed25519.PublicKey, []byte) bool) []string {
	var ids []string
	done := map[string]bool{}
	for _, s := range e.Signatures {
		key, ok := keys[s.KeyID]
		if !ok || done[s.KeyID] {
			continue
		}
		sig, err := base64.StdEncoding.Strict().DecodeString(s.Sig)
		if err != nil || len(sig) != ed25519.SignatureSize || !good(key, sig) {
			continue
		}
		done[s.KeyID] = true
		ids = append(ids, s.KeyID)
	}
	return ids
}
