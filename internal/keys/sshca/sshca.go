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
	"io"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
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
	i, err := New(signer)
	if err != nil {
		return keys.Key{}, err
	}
	k.Public = i.Public()
	return k, nil
}

// Issuer signs with one SSH CA key. It never changes after it was made and is
// safe for concurrent use.
type Issuer struct {
	signer crypto.Signer
	key    ed25519.PublicKey
	wire   []byte // the public key in wire form
	public string // and as a line
	rand   io.Reader
	inside bool // the key lies in this process's memory, not in a device
}

// Load opens the key of a row of purpose ssh-ca: the active one, or one that
// retires, which finishes the certificates that were begun under it.
func Load(ctx context.Context, v *keys.Vault, k keys.Key) (*Issuer, error) {
	if k.Purpose != keys.SSHCA || k.State == keys.Retired {
		return nil, fault.Internalf("key %s is a %s %s key, not an SSH CA that signs", k.ID, k.State, k.Purpose)
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
	key, ok := signer.Public().(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return nil, fault.Internalf("an SSH CA key must be Ed25519")
	}
	_, inside := signer.(ed25519.PrivateKey)
	p := ed25519Key(key)
	return &Issuer{signer: signer, key: key, wire: p.wire, public: p.line(), rand: rand.Reader, inside: inside}, nil
}

// Public is the CA's key as an authorized_keys line without a line break.
func (i *Issuer) Public() string { return i.public }

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
