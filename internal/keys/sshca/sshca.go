// Package sshca signs OpenSSH user certificates that someone else composed, and
// writes the lists that take them back.
//
// A plugin decides what a certificate says and never holds the key: it returns
// the bytes to be signed (PROTOCOL.certkeys), and [Issuer.Sign] takes them apart,
// compares every field with what was granted, and refuses on any that is wider,
// longer or unknown. Revocation is a binary key revocation list (PROTOCOL.krl)
// by serial, for sshd's RevokedKeys.
package sshca

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// Generate makes an SSH CA key (Ed25519). The row's Public is the line for
// sshd's TrustedUserCAKeys.
func Generate(ctx context.Context, v *keys.Vault) (keys.Key, error) {
	k, err := v.Generate(ctx, keys.SSHCA, keys.Ed25519)
	if err != nil {
		return keys.Key{}, err
	}
	signer, err := v.Signer(ctx, k)
	if err != nil {
		return keys.Key{}, err
	}
	public, err := ssh.NewPublicKey(signer.Public())
	if err != nil {
		return keys.Key{}, fault.Wrap(err, "encode the SSH CA's public key")
	}
	k.Public = line(public)
	return k, nil
}

// Issuer signs with one SSH CA key. It never changes after it was made and is
// safe for concurrent use.
type Issuer struct {
	signer ssh.Signer
	rand   io.Reader
	inside bool // the key lies in this process's memory, not in a device
}

// Load opens the key of a row of purpose ssh-ca.
func Load(ctx context.Context, v *keys.Vault, k keys.Key) (*Issuer, error) {
	if k.Purpose != keys.SSHCA || k.State != keys.Active {
		return nil, fault.Internalf("key %s is a %s %s key, not an active SSH CA", k.ID, k.State, k.Purpose)
	}
	signer, err := v.Signer(ctx, k)
	if err != nil {
		return nil, err
	}
	i, err := New(signer)
	if err != nil {
		return nil, err
	}
	if i.Public() != k.Public {
		return nil, fault.Internalf("SSH CA key %s: public and private part do not belong together", k.ID)
	}
	return i, nil
}

// New makes an issuer of an Ed25519 signer, in memory or in a device.
func New(signer crypto.Signer) (*Issuer, error) {
	if _, ok := signer.Public().(ed25519.PublicKey); !ok {
		return nil, fault.Internalf("an SSH CA key must be Ed25519")
	}
	_, inside := signer.(ed25519.PrivateKey)
	s, err := ssh.NewSignerFromSigner(signer)
	if err != nil {
		return nil, fault.Wrap(err, "use the SSH CA key")
	}
	return &Issuer{signer: s, rand: rand.Reader, inside: inside}, nil
}

// Public is the CA's key as an authorized_keys line without a line break.
func (i *Issuer) Public() string { return line(i.signer.PublicKey()) }

// line is the authorized_keys form without its line break.
func line(k ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k)), "\n")
}

// MaxPublicKey is the longest accepted public key line, in bytes.
const MaxPublicKey = 8 << 10

// ParsePublicKey reads one authorized_keys line of a subject: key and an
// optional comment, without options. Ed25519, ECDSA, their security-key forms
// and RSA of 2048 to 8192 bits are accepted; all else is Invalid. The result is
// the line in canonical form, without the comment.
func ParsePublicKey(text string) (string, error) {
	k, err := parsePublic(text)
	if err != nil {
		return "", err
	}
	return line(k), nil
}

func parsePublic(text string) (ssh.PublicKey, error) {
	text = strings.TrimRight(text, "\r\n")
	if len(text) > MaxPublicKey || strings.ContainsAny(text, "\r\n\x00") {
		return nil, fault.Invalidf("the SSH public key must be one line of at most %d bytes", MaxPublicKey)
	}
	k, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(options) > 0 || len(rest) > 0 {
		return nil, fault.Invalidf("the SSH public key is not a line like `ssh-ed25519 AAAA... comment`")
	}
	switch k.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
		return k, nil
	case ssh.KeyAlgoRSA:
		if bits := rsaBits(k); bits < 2048 || bits > 8192 {
			return nil, fault.Invalidf("an RSA key of %d bits is not accepted: use 2048 to 8192, or better Ed25519", bits)
		}
		return k, nil
	}
	return nil, fault.Invalidf("SSH keys of type %.40q are not accepted: use ssh-ed25519", k.Type())
}

// rsaBits reads the modulus out of the wire form: string type, mpint e, mpint n.
func rsaBits(k ssh.PublicKey) int {
	b := k.Marshal()
	for range 2 {
		if len(b) < 4 {
			return 0
		}
		size := int64(binary.BigEndian.Uint32(b))
		if b = b[4:]; int64(len(b)) < size {
			return 0
		}
		b = b[size:]
	}
	if len(b) < 5 {
		return 0
	}
	n := b[4:]
	for len(n) > 0 && n[0] == 0 {
		n = n[1:]
	}
	if len(n) == 0 {
		return 0
	}
	bits := 8 * len(n)
	for mask := byte(0x80); mask > 0 && n[0]&mask == 0; mask >>= 1 {
		bits--
	}
	return bits
}

// FreshPair makes an Ed25519 pair for a subject that brings no key: the public
// line, and the private key in OpenSSH's PEM without a passphrase.
func FreshPair(comment string) (public string, private secret.Bytes, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", secret.Bytes{}, fault.Wrap(err, "generate an SSH key")
	}
	defer clear(key)
	encoded, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", secret.Bytes{}, fault.Wrap(err, "encode an SSH key")
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return "", secret.Bytes{}, fault.Wrap(err, "encode an SSH key")
	}
	defer clear(block.Bytes)
	return line(encoded), secret.New(pem.EncodeToMemory(block)), nil
}

// NewSerial draws a serial: 64 random bits without zero, which OpenSSH takes for
// "no serial" and no list can revoke.
func NewSerial(random io.Reader) (uint64, error) {
	if random == nil {
		random = rand.Reader
	}
	var b [8]byte
	for {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return 0, fault.Wrap(err, "read randomness for a serial")
		}
		if n := binary.BigEndian.Uint64(b[:]); n != 0 {
			return n, nil
		}
	}
}

// Params are what the host tells the plugin that composes the certificate. All
// values are strings, numbers in decimal, times in seconds since the epoch.
func (i *Issuer) Params(d Decision) map[string]string {
	return map[string]string{
		"host.serial":        strconv.FormatUint(d.Serial, 10),
		"host.key_id":        d.KeyID,
		"host.public_key":    d.PublicKey,
		"host.ca_public_key": i.Public(),
		"host.valid_after":   strconv.FormatInt(d.ValidAfter.Unix(), 10),
		"host.valid_before":  strconv.FormatInt(d.ValidBefore.Unix(), 10),
	}
}

// Backdate is how far before its making a certificate begins, for servers whose
// clock is behind (docs/decisions, clock).
const Backdate = 60 * time.Second
