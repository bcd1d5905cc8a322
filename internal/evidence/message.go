package evidence

import (
	"bytes"
	"encoding/json"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Limits of the protocol's messages, in bytes and levels of nesting. An
// attestation may carry an event log and several devices.
const (
	MaxRequest     = 16 << 10
	MaxChallenge   = 16 << 10
	MaxAttestation = 2 << 20
	MaxToken       = 128 << 10 // the attestation's answer
	maxDepth       = 32
)

// Request opens a handshake (POST /kbs/v0/auth).
type Request struct {
	Version Version
	TEE     TEE
	// Algorithms are the hash algorithms that the guest offers; empty if it
	// says nothing.
	Algorithms []string
	// Selector names a server-side attestation policy; empty for the default.
	Selector string
}

type wireRequest struct {
	Version string          `json:"version"`
	TEE     string          `json:"tee"`
	Extra   json.RawMessage `json:"extra-params"`
}

type wireExtra struct {
	Algorithms []string `json:"supported-hash-algorithms,omitempty"`
	Selector   string   `json:"attestation-policy-selector,omitempty"`
}

// ParseRequest reads a request of at most MaxRequest bytes. extra-params must
// be present, of any form; what it says is read if it is an object.
func ParseRequest(data []byte) (Request, error) {
	var w wireRequest
	if err := canon.Lenient(data, MaxRequest, maxDepth, &w); err != nil {
		return Request{}, fault.Invalidf("the request is not the KBS protocol's Request object").Because(err)
	}
	v, err := ParseVersion(w.Version)
	if err != nil {
		return Request{}, err
	}
	tee, err := ParseTEE(w.TEE)
	if err != nil {
		return Request{}, err
	}
	if len(w.Extra) == 0 {
		return Request{}, fault.Invalidf("the request must have extra-params, an empty string will do")
	}
	r := Request{Version: v, TEE: tee}
	if bytes.HasPrefix(w.Extra, []byte("{")) {
		var x wireExtra
		if err := canon.Lenient(w.Extra, MaxRequest, maxDepth, &x); err != nil {
			return Request{}, fault.Invalidf("the request's extra-params cannot be read").Because(err)
		}
		if len(x.Algorithms) > 16 || len(x.Selector) > 128 {
			return Request{}, fault.Invalidf("the request's extra-params are too long")
		}
		r.Algorithms, r.Selector = x.Algorithms, x.Selector
	}
	return r, nil
}

// Encode writes the request for a guest client.
func (r Request) Encode() ([]byte, error) {
	extra, err := json.Marshal(wireExtra{r.Algorithms, r.Selector})
	if err != nil {
		return nil, fault.Wrap(err, "encode extra-params")
	}
	data, err := json.Marshal(wireRequest{string(r.Version), string(r.TEE), extra})
	return data, fault.Wrap(err, "encode request")
}

// Challenge answers a request. ExtraParams is the empty string for every TEE
// that is supported.
type Challenge struct {
	Nonce       Nonce  `json:"nonce"`
	ExtraParams string `json:"extra-params"`
}

// ParseChallenge reads a challenge on the guest's side. A server that selects
// another hash than SHA-384 is refused.
func ParseChallenge(data []byte) (Challenge, error) {
	var w struct {
		Nonce string          `json:"nonce"`
		Extra json.RawMessage `json:"extra-params"`
	}
	if err := canon.Lenient(data, MaxChallenge, maxDepth, &w); err != nil {
		return Challenge{}, fault.Invalidf("the server's challenge cannot be read").Because(err)
	}
	n, err := ParseNonce(w.Nonce)
	if err != nil {
		return Challenge{}, err
	}
	if bytes.HasPrefix(w.Extra, []byte("{")) {
		var x struct {
			Selected string `json:"selected-hash-algorithm"`
		}
		if err := canon.Lenient(w.Extra, MaxChallenge, maxDepth, &x); err != nil {
			return Challenge{}, fault.Invalidf("the server's challenge cannot be read").Because(err)
		}
		if x.Selected != "" && x.Selected != "sha384" {
			return Challenge{}, fault.Invalidf("the server selected a hash algorithm other than sha384, which is not supported")
		}
	}
	return Challenge{Nonce: n}, nil
}

// Response answers an attestation.
type Response struct {
	Token string `json:"token"`
}

// ParseResponse reads the answer on the guest's side.
func ParseResponse(data []byte) (Response, error) {
	var r Response
	if err := canon.Lenient(data, MaxToken, maxDepth, &r); err != nil {
		return Response{}, fault.Invalidf("the server's answer cannot be read").Because(err)
	}
	if r.Token == "" {
		return Response{}, fault.Invalidf("the server's answer holds no token")
	}
	return r, nil
}
