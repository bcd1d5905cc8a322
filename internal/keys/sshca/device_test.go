package sshca_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/keys/sshca"
)

// device is a key outside of this process that sometimes signs wrongly.
type device struct {
	key    ed25519.PrivateKey
	faulty bool
}

func (d device) Public() crypto.PublicKey { return d.key.Public() }

func (d device) Sign(random io.Reader, message []byte, o crypto.SignerOpts) ([]byte, error) {
	s, err := d.key.Sign(random, message, o)
	if d.faulty && err == nil {
		s[7] ^= 1
	}
	return s, err
}

func TestIssuer_KeepsAFaultyDevicesSignature(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, faulty := range []bool{false, true} {
		i, err := sshca.New(device{key, faulty})
		if err != nil {
			t.Fatal(err)
		}
		d := newDecision(t)
		_, err = i.Sign(toBeSigned(compose(t, i, d)), d)
		if faulty != (err != nil) || faulty && !strings.Contains(err.Error(), "does not verify") {
			t.Errorf("faulty %v: %v", faulty, err)
		}
	}
}
