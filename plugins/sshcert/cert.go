package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strconv"
	"strings"
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
	key, ca       ssh.PublicKey
	after, before time.Time
}

func parseFrame(host map[string]string) (frame, error) {
	var f frame
	var err error
	if f.serial, err = strconv.ParseUint(host[hostSerial], 10, 64); err != nil || f.serial == 0 {
		return frame{}, plugin.Invalidf("the host must give a serial number")
	}
	f.keyID = host[hostKeyID]
	if f.keyID == "" || len(f.keyID) > maxKeyID || strings.ContainsFunc(f.keyID, unicode.IsControl) {
		return frame{}, plugin.Invalidf("the host must give a key id of at most %d bytes", maxKeyID)
	}
	if f.key, err = publicKey(host[hostPublicKey]); err != nil {
		return frame{}, plugin.Invalidf("the subject's public key is not usable: %s", err)
	}
	if f.ca, err = publicKey(host[hostCAPublicKey]); err != nil {
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

// publicKey reads one line as in authorized_keys: a plain key that is strong
// enough, without options.
func publicKey(line string) (ssh.PublicKey, error) {
	if len(line) > maxKeyLine {
		return nil, fmt.Errorf("it is too long")
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, fmt.Errorf("it is no line as in authorized_keys")
	}
	if len(options) != 0 || len(strings.TrimSpace(string(rest))) != 0 {
		return nil, fmt.Errorf("it must be one key without options")
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return key, nil
	case ssh.KeyAlgoRSA:
		crypto, ok := key.(ssh.CryptoPublicKey)
		if !ok {
			return nil, fmt.Errorf("it cannot be read")
		}
		if r, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); !ok || r.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("RSA keys need at least %d bits", minRSABits)
		}
		return key, nil
	default:
		return nil, fmt.Errorf("keys of type %s are not certified", key.Type())
	}
}

// toBeSigned is the certificate up to and including the signature key.
func (s certScope) toBeSigned(f frame) ([]byte, error) {
	if f.before.Sub(f.after) > s.ttl+backdate {
		return nil, plugin.Deniedf("the validity is longer than the time to live")
	}
	if s.key != "" {
		if asked, err := publicKey(s.key); err != nil || !bytes.Equal(asked.Marshal(), f.key.Marshal()) {
			return nil, plugin.Invalidf("public_key is not the key that the host certifies")
		}
	}
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("make nonce: %w", err)
	}
	c := ssh.Certificate{
		Nonce: nonce, Key: f.key, Serial: f.serial, CertType: ssh.UserCert, KeyId: f.keyID,
		ValidPrincipals: s.principals,
		ValidAfter:      uint64(f.after.Unix()),  //nolint:gosec // never negative
		ValidBefore:     uint64(f.before.Unix()), //nolint:gosec // never negative
		Permissions:     ssh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{}},
		SignatureKey:    f.ca,
	}
	if s.addresses != nil {
		c.CriticalOptions["source-address"] = strings.Join(s.addresses, ",")
	}
	if s.command != "" {
		c.CriticalOptions["force-command"] = s.command
	}
	for _, e := range s.extensions {
		c.Extensions[e] = ""
	}
	// Marshal ends with the signature as a string; an absent one is four bytes of
	// length, which are not signed.
	blob := c.Marshal()
	return blob[:len(blob)-4], nil
}
