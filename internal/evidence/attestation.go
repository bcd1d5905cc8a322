package evidence

import (
	"bytes"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/json"
	"slices"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/seal"
)

// maxDevices bounds composite evidence.
const maxDevices = 16

// Attestation is the guest's answer to a challenge (POST /kbs/v0/attest).
type Attestation struct {
	Version  Version
	InitData *InitData // nil if none was sent
	Runtime  Runtime
	Primary  json.RawMessage // evidence of the TEE that the request named
}

// Runtime is the data that evidence is bound to.
type Runtime struct {
	Nonce Nonce
	Key   seal.PublicKey // what answers are sealed to
	// Additional is the evidence of further devices, exactly as received: a
	// JSON text in a string, or empty. Always empty in version 0.2.0.
	Additional string
}

type wireAttestation struct {
	InitData *InitData       `json:"init-data"`
	Runtime  wireRuntime     `json:"runtime-data"`
	Evidence json.RawMessage `json:"tee-evidence"`
}

type wireRuntime struct {
	Nonce string          `json:"nonce"`
	Key   json.RawMessage `json:"tee-pubkey"`
}

type wireEvidence struct {
	Primary    json.RawMessage `json:"primary_evidence"`
	Additional *string         `json:"additional_evidence"`
}

// ParseAttestation reads an attestation of at most MaxAttestation bytes in the
// shape of the version that the handshake's request named. It checks form, key
// and nonce's form; it verifies nothing.
func ParseAttestation(v Version, data []byte) (Attestation, error) {
	var w wireAttestation
	if err := canon.Lenient(data, MaxAttestation, maxDepth, &w); err != nil {
		return Attestation{}, fault.Invalidf("the attestation is not the KBS protocol's Attestation object").Because(err)
	}
	nonce, err := ParseNonce(w.Runtime.Nonce)
	if err != nil {
		return Attestation{}, err
	}
	if len(w.Runtime.Key) == 0 {
		return Attestation{}, fault.Invalidf("the attestation's runtime-data must have a tee-pubkey")
	}
	key, err := seal.ParseKey(w.Runtime.Key)
	if err != nil {
		return Attestation{}, err
	}
	a := Attestation{Version: v, InitData: w.InitData, Runtime: Runtime{Nonce: nonce, Key: key}}
	switch v {
	case V020:
		a.Primary = w.Evidence
	case V040:
		var e wireEvidence
		if err := canon.Lenient(w.Evidence, MaxAttestation, maxDepth, &e); err != nil {
			return Attestation{}, fault.Invalidf("the attestation's tee-evidence must have primary_evidence and additional_evidence").Because(err)
		}
		if e.Additional == nil {
			return Attestation{}, fault.Invalidf("the attestation's tee-evidence must have additional_evidence, an empty string will do")
		}
		a.Primary, a.Runtime.Additional = e.Primary, *e.Additional
	default:
		return Attestation{}, fault.Internalf("parse attestation of version %q", v)
	}
	if len(a.Primary) == 0 || bytes.Equal(a.Primary, []byte("null")) {
		return Attestation{}, fault.Invalidf("the attestation holds no evidence")
	}
	if a.InitData != nil {
		if err := a.InitData.check(); err != nil {
			return Attestation{}, err
		}
	}
	return a, nil
}

// Encode writes the attestation in the shape of its version, for a guest
// client.
func (a Attestation) Encode() ([]byte, error) {
	key, err := json.Marshal(a.Runtime.Key)
	if err != nil {
		return nil, fault.Wrap(err, "encode TEE key")
	}
	w := wireAttestation{InitData: a.InitData, Runtime: wireRuntime{string(a.Runtime.Nonce), key}, Evidence: a.Primary}
	if a.Version == V040 {
		if w.Evidence, err = json.Marshal(wireEvidence{a.Primary, &a.Runtime.Additional}); err != nil {
			return nil, fault.Wrap(err, "encode evidence")
		}
	}
	data, err := json.Marshal(w)
	return data, fault.Wrap(err, "encode attestation")
}

// Answers reports whether the attestation carries the challenge's nonce, in
// constant time.
func (a Attestation) Answers(n Nonce) bool {
	return n != "" && subtle.ConstantTimeCompare([]byte(a.Runtime.Nonce), []byte(n)) == 1
}

// Devices is the evidence of further devices, ordered by TEE; nil if there
// is none.
func (r Runtime) Devices() ([]Evidence, error) {
	if r.Additional == "" {
		return nil, nil
	}
	var m map[string]json.RawMessage
	if err := canon.Lenient([]byte(r.Additional), MaxAttestation, maxDepth, &m); err != nil {
		return nil, fault.Invalidf("additional_evidence must be a JSON object from TEE name to evidence").Because(err)
	}
	if len(m) > maxDevices {
		return nil, fault.Invalidf("additional_evidence names more than %d devices", maxDevices)
	}
	var out []Evidence
	for name, body := range m {
		tee, err := ParseTEE(name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(e Evidence) bool { return e.TEE == tee }) {
			return nil, fault.Invalidf("additional_evidence names TEE %q twice", tee)
		}
		out = append(out, Evidence{tee, body})
	}
	slices.SortFunc(out, func(a, b Evidence) int { return bytes.Compare([]byte(a.TEE), []byte(b.TEE)) })
	return out, nil
}

// Digest is what the primary evidence is bound to: SHA-384 over the RFC 8785
// form of the runtime data, which is rebuilt and not taken from the wire.
// Version 0.4.0 includes additional-evidence, also when it is empty.
func (r Runtime) Digest(v Version) ([]byte, error) {
	m := r.claims()
	if v == V040 {
		m["additional-evidence"] = r.Additional
	}
	return digest(m)
}

// DeviceDigest is what the evidence of further devices is bound to.
func (r Runtime) DeviceDigest() ([]byte, error) { return digest(r.claims()) }

func (r Runtime) claims() map[string]any {
	return map[string]any{"nonce": string(r.Nonce), "tee-pubkey": r.Key.Members()}
}

func digest(v any) ([]byte, error) {
	text, err := canon.JCS(v)
	if err != nil {
		return nil, fault.Wrap(err, "canonicalise runtime data")
	}
	sum := sha512.Sum384(text)
	return sum[:], nil
}
