// Package handover is the document that the command line hands to a CLI plugin:
// where the server is, and a short session for this one invocation.
//
// It is JSON, written once to a pipe whose other end the process finds open as
// descriptor 3. docs/plugins/cli.md has it in words.
package handover

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Schema names the format of the document.
const Schema = "sallyport.handover/v1"

// Variable is the variable of the environment that says on which descriptor the
// document is: 3, or on Windows the number of a handle. Without it a program was
// not started by the command line.
const Variable = "SALLYPORT_HANDOVER"

// MaxBytes is the size of a document, so that a pipe holds it as a whole.
const MaxBytes = 32 << 10

// Document is what is handed over. A member that is absent is not known, or was
// not granted.
type Document struct {
	Schema  string `json:"schema"`
	Plugin  string `json:"plugin"`
	Version string `json:"version"`
	// Command is the command that the user has typed; it is the first argument
	// of the process too.
	Command string `json:"command"`
	// EntryPoints are those of the package's CLI plugins in Python, by name.
	EntryPoints map[string]string `json:"entry_points,omitempty"`

	Output  string `json:"output"`            // how the user wants to read: table, json or yaml
	Context string `json:"context,omitempty"` // name of the user's context
	URL     string `json:"url,omitempty"`     // of the server
	CA      string `json:"ca,omitempty"`      // PEM of the authorities to trust there; absent: the system's

	// Session is what the plugin may act with; absent if its manifest asks for no
	// scopes, or if there is none: then NoSession says why, and what to do.
	Session   *Session `json:"session,omitempty"`
	NoSession string   `json:"no_session,omitempty"`
}

// Session is a delegated session. Each request needs a proof of possession of
// its key (RFC 9449; docs/api.md). It ends with the process.
type Session struct {
	Token     string    `json:"token"`
	TokenType string    `json:"token_type"` // DPoP
	ExpiresAt time.Time `json:"expires_at"`
	Scopes    []string  `json:"scopes"`
	Key       Key       `json:"key"`
}

// Key is an Ed25519 private key as a JWK (RFC 8037).
type Key struct {
	Kty string `json:"kty"` // OKP
	Crv string `json:"crv"` // Ed25519
	X   string `json:"x"`   // public key, base64url
	D   string `json:"d"`   // seed, base64url
}

// NewKey writes a key as a JWK.
func NewKey(key ed25519.PrivateKey) Key {
	public := key[ed25519.SeedSize:]
	return Key{Kty: "OKP", Crv: "Ed25519", X: base64.RawURLEncoding.EncodeToString(public), D: base64.RawURLEncoding.EncodeToString(key.Seed())}
}

// Private reads the key.
func (k Key) Private() (ed25519.PrivateKey, error) {
	seed, err := base64.RawURLEncoding.DecodeString(k.D)
	if err != nil || k.Kty != "OKP" || k.Crv != "Ed25519" || len(seed) != ed25519.SeedSize {
		return nil, errors.New("the session's key is no Ed25519 key")
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// Bytes writes a document.
func (d Document) Bytes() ([]byte, error) {
	d.Schema = Schema
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode handover: %w", err)
	}
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("the handover is larger than %d bytes", MaxBytes)
	}
	return text, nil
}

// Parse reads a document. Members that a later version adds are ignored.
func Parse(text []byte) (Document, error) {
	var d Document
	if len(text) > MaxBytes {
		return d, fmt.Errorf("the handover is larger than %d bytes", MaxBytes)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, fmt.Errorf("read handover: %w", err)
	}
	if d.Schema != Schema {
		return d, fmt.Errorf("the handover has schema %.64q, and this program knows %q", d.Schema, Schema)
	}
	return d, nil
}
