package sallyport

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net"
	"strings"
	"time"
)

// JoinToken is what a newcomer gets out of band: where the server is, the hash
// of its authority's key, and an invitation with its one-time secret. Role and
// Expires are for its reader; the server judges by its own row.
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
	Address  string // host:port
	RootHash [sha256.Size]byte
	Secret   Secret // base64url of 32 bytes, as the API takes it
	Role     string
	Expires  time.Time
}

const (
	joinPrefix   = "spjoin1_"
	maxJoinToken = 600
	joinSecret   = 32
	joinChecksum = 4
)

// ParseJoinToken reads the text of a join token, without white space around
// it. Any other text is [Invalid]; the error never repeats it.
func ParseJoinToken(text string) (JoinToken, error) {
	damaged := invalid("the join token is damaged: copy it again as a whole")
	if len(text) > maxJoinToken || !strings.HasPrefix(text, joinPrefix) {
		return JoinToken{}, invalid("this is no join token: it begins with %s and has at most %d characters", joinPrefix, maxJoinToken)
	}
	encoded := text[len(joinPrefix):]
	if strings.ContainsAny(encoded, "\r\n") { // which the decoder would skip
		return JoinToken{}, damaged
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) < joinChecksum {
		return JoinToken{}, damaged
	}
	b, sum := b[:len(b)-joinChecksum], b[len(b)-joinChecksum:]
	if want := sha256.Sum256(append([]byte(joinPrefix), b...)); !bytes.Equal(sum, want[:joinChecksum]) {
		return JoinToken{}, damaged
	}
	var t JoinToken
	if !t.split(b) {
		return JoinToken{}, invalid("the join token has an unknown form: it may come from another release")
	}
	return t, nil
}

// split cuts the members apart.
func (t *JoinToken) split(b []byte) bool {
	for _, member := range []*string{&t.Role, &t.Address} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return false
		}
		*member = string(b[1 : 1+int(b[0])])
		b = b[1+int(b[0]):]
	}
	if len(b) != sha256.Size+joinSecret+8 {
		return false
	}
	copy(t.RootHash[:], b)
	t.Secret = NewSecret(encode(b[sha256.Size : sha256.Size+joinSecret]))
	expires := binary.BigEndian.Uint64(b[sha256.Size+joinSecret:])
	host, port, err := net.SplitHostPort(t.Address)
	if err != nil || host == "" || port == "" || strings.ContainsAny(t.Address, "/?#@ \\") || expires == 0 || expires > 253402300799 { // the year 9999
		return false
	}
	t.Expires = time.Unix(int64(expires), 0).UTC()
	return true
}
