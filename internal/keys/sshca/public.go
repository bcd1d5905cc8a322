package sshca

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"math/bits"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// MaxPublicKey is the longest accepted public key line, in bytes.
const MaxPublicKey = 8 << 10

// publicKey is an accepted public key.
type publicKey struct {
	algorithm string
	wire      []byte // begins with the algorithm
}

// line is the authorized_keys form without a line break.
func (k publicKey) line() string { return textLine(k.algorithm, k.wire) }

// parts is the wire form after the algorithm.
func (k publicKey) parts() []byte { return k.wire[4+len(k.algorithm):] }

func ed25519Key(key ed25519.PublicKey) publicKey {
	wire := append(make([]byte, 0, ed25519Wire), ed25519Head...)
	return publicKey{ssh.KeyAlgoED25519, append(wire, key...)}
}

// An Ed25519 key in wire form: its algorithm, and a string of 32 bytes.
const (
	ed25519Head = "\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
	ed25519Wire = len(ed25519Head) + ed25519.PublicKeySize
)

// ParsePublicKey reads one authorized_keys line of a subject: key and an
// optional comment, without options. Ed25519, ECDSA, their security-key forms
// and RSA of 2048 to 8192 bits are accepted; all else is Invalid. The result is
// the line in canonical form, without the comment.
func ParsePublicKey(text string) (string, error) {
	k, err := parsePublic(text)
	if err != nil {
		return "", err
	}
	return k.line(), nil
}

func parsePublic(text string) (publicKey, error) {
	text = strings.TrimRight(text, "\r\n")
	if len(text) > MaxPublicKey || strings.ContainsAny(text, "\r\n\x00") {
		return publicKey{}, fault.Invalidf("the SSH public key must be one line of at most %d bytes", MaxPublicKey)
	}
	if k, ok := plainEd25519(text); ok {
		return k, nil
	}
	k, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(options) > 0 || len(rest) > 0 {
		return publicKey{}, fault.Invalidf("the SSH public key is not a line like `ssh-ed25519 AAAA... comment`")
	}
	wire := k.Marshal()
	switch k.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
	case ssh.KeyAlgoRSA:
		if size := rsaBits(wire); size < 2048 || size > 8192 {
			return publicKey{}, fault.Invalidf("an RSA key of %d bits is not accepted: use 2048 to 8192, or better Ed25519", size)
		}
	default:
		return publicKey{}, fault.Invalidf("SSH keys of type %.40q are not accepted: use ssh-ed25519", k.Type())
	}
	return publicKey{k.Type(), wire}, nil
}

// plainEd25519 reads the usual line: it is read several times for each
// certificate, and the library takes twenty times as long. What is not exactly
// of this form is left to the library.
func plainEd25519(text string) (publicKey, bool) {
	rest, ok := strings.CutPrefix(text, ssh.KeyAlgoED25519+" ")
	if !ok {
		return publicKey{}, false
	}
	rest, _, _ = strings.Cut(rest, " ")
	if len(rest) != base64.StdEncoding.EncodedLen(ed25519Wire) {
		return publicKey{}, false
	}
	wire, err := base64.StdEncoding.AppendDecode(make([]byte, 0, ed25519Wire), []byte(rest))
	if err != nil || len(wire) != ed25519Wire || !bytes.HasPrefix(wire, []byte(ed25519Head)) {
		return publicKey{}, false
	}
	return publicKey{ssh.KeyAlgoED25519, wire}, true
}

// rsaBits reads the modulus out of the wire form: string type, mpint e, mpint n.
func rsaBits(wire []byte) int {
	in := reader{b: wire}
	in.string()
	in.string()
	n := bytes.TrimLeft(in.string(), "\x00")
	if len(n) == 0 {
		return 0
	}
	return 8*(len(n)-1) + bits.Len8(n[0])
}
