package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"regexp"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// JoinToken is what a newcomer gets out of band: where the server is, the hash
// of its authority's key, a secret that works once, and, for its reader, role
// and end. What it may really become is in the server's row (docs/decisions,
// keys): enrolment is never trust on first use. Its text is that of a [ticket]
// with the role as label.
type JoinToken struct {
	Address string // host:port
	KeyHash [sha256.Size]byte
	Secret  secret.Bytes // 32 bytes
	Role    string
	Expires time.Time // whole seconds
}

// MaxJoinToken is the longest text of a join token.
const MaxJoinToken = maxTicket

var roleGrammar = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// NewJoinToken draws the secret. The random source may be nil for crypto/rand.
func NewJoinToken(random io.Reader, address string, keyHash [sha256.Size]byte, role string, expires time.Time) (JoinToken, error) {
	if random == nil {
		random = rand.Reader
	}
	b := make([]byte, ticketSecret)
	if _, err := io.ReadFull(random, b); err != nil {
		return JoinToken{}, fault.Wrap(err, "read randomness for a join token")
	}
	t := JoinToken{
		Address: address, KeyHash: keyHash, Secret: secret.New(b), Role: role,
		Expires: expires.UTC().Truncate(time.Second),
	}
	return t, t.validate()
}

// joins is the form of join tokens.
var joins = form{prefix: "spjoin1_", what: "join token", label: func(role string) error {
	if !roleGrammar.MatchString(role) {
		return fault.Invalidf("role %.64q is not well-formed: 1 to 63 of a-z, 0-9 and dash, a letter first", role)
	}
	return nil
}}

func (t JoinToken) ticket() ticket {
	return ticket{label: t.Role, address: t.Address, keyHash: t.KeyHash, secret: t.Secret, expires: t.Expires}
}

func (t JoinToken) validate() error { return joins.validate(t.ticket()) }

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
func (t JoinToken) Text() (secret.Bytes, error) { return joins.text(t.ticket()) }

// String names the token without its secret.
func (t JoinToken) String() string {
	return "join token for role " + t.Role + " at " + t.Address + ", until " + t.Expires.UTC().Format(time.RFC3339)
}

// ParseJoinToken reads the text of a token, without white space around it. Any
// other text is Invalid; the fault never repeats it.
func ParseJoinToken(text secret.Bytes) (JoinToken, error) {
	t, err := joins.parse(text)
	return JoinToken{Address: t.address, KeyHash: t.keyHash, Secret: t.secret, Role: t.label, Expires: t.expires}, err
}
