package ca

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// ticket is what join tokens and upload tokens have in common: where the server
// is and how it is recognised, so that the secret goes to no other.
//
// Its text is a prefix and unpadded base64url of
//
//	byte      length of label, label
//	byte      length of address, address
//	32 bytes  SHA-256 of the root's public key
//	32 bytes  secret
//	8 bytes   expiry, seconds since the epoch, big-endian
//	4 bytes   first bytes of SHA-256 over prefix and all of the above
type ticket struct {
	label   string
	address string // host:port
	keyHash [sha256.Size]byte
	secret  secret.Bytes // 32 bytes
	expires time.Time    // whole seconds
}

// form is one kind of ticket.
type form struct {
	prefix string
	what   string // for messages
	label  func(string) error
}

const (
	ticketSecret   = 32
	ticketChecksum = 4
	maxTicket      = 600 // characters
)

var (
	hostGrammar = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$`)
	portGrammar = regexp.MustCompile(`^[1-9][0-9]{0,4}$`)
)

func (f form) validate(t ticket) error {
	if err := validAddress(t.address); err != nil {
		return err
	}
	if err := f.label(t.label); err != nil {
		return err
	}
	switch {
	case t.secret.Len() != ticketSecret:
		return fault.Invalidf("a %s needs a secret of %d bytes", f.what, ticketSecret)
	case t.expires.Unix() <= 0 || t.expires.Year() > 9999:
		return fault.Invalidf("a %s needs an end between 1970 and 9999", f.what)
	}
	return nil
}

func validAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || len(address) > 255 || !validHost(host) || !portGrammar.MatchString(port) {
		return fault.Invalidf("address %.64q is not host:port", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n > 65535 {
		return fault.Invalidf("address %.64q has no port between 1 and 65535", address)
	}
	if net.JoinHostPort(host, port) != address {
		return fault.Invalidf("address %.64q is not host:port", address)
	}
	return nil
}

func validHost(host string) bool { return net.ParseIP(host) != nil || hostGrammar.MatchString(host) }

// text is the whole ticket, to be shown once. One that parse would not take is
// Invalid.
func (f form) text(t ticket) (secret.Bytes, error) {
	t.expires = t.expires.Truncate(time.Second)
	if err := f.validate(t); err != nil {
		return secret.Bytes{}, err
	}
	b := make([]byte, 0, maxTicket)
	b = append(append(b, byte(len(t.label))), t.label...)     //nolint:gosec // at most 63
	b = append(append(b, byte(len(t.address))), t.address...) //nolint:gosec // at most 255
	b = append(append(b, t.keyHash[:]...), t.secret.Reveal()...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.expires.Unix())) //nolint:gosec // positive
	b = append(b, f.sum(b)...)
	defer clear(b)
	return secret.New(base64.RawURLEncoding.AppendEncode([]byte(f.prefix), b)), nil
}

// parse reads the text of a ticket, without white space around it. Any other
// text is Invalid; the fault never repeats it.
func (f form) parse(text secret.Bytes) (ticket, error) {
	raw := text.Reveal()
	if len(raw) > maxTicket {
		return ticket{}, fault.Invalidf("the %s is longer than %d characters", f.what, maxTicket)
	}
	if len(raw) < len(f.prefix) || string(raw[:len(f.prefix)]) != f.prefix {
		return ticket{}, fault.Invalidf("this is no %s: it must begin with %s", f.what, f.prefix)
	}
	encoded := raw[len(f.prefix):]
	b := make([]byte, base64.RawURLEncoding.DecodedLen(len(encoded)))
	n, err := base64.RawURLEncoding.Strict().Decode(b, encoded)
	if err != nil || base64.RawURLEncoding.EncodedLen(n) != len(encoded) { // the decoder skips line breaks
		return ticket{}, fault.Invalidf("the %s is damaged: copy it again as a whole", f.what)
	}
	b = b[:n]
	if n < ticketChecksum || subtle.ConstantTimeCompare(f.sum(b[:n-ticketChecksum]), b[n-ticketChecksum:]) != 1 {
		return ticket{}, fault.Invalidf("the %s is damaged: copy it again as a whole", f.what)
	}
	t, ok := splitTicket(b[:n-ticketChecksum])
	if !ok {
		return ticket{}, fault.Invalidf("the %s has an unknown form: it may come from another release", f.what)
	}
	return t, f.validate(t)
}

// splitTicket cuts the members apart.
func splitTicket(b []byte) (ticket, bool) {
	var t ticket
	for _, member := range []*string{&t.label, &t.address} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return t, false
		}
		*member = string(b[1 : 1+int(b[0])])
		b = b[1+int(b[0]):]
	}
	if len(b) != sha256.Size+ticketSecret+8 {
		return t, false
	}
	copy(t.keyHash[:], b)
	t.secret = secret.New(append([]byte(nil), b[sha256.Size:sha256.Size+ticketSecret]...))
	expires := binary.BigEndian.Uint64(b[sha256.Size+ticketSecret:])
	if expires > 253402300799 { // the end of the year 9999
		return t, false
	}
	t.expires = time.Unix(int64(expires), 0).UTC()
	return t, true
}

// sum finds typing and copying errors; it is no protection.
func (f form) sum(b []byte) []byte {
	h := sha256.New()
	h.Write([]byte(f.prefix))
	h.Write(b)
	return h.Sum(nil)[:ticketChecksum]
}
