package sshca

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// FreshPair makes an Ed25519 pair for a subject that brings no key: the public
// line, and the private key in OpenSSH's PEM without a passphrase.
func FreshPair(comment string) (public string, private secret.Bytes, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", secret.Bytes{}, fault.Wrap(err, "generate an SSH key")
	}
	defer clear(key)
	k := ed25519Key(pub)
	file := privateFile(k, key, comment)
	defer clear(file)
	return k.line(), secret.New(pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: file})), nil
}

// privateFile is the form of PROTOCOL.key: one key, not encrypted.
func privateFile(k publicKey, key ed25519.PrivateKey, comment string) []byte {
	const (
		magic = "openssh-key-v1\x00"
		none  = "none" // cipher, and key derivation
		block = 8      // to which the private part is padded when it is not encrypted
	)
	// Both copies of the check number are equal, by which a passphrase is told to
	// be right; without one they say nothing, and need not be random.
	size := 2*4 + 4 + len(ssh.KeyAlgoED25519) + 4 + ed25519.PublicKeySize + 4 + ed25519.PrivateKeySize + 4 + len(comment)
	padding := (block - size%block) % block
	b := make([]byte, 0, len(magic)+2*(4+len(none))+4+4+4+len(k.wire)+4+size+padding)
	b = append(b, magic...)
	b = appendString(appendString(b, none), none)
	b = appendString(b, "")   // options of the key derivation
	b = append(b, 0, 0, 0, 1) // number of keys
	b = appendString(b, k.wire)
	b = binary.BigEndian.AppendUint32(b, uint32(size+padding)) //nolint:gosec // a comment is short
	b = append(b, make([]byte, 2*4)...)
	b = append(b, k.wire...) // algorithm and public key
	b = appendString(b, key) // seed and public key
	b = appendString(b, comment)
	for n := range padding {
		b = append(b, byte(n+1))
	}
	return b
}
