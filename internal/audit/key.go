package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-project/sallyport/internal/fault"
)

const maxOrigin = 200

// VerifierKey is the public key as C2SP signed-note writes it,
// <origin>+<key id>+<base64>: what an auditor is given.
func VerifierKey(origin string, key ed25519.PublicKey) (string, error) {
	if err := checkOrigin(origin); err != nil {
		return "", err
	}
	vkey, err := note.NewEd25519VerifierKey(origin, key)
	if err != nil {
		return "", fault.Invalidf("the ledger's public key is not an Ed25519 key").Because(err)
	}
	return vkey, nil
}

func checkOrigin(origin string) error {
	if origin == "" || len(origin) > maxOrigin || !utf8.ValidString(origin) || strings.Contains(origin, "+") ||
		strings.ContainsFunc(origin, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fault.Invalidf("the ledger's origin must be 1 to %d bytes without spaces and plus signs", maxOrigin)
	}
	if origin == rotationHeader {
		return fault.Invalidf("the ledger's origin is a reserved word")
	}
	return nil
}

// Signer signs checkpoints. It prints as its public key. Safe for concurrent
// use.
type Signer struct {
	origin string
	vkey   string
	id     uint32
	key    ed25519.PrivateKey
}

// NewSigner makes the signer of the ledger named origin.
func NewSigner(origin string, key ed25519.PrivateKey) (*Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fault.Invalidf("the ledger's signing key is not an Ed25519 key")
	}
	pub, _ := key.Public().(ed25519.PublicKey)
	vkey, err := VerifierKey(origin, pub)
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fault.Wrap(err, "read own verifier key")
	}
	return &Signer{origin, vkey, v.KeyHash(), key}, nil
}

// Origin is the name of the ledger.
func (s *Signer) Origin() string { return s.origin }

// VerifierKey is the public key as [VerifierKey] writes it.
func (s *Signer) VerifierKey() string { return s.vkey }

// ID names the key as checkpoints do: <origin>+<8 hex digits>.
func (s *Signer) ID() string { return keyID(s.origin, s.id) }

// Format prints the public key, whatever the verb.
func (s *Signer) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.vkey)) }

// LogValue is the public key.
func (s *Signer) LogValue() slog.Value { return slog.StringValue(s.vkey) }

// noteSigner is the form that the note library takes.
type noteSigner struct{ s *Signer }

func (n noteSigner) Name() string                     { return n.s.origin }
func (n noteSigner) KeyHash() uint32                  { return n.s.id }
func (n noteSigner) Sign(text []byte) ([]byte, error) { return ed25519.Sign(n.s.key, text), nil }

func (s *Signer) sign(text string) (string, error) {
	signed, err := note.Sign(&note.Note{Text: text}, noteSigner{s})
	return string(signed), fault.Wrap(err, "sign note")
}

// Keys are the public keys that somebody trusts for a ledger. After a rotation
// there are several, and old notes stay verifiable. The zero value trusts
// nothing.
type Keys struct {
	vkeys []string
	list  note.Verifiers
}

// NewKeys reads verifier keys. None, or a malformed one, is Invalid.
func NewKeys(vkeys ...string) (Keys, error) {
	if len(vkeys) == 0 {
		return Keys{}, fault.Invalidf("name at least one public key of the ledger")
	}
	var list []note.Verifier
	seen := make(map[string]bool)
	for _, vkey := range vkeys {
		v, err := note.NewVerifier(vkey)
		if err != nil || checkOrigin(v.Name()) != nil {
			return Keys{}, fault.Invalidf("a public key of the ledger is malformed; it looks like <origin>+<8 hex digits>+<base64>").Because(err)
		}
		if !seen[keyID(v.Name(), v.KeyHash())] { // a repeated key would be ambiguous
			list = append(list, v)
		}
		seen[keyID(v.Name(), v.KeyHash())] = true
	}
	return Keys{append([]string(nil), vkeys...), note.VerifierList(list...)}, nil
}

// Strings are the verifier keys as they were given.
func (k Keys) Strings() []string { return append([]string(nil), k.vkeys...) }

func keyID(name string, hash uint32) string { return fmt.Sprintf("%s+%08x", name, hash) }

// maxNote bounds a signed note: a checkpoint with room for cosignatures.
const maxNote = 16 << 10

// open returns the text of a note that one of the keys signed in the name of
// origin, and that key's id. origin is found from the text by the caller's
// function. Signatures of others are ignored, as signed-note demands.
func (k Keys) open(signed string, origin func(text string) (string, error)) (text, id string, err error) {
	if len(signed) > maxNote {
		return "", "", fault.Invalidf("the signed note is larger than %d bytes", maxNote)
	}
	n, err := note.Open([]byte(signed), k.list)
	if _, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		return "", "", fault.Deniedf("the note is not signed by any of the given keys").Because(err)
	}
	if _, ok := errors.AsType[*note.InvalidSignatureError](err); ok {
		return "", "", fault.Deniedf("the note's signature does not hold").Because(err)
	}
	if err != nil {
		return "", "", fault.Invalidf("this is not a signed note").Because(err)
	}
	name, err := origin(n.Text)
	if err != nil {
		return "", "", err
	}
	for _, sig := range n.Sigs {
		// One signature has one text, so that no byte of a note is free.
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return "", "", fault.Invalidf("this is not a signed note").Because(err)
		}
		if sig.Name == name {
			return n.Text, keyID(sig.Name, sig.Hash), nil
		}
	}
	return "", "", fault.Deniedf("the note is signed in the name of another ledger")
}
