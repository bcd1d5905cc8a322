// Package file keeps the key encryption key in a file outside of the data
// directory, readable by its owner alone.
//
// A stolen data directory, or its backup, opens nothing without this file; a
// lost file loses every sealed value. The package does not protect against root
// on the same machine: PKCS#11 and cloud adapters do that.
//
// The file is text of exactly three lines:
//
//	sallyport-kek-1
//	id: 01JD3Y6Z8K4T5N0QH2W7VXR9BM
//	key: <32 bytes in standard base64>
package file

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"io"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/secret"
)

const (
	magic    = "sallyport-kek-1"
	maxBytes = 512 // the file has about 100
	keyBytes = 32
)

// key is one key of one file.
type key struct {
	id       string
	material secret.Bytes
}

// parse reads the text of a key file. Anything but the exact form, up to one
// trailing newline, is Invalid; the text says what is wrong and repeats nothing
// of the key.
func parse(text []byte) (key, error) {
	if len(text) > maxBytes {
		return key{}, fault.Invalidf("it is longer than %d bytes", maxBytes)
	}
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	if len(lines) != 3 || string(lines[0]) != magic {
		return key{}, fault.Invalidf("it is not a key file: three lines are expected, the first being %q", magic)
	}
	name, ok := bytes.CutPrefix(lines[1], []byte("id: "))
	if !ok || !id.Valid(string(name)) {
		return key{}, fault.Invalidf("its second line must be `id: ` and a ULID")
	}
	encoded, ok := bytes.CutPrefix(lines[2], []byte("key: "))
	if !ok || len(encoded) != base64.StdEncoding.EncodedLen(keyBytes) {
		return key{}, fault.Invalidf("its third line must be `key: ` and 32 bytes in base64")
	}
	material := make([]byte, base64.StdEncoding.DecodedLen(len(encoded)))
	n, err := base64.StdEncoding.Strict().Decode(material, encoded)
	if err != nil || n != keyBytes || bytes.ContainsAny(encoded, "\r\n") {
		clear(material)
		return key{}, fault.Invalidf("its third line must be `key: ` and 32 bytes in base64")
	}
	return key{id: string(name), material: secret.New(material[:n])}, nil
}

// text is the inverse of parse.
func (k key) text() secret.Bytes {
	b := make([]byte, 0, maxBytes)
	b = append(b, magic+"\nid: "+k.id+"\nkey: "...)
	b = base64.StdEncoding.AppendEncode(b, k.material.Reveal())
	return secret.New(append(b, '\n'))
}

// fresh makes a key.
func fresh(random io.Reader) (key, error) {
	if random == nil {
		random = rand.Reader
	}
	material := make([]byte, keyBytes)
	if _, err := io.ReadFull(random, material); err != nil {
		return key{}, fault.Wrap(err, "read randomness for the key encryption key")
	}
	return key{id: id.New(), material: secret.New(material)}, nil
}

// quoted shortens a path for a message.
func quoted(path string) string {
	if len(path) > 256 {
		path = "..." + path[len(path)-253:]
	}
	return strings.ToValidUTF8(path, "?")
}
