package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// Limits of proofs of possession.
const (
	MaxProof    = 4 << 10
	ProofWindow = 60 * time.Second // how far iat may lie from now, either way

	proofType = "dpop+jwt"
)

// Proof is a checked proof of possession (RFC 9449). It is good once: the
// caller records Use until Until under a unique key.
type Proof struct {
	Use   string    // digest of key and jti, base64url
	Until time.Time // after it the proof is stale by itself
}

type proofHeader struct {
	Alg  string          `json:"alg"`
	Type string          `json:"typ"`
	Key  json.RawMessage `json:"jwk"`
}

// proofKey has the members that the two accepted kinds of key may have. A
// private member is unknown and so refused.
type proofKey struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	X   string `json:"x"`
	Y   string `json:"y,omitempty"`
	Alg string `json:"alg,omitempty"`
	Use string `json:"use,omitempty"`
	Kid string `json:"kid,omitempty"`
}

type proofClaims struct {
	ID       string `json:"jti"`
	Method   string `json:"htm"`
	URL      string `json:"htu"`
	IssuedAt int64  `json:"iat"`
	Token    string `json:"ath"`
}

// Thumbprint is the RFC 7638 thumbprint of a public key, with SHA-256, in
// base64url: what jkt and Delegation.KeyThumb hold. An unsupported kind of key
// is Invalid.
func Thumbprint(public crypto.PublicKey) (string, error) {
	k := jose.JSONWebKey{Key: public}
	sum, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fault.Invalidf("a key of this kind has no thumbprint").Because(err)
	}
	return encode(sum), nil
}

// checkProof checks the proof for a key-bound token.
func checkProof(p Presentation, raw, thumb string, now time.Time) (Proof, error) {
	if p.Proof == "" {
		return Proof{}, fault.Unauthenticatedf("this token is bound to a delegate's key: send a proof of possession in the DPoP header")
	}
	c, err := split(p.Proof, MaxProof)
	if err != nil {
		return Proof{}, err
	}
	var h proofHeader
	if err := canon.Strict(c.header, MaxProof, 3, &h); err != nil {
		return Proof{}, errForm(err)
	}
	if h.Type != proofType {
		return Proof{}, errProof("its typ is not dpop+jwt")
	}
	public, err := h.key()
	if err != nil {
		return Proof{}, err
	}
	got, err := Thumbprint(public)
	if err != nil || subtle.ConstantTimeCompare([]byte(got), []byte(thumb)) != 1 {
		return Proof{}, errProof("it is made with another key than the token is bound to")
	}
	if err := c.verify(jose.SignatureAlgorithm(h.Alg), public); err != nil {
		return Proof{}, err
	}
	var claims proofClaims
	if err := canon.Strict(c.payload, MaxProof, 2, &claims); err != nil {
		return Proof{}, errForm(err)
	}
	return claims.check(p, raw, thumb, now)
}

// key reads the public key and holds it to the one algorithm of its kind.
func (h proofHeader) key() (crypto.PublicKey, error) {
	var k proofKey
	if len(h.Key) == 0 {
		return nil, errProof("it has no jwk")
	}
	if err := canon.Strict(h.Key, MaxProof, 2, &k); err != nil {
		return nil, errForm(err)
	}
	// Only these members go into the library, so that it decides nothing else.
	clean, err := json.Marshal(proofKey{Kty: k.Kty, Crv: k.Crv, X: k.X, Y: k.Y})
	if err != nil {
		return nil, fault.Wrap(err, "encode key of proof")
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(clean); err != nil || !parsed.Valid() {
		return nil, errProof("its jwk is not a valid key").Because(err)
	}
	switch key := parsed.Key.(type) {
	case ed25519.PublicKey:
		if h.Alg == string(jose.EdDSA) && k.Y == "" {
			return key, nil
		}
	case *ecdsa.PublicKey:
		if h.Alg == string(jose.ES256) && key.Curve == elliptic.P256() {
			return key, nil
		}
	}
	return nil, errProof("its key must be Ed25519 with EdDSA or P-256 with ES256")
}

func (c proofClaims) check(p Presentation, raw, thumb string, now time.Time) (Proof, error) {
	ath := sha256.Sum256([]byte(raw))
	at := time.Unix(c.IssuedAt, 0)
	switch {
	case c.ID == "" || len(c.ID) > 128:
		return Proof{}, errProof("it needs a jti of at most 128 characters")
	case c.Method == "" || c.Method != p.Method:
		return Proof{}, errProof("it is for another method")
	case !sameURL(c.URL, p.URL):
		return Proof{}, errProof("it is for another URL")
	case subtle.ConstantTimeCompare([]byte(c.Token), []byte(encode(ath[:]))) != 1:
		return Proof{}, errProof("it is for another token")
	case at.Before(now.Add(-ProofWindow)) || at.After(now.Add(ProofWindow)):
		return Proof{}, errProof("it was not made just now, check the clocks")
	}
	use := sha256.Sum256([]byte(thumb + "." + c.ID))
	return Proof{Use: encode(use[:]), Until: at.Add(ProofWindow).UTC()}, nil
}

// sameURL compares as RFC 9449 4.3 says: without query and fragment, scheme and
// host in lower case, default ports left out.
func sameURL(a, b string) bool {
	x, ok1 := target(a)
	y, ok2 := target(b)
	return ok1 && ok2 && x == y
}

func target(s string) (string, bool) {
	if len(s) > MaxProof {
		return "", false
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" {
		return "", false
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	default:
		return "", false
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + path, true
}

func errProof(why string) *fault.Error {
	return fault.Unauthenticatedf("the proof of possession is refused: %s", why)
}

// NewProof makes the DPoP header of one request for a token, on the delegate's
// side. The key is an ed25519.PrivateKey or a P-256 *ecdsa.PrivateKey; another
// is Invalid.
func NewProof(key crypto.Signer, method, target, raw string, now time.Time) (string, error) {
	alg := jose.EdDSA
	switch k := key.(type) {
	case ed25519.PrivateKey:
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() {
			return "", fault.Invalidf("the delegate's EC key must be on P-256")
		}
		alg = jose.ES256
	default:
		return "", fault.Invalidf("the delegate's key must be Ed25519 or P-256")
	}
	ath := sha256.Sum256([]byte(raw))
	payload, err := json.Marshal(proofClaims{id.New(), method, target, now.Unix(), encode(ath[:])})
	if err != nil {
		return "", fault.Wrap(err, "encode proof")
	}
	opts := (&jose.SignerOptions{EmbedJWK: true}).WithType(proofType)
	return signCompact(jose.SigningKey{Algorithm: alg, Key: key}, opts, payload)
}
