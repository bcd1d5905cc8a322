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

// UploadToken is what the build of a publisher gets to bring packages into a
// server's own repository (see [NewUploader]). Its text is that of a [JoinToken]
// with the prefix "spupload1_" and the token's id in place of the role.
type UploadToken struct {
	Address  string // host:port
	RootHash [sha256.Size]byte
	ID       string // no secret
	Expires  time.Time
}

const (
	joinPrefix     = "spjoin1_"
	uploadPrefix   = "spupload1_"
	maxTicket      = 600
	ticketSecret   = 32
	ticketChecksum = 4
)

// ticket is what both kinds of token have in common.
type ticket struct {
	label, address string
	rootHash       [sha256.Size]byte
	secret         Secret
	expires        time.Time
}

// ParseJoinToken reads the text of a join token, without white space around
// it. Any other text is [Invalid]; the error never repeats it.
func ParseJoinToken(text string) (JoinToken, error) {
	t, err := parseTicket(text, joinPrefix, "join token")
	return JoinToken{Address: t.address, RootHash: t.rootHash, Secret: t.secret, Role: t.label, Expires: t.expires}, err
}

// ParseUploadToken reads the text of an upload token, without white space around
// it. Any other text is [Invalid]; the error never repeats it.
func ParseUploadToken(text string) (UploadToken, error) {
	t, err := parseTicket(text, uploadPrefix, "upload token")
	return UploadToken{Address: t.address, RootHash: t.rootHash, ID: t.label, Expires: t.expires}, err
}

func parseTicket(text, prefix, what string) (ticket, error) {
	damaged := invalid("the %s is damaged: copy it again as a whole", what)
	if len(text) > maxTicket || !strings.HasPrefix(text, prefix) {
		return ticket{}, invalid("this is no %s: it begins with %s and has at most %d characters", what, prefix, maxTicket)
	}
	encoded := text[len(prefix):]
	if strings.ContainsAny(encoded, "\r\n") { // which the decoder would skip
		return ticket{}, damaged
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) < ticketChecksum {
		return ticket{}, damaged
	}
	b, sum := b[:len(b)-ticketChecksum], b[len(b)-ticketChecksum:]
	if want := sha256.Sum256(append([]byte(prefix), b...)); !bytes.Equal(sum, want[:ticketChecksum]) {
		return ticket{}, damaged
	}
	var t ticket
	if !t.split(b) {
		return ticket{}, invalid("the %s has an unknown form: it may come from another release", what)
	}
	return t, nil
}

// split cuts the members apart.
func (t *ticket) split(b []byte) bool {
	for _, member := range []*string{&t.label, &t.address} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return false
		}
		*member = string(b[1 : 1+int(b[0])])
		b = b[1+int(b[0]):]
	}
	if len(b) != sha256.Size+ticketSecret+8 {
		return false
	}
	copy(t.rootHash[:], b)
	t.secret = NewSecret(encode(b[sha256.Size : sha256.Size+ticketSecret]))
	expires := binary.BigEndian.Uint64(b[sha256.Size+ticketSecret:])
	host, port, err := net.SplitHostPort(t.address)
	if err != nil || host == "" || port == "" || strings.ContainsAny(t.address, "/?#@ \\") || expires == 0 || expires > 253402300799 { // the year 9999
		return false
	}
	t.expires = time.Unix(int64(expires), 0).UTC()
	return true
}
