package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// JoinToken is what a newcomer gets out of band: where the server is, the hash
// of its authority's key, a secret that works once, and, for its reader, role
// and end. What it may really become is in the server's row (docs/decisions,
// keys): enrolment is never trust on first use.
//
// Its text is "spjoin1_" and unpadded base64url of
//
//	byte      length of role, role
//	byte      length of address, address
//	32 bytes  SHA-256 of the root's public key
//	32 bytes  secret
//	8 bytes   expiry, seconds since the epoch, big-endian
//	4 bytes   first bytes of SHA-256 over prefix and all of the above
type JoinToken struct {
	Address string // host:port
	KeyHash [sha256.Size]byte
	Secret  secret.Bytes // 32 bytes
	Role    string
	Expires time.Time // whole seconds
}

const (
	joinPrefix   = "spjoin1_"
	joinSecret   = 32
	joinChecksum = 4
	// MaxJoinToken is the longest text of a join token.
	MaxJoinToken = 600
)

var (
	roleGrammar = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	hostGrammar = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$`)
	portGrammar = regexp.MustCompile(`^[1-9][0-9]{0,4}$`)
)

// NewJoinToken draws the secret. The random source may be nil for crypto/rand.
func NewJoinToken(random io.Reader, address string, keyHash [sha256.Size]byte, role string, expires time.Time) (JoinToken, error) {
	if random == nil {
		random = rand.Reader
	}
	b := make([]byte, joinSecret)
	if _, err := io.ReadFull(random, b); err != nil {
		return JoinToken{}, fault.Wrap(err, "read randomness for a join token")
	}
	t := JoinToken{
		Address: address, KeyHash: keyHash, Secret: secret.New(b), Role: role,
		Expires: expires.UTC().Truncate(time.Second),
	}
	return t, t.validate()
}

func (t JoinToken) validate() error {
	host, port, err := net.SplitHostPort(t.Address)
	if err != nil || len(t.Address) > 255 || !validHost(host) || !portGrammar.MatchString(port) {
		return fault.Invalidf("address %.64q is not host:port", t.Address)
	}
	if n, err := strconv.Atoi(port); err != nil || n > 65535 {
		return fault.Invalidf("address %.64q has no port between 1 and 65535", t.Address)
	}
	switch {
	case net.JoinHostPort(host, port) != t.Address:
		return fault.Invalidf("address %.64q is not host:port", t.Address)
	case !roleGrammar.MatchString(t.Role):
		return fault.Invalidf("role %.64q is not well-formed: 1 to 63 of a-z, 0-9 and dash, a letter first", t.Role)
	case t.Secret.Len() != joinSecret:
		return fault.Invalidf("a join token needs a secret of %d bytes", joinSecret)
	case t.Expires.Unix() <= 0 || t.Expires.Year() > 9999:
		return fault.Invalidf("a join token needs an end between 1970 and 9999")
	}
	return nil
}

func validHost(host string) bool { return net.ParseIP(host) != nil || hostGrammar.MatchString(host) }

// SecretHash is how the store keeps and finds the secret: lower-case hex of its
// SHA-256. The secret has 256 random bits, so a plain hash gives nothing away.
func (t JoinToken) SecretHash() string { return HashSecret(t.Secret) }

// HashSecret is [JoinToken.SecretHash] of a secret that came alone.
func HashSecret(s secret.Bytes) string {
	sum := s.SHA256()
	return hex.EncodeToString(sum[:])
}

// Expired reports whether the token's own end has come. The server judges by
// its row.
func (t JoinToken) Expired(now time.Time) bool { return !now.Before(t.Expires) }

// Text is the whole token, to be shown once. A token that Parse would not take
// is Invalid.
func (t JoinToken) Text() (secret.Bytes, error) {
	t.Expires = t.Expires.Truncate(time.Second)
	if err := t.validate(); err != nil {
		return secret.Bytes{}, err
	}
	b := make([]byte, 0, MaxJoinToken)
	b = append(append(b, byte(len(t.Role))), t.Role...)       //nolint:gosec // at most 63
	b = append(append(b, byte(len(t.Address))), t.Address...) //nolint:gosec // at most 255
	b = append(append(b, t.KeyHash[:]...), t.Secret.Reveal()...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix())) //nolint:gosec // positive
	b = append(b, joinSum(b)...)
	defer clear(b)
	return secret.New(base64.RawURLEncoding.AppendEncode([]byte(joinPrefix), b)), nil
}

// String names the token without its secret.
func (t JoinToken) String() string {
	return "join token for role " + t.Role + " at " + t.Address + ", until " + t.Expires.UTC().Format(time.RFC3339)
}

// ParseJoinToken reads the text of a token, without white space around it. Any
// other text is Invalid; the fault never repeats it.
func ParseJoinToken(text secret.Bytes) (JoinToken, error) {
	raw := text.Reveal()
	if len(raw) > MaxJoinToken {
		return JoinToken{}, fault.Invalidf("the join token is longer than %d characters", MaxJoinToken)
	}
	if len(raw) < len(joinPrefix) || string(raw[:len(joinPrefix)]) != joinPrefix {
		return JoinToken{}, fault.Invalidf("this is no join token: it must begin with %s", joinPrefix)
	}
	encoded := raw[len(joinPrefix):]
	b := make([]byte, base64.RawURLEncoding.DecodedLen(len(encoded)))
	n, err := base64.RawURLEncoding.Strict().Decode(b, encoded)
	if err != nil || base64.RawURLEncoding.EncodedLen(n) != len(encoded) { // the decoder skips line breaks
		return JoinToken{}, fault.Invalidf("the join token is damaged: copy it again as a whole")
	}
	b = b[:n]
	if n < joinChecksum || subtle.ConstantTimeCompare(joinSum(b[:n-joinChecksum]), b[n-joinChecksum:]) != 1 {
		return JoinToken{}, fault.Invalidf("the join token is damaged: copy it again as a whole")
	}
	t, ok := splitJoin(b[:n-joinChecksum])
	if !ok {
		return JoinToken{}, fault.Invalidf("the join token has an unknown form: it may come from another release")
	}
	return t, t.validate()
}

// splitJoin cuts the members apart.
func splitJoin(b []byte) (JoinToken, bool) {
	var t JoinToken
	for _, member := range []*string{&t.Role, &t.Address} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return t, false
		}
		*member = string(b[1 : 1+int(b[0])])
		b = b[1+int(b[0]):]
	}
	if len(b) != sha256.Size+joinSecret+8 {
		return t, false
	}
	copy(t.KeyHash[:], b)
	t.Secret = secret.New(append([]byte(nil), b[sha256.Size:sha256.Size+joinSecret]...))
	expires := binary.BigEndian.Uint64(b[sha256.Size+joinSecret:])
	if expires > 253402300799 { // the end of the year 9999
		return t, false
	}
	t.Expires = time.Unix(int64(expires), 0).UTC()
	return t, true
}

// joinSum finds typing and copying errors; it is no protection.
func joinSum(b []byte) []byte {
	h := sha256.New()
	h.Write([]byte(joinPrefix))
	h.Write(b)
	return h.Sum(nil)[:joinChecksum]
}
