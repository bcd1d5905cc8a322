package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// The host's parameters. Numbers are decimal strings.
const (
	hostSerial      = "serial"
	hostKeyID       = "key_id"
	hostPublicKey   = "public_key"    // a line as in authorized_keys
	hostCAPublicKey = "ca_public_key" // likewise
	hostValidAfter  = "valid_after"   // Unix seconds
	hostValidBefore = "valid_before"  // Unix seconds
)

// backdate is how much earlier than now a certificate may begin.
const backdate = 2 * time.Minute

const (
	maxKeyID   = 512
	minRSABits = 2048
	maxKeyLine = 16 << 10
)

// frame is what the host decides about a certificate.
type frame struct {
	serial        uint64
	keyID         string
	key, ca       publicKey
	after, before time.Time
}

// publicKey is a key in the form of the SSH protocol.
type publicKey struct {
	algorithm string
	blob      []byte
}

// issuer remembers the authority's key, which is the same with nearly every call.
// The zero value remembers nothing. Safe for concurrent use.
type issuer struct{ last atomic.Pointer[known] }

type known struct {
	line string
	key  publicKey
}

func (i *issuer) authority(line string) (publicKey, error) {
	if k := i.last.Load(); k != nil && k.line == line {
		return k.key, nil
	}
	key, err := parseKey(line)
	if err == nil {
		i.last.Store(&known{line, key})
	}
	return key, err
}

func (i *issuer) frame(host map[string]string) (frame, error) {
	var f frame
	var err error
	if f.serial, err = strconv.ParseUint(host[hostSerial], 10, 64); err != nil || f.serial == 0 {
		return frame{}, plugin.Invalidf("the host must give a serial number")
	}
	f.keyID = host[hostKeyID]
	if f.keyID == "" || len(f.keyID) > maxKeyID || strings.ContainsFunc(f.keyID, unicode.IsControl) {
		return frame{}, plugin.Invalidf("the host must give a key id of at most %d bytes", maxKeyID)
	}
	if f.key, err = parseKey(host[hostPublicKey]); err != nil {
		return frame{}, plugin.Invalidf("the subject's public key is not usable: %s", err)
	}
	if f.ca, err = i.authority(host[hostCAPublicKey]); err != nil {
		return frame{}, plugin.Invalidf("the authority's public key is not usable: %s", err)
	}
	after, err := strconv.ParseUint(host[hostValidAfter], 10, 62)
	if err != nil {
		return frame{}, plugin.Invalidf("the host must give the begin of validity")
	}
	before, err := strconv.ParseUint(host[hostValidBefore], 10, 62)
	if err != nil || before <= after {
		return frame{}, plugin.Invalidf("the host must give an end of validity after its begin")
	}
	f.after, f.before = time.Unix(int64(after), 0).UTC(), time.Unix(int64(before), 0).UTC()
	return f, nil
}

// parseKey reads one line as in authorized_keys: a plain key that is strong
// enough, without options.
func parseKey(line string) (publicKey, error) {
	if len(line) > maxKeyLine {
		return publicKey{}, fmt.Errorf("it is too long")
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return publicKey{}, fmt.Errorf("it is no line as in authorized_keys")
	}
	if len(options) != 0 || len(strings.TrimSpace(string(rest))) != 0 {
		return publicKey{}, fmt.Errorf("it must be one key without options")
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return publicKey{key.Type(), key.Marshal()}, nil
	case ssh.KeyAlgoRSA:
		crypto, ok := key.(ssh.CryptoPublicKey)
		if !ok {
			return publicKey{}, fmt.Errorf("it cannot be read")
		}
		if r, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); !ok || r.N.BitLen() < minRSABits {
			return publicKey{}, fmt.Errorf("RSA keys need at least %d bits", minRSABits)
		}
		return publicKey{key.Type(), key.Marshal()}, nil
	default:
		return publicKey{}, fmt.Errorf("keys of type %s are not certified", key.Type())
	}
}

// toBeSigned is the certificate up to and including the signature key, as
// PROTOCOL.certkeys lays it out.
func (s certScope) toBeSigned(f frame) ([]byte, error) {
	if f.before.Sub(f.after) > s.ttl+backdate {
		return nil, plugin.Deniedf("the validity is longer than the time to live")
	}
	if s.key != "" {
		if asked, err := parseKey(s.key); err != nil || !bytes.Equal(asked.blob, f.key.blob) {
			return nil, plugin.Invalidf("public_key is not the key that the host certifies")
		}
	}
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("make nonce: %w", err)
	}
	numbers, ok := f.key.numbers()
	if !ok {
		return nil, fmt.Errorf("the subject's key has no form that is known")
	}
	b := make([]byte, 0, 1024)
	b = appendString(b, strings.TrimSuffix(f.key.algorithm, "@openssh.com")+"-cert-v01@openssh.com")
	b = append(appendString(b, nonce), numbers...)
	b = binary.BigEndian.AppendUint64(b, f.serial)
	b = binary.BigEndian.AppendUint32(b, ssh.UserCert)
	b = appendString(b, f.keyID)
	b = appendString(b, packed(s.principals))
	b = binary.BigEndian.AppendUint64(b, uint64(f.after.Unix()))  //nolint:gosec // never negative
	b = binary.BigEndian.AppendUint64(b, uint64(f.before.Unix())) //nolint:gosec // never negative
	b = appendString(b, s.options())
	b = appendString(b, s.permits())
	b = appendString(b, "") // reserved
	return appendString(b, f.ca.blob), nil
}

// numbers is the key without the name of its algorithm: what a certificate
// repeats of it.
func (k publicKey) numbers() ([]byte, bool) {
	head := appendString(nil, k.algorithm)
	return bytes.CutPrefix(k.blob, head)
}

// options are the critical options, sorted by name, as sshd demands.
func (s certScope) options() []byte {
	var b []byte
	if s.command != "" {
		b = appendString(appendString(b, "force-command"), appendString(nil, s.command))
	}
	if s.addresses != nil {
		b = appendString(appendString(b, "source-address"), appendString(nil, strings.Join(s.addresses, ",")))
	}
	return b
}

// permits are the extensions, sorted by name, each without data.
func (s certScope) permits() []byte {
	var b []byte
	for _, e := range slices.Sorted(slices.Values(s.extensions)) {
		b = appendString(appendString(b, e), "")
	}
	return b
}

// packed is a list as one string.
func packed(list []string) []byte {
	var b []byte
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// appendString appends a string of RFC 4251, section 5.
func appendString[S string | []byte](b []byte, s S) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // the host's message limit is far below
	return append(b, s...)
}
