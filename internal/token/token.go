// Package token makes and checks the tokens of the house:
//
//   - session tokens of agents and operators, bound to a client certificate or
//     to a delegate's own key ([Sessions]);
//   - EAR tokens that carry the verdict on a workload ([Minter], [Trust]);
//   - the cookie of a KBS handshake, which is sealed and not stored
//     ([Cookies]).
//
// Everything here is a calculation: nothing is stored ([Trust] remembers some
// signatures that it verified, no more), and nothing is known of revocation.
// Whoever accepts a token asks the store whether it, its parent and its subject
// still stand, and commits the single use of nonces and proofs.
//
// Tokens are JWS in compact form. Each kind has its own type, key set and
// exactly one acceptable algorithm per key, decided before the signature is
// looked at, and encodings with several texts for one value are refused. A
// session token therefore has exactly one text; an ECDSA signature always has a
// twin, so records go by id and never by a hash of the whole text.
//
// What is wrong with a presented token is Unauthenticated, and the text says
// what to do next.
package token

import (
	"bytes"
	"encoding/base64"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// compact is a JWS whose form was checked and whose signature was not.
type compact struct {
	raw             string
	header, payload []byte
}

// split takes a compact JWS apart. Base64 with line breaks, padding or stray
// bits is refused, because several texts would be one token.
func split(raw string, most int) (compact, error) {
	if len(raw) > most {
		return compact{}, errSize(most)
	}
	if strings.Count(raw, ".") != 2 {
		return compact{}, errForm(nil)
	}
	var parts [3][]byte
	for i, p := range strings.Split(raw, ".") {
		b, ok := decode(p)
		if !ok || len(b) == 0 {
			return compact{}, errForm(nil)
		}
		parts[i] = b
	}
	return compact{raw, parts[0], parts[1]}, nil
}

// verify checks the signature with one key and the one algorithm that goes with
// it.
func (c compact) verify(alg jose.SignatureAlgorithm, key any) error {
	jws, err := jose.ParseSignedCompact(c.raw, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return errForm(err)
	}
	payload, err := jws.Verify(key)
	if err != nil || !bytes.Equal(payload, c.payload) {
		return fault.Unauthenticatedf("the token's signature is not valid").Because(err)
	}
	return nil
}

func errSize(most int) error {
	return fault.Unauthenticatedf("the token is larger than %d bytes", most)
}

func errForm(cause error) error {
	e := fault.Unauthenticatedf("the token is malformed")
	if cause != nil {
		return e.Because(cause)
	}
	return e
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode accepts one text for each byte string.
func decode(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil
}

// digest256 reports whether s is the base64url of 32 bytes, as thumbprints are.
func digest256(s string) bool {
	b, ok := decode(s)
	return ok && len(b) == 32
}
