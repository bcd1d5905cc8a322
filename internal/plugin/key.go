package plugin

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// KeyID names a publisher key: lower-case hex of SHA-256 over the raw 32 bytes
// of the public key.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:])
}

// KeyFiles is what [Keygen] made.
type KeyFiles struct {
	ID      string `json:"key_id"`
	Private string `json:"private_key_file"`
	Public  string `json:"public_key_file"`
}

// Keygen makes a publisher key and writes it as <prefix>.key (PKCS #8 PEM, mode
// 0600) and <prefix>.pub (PKIX PEM). Existing files are never overwritten:
// Conflict.
func Keygen(prefix string) (KeyFiles, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return KeyFiles{}, fault.Internalf("make a key").Because(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return KeyFiles{}, fault.Internalf("encode the private key").Because(err)
	}
	public, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return KeyFiles{}, fault.Internalf("encode the public key").Because(err)
	}
	out := KeyFiles{ID: KeyID(pub), Private: prefix + ".key", Public: prefix + ".pub"}
	if err := writeNew(out.Private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return KeyFiles{}, err
	}
	if err := writeNew(out.Public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644); err != nil {
		_ = os.Remove(out.Private) // half a key pair helps nobody
		return KeyFiles{}, err
	}
	return out, nil
}

const maxKeyFile = 16 << 10

// ParsePrivateKey reads a PKCS #8 PEM file with an Ed25519 key; anything else
// is Invalid.
func ParsePrivateKey(data []byte) (ed25519.PrivateKey, error) {
	block, err := onePEM(data, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return nil, fault.Invalidf("the file is not a PKCS #8 private key")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fault.Invalidf("the private key is not an Ed25519 key")
	}
	return key, nil
}

// ParsePublicKey reads a PKIX PEM file with an Ed25519 key; anything else is
// Invalid.
func ParsePublicKey(data []byte) (ed25519.PublicKey, error) {
	block, err := onePEM(data, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(block)
	if err != nil {
		return nil, fault.Invalidf("the file is not a PKIX public key")
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fault.Invalidf("the public key is not an Ed25519 key")
	}
	return key, nil
}

func onePEM(data []byte, kind string) ([]byte, error) {
	if len(data) > maxKeyFile {
		return nil, fault.Invalidf("the key file is larger than %d bytes", maxKeyFile)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fault.Invalidf("the file has no PEM block %q", kind)
	}
	if again, _ := pem.Decode(rest); again != nil {
		return nil, fault.Invalidf("the file has more than one PEM block")
	}
	return block.Bytes, nil
}

// writeNew writes a file that must not exist and syncs it.
func writeNew(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // where the caller wants it
	if errors.Is(err, fs.ErrExist) {
		return fault.Conflictf("%s exists already; remove it or choose another name", path)
	}
	if err != nil {
		return fault.Wrap(err, "create file")
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path) //nolint:gosec // as above
		return fault.Wrap(err, "write file")
	}
	return nil
}
