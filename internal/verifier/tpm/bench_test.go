package tpm

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"testing"

	"github.com/sallyport-project/sallyport/internal/evidence"
)

func BenchmarkVerify(b *testing.B) {
	body, q := vector(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := judge(b, body, evidence.Binding{ReportData: q.Nonce}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFloor is the one signature verification in it, which nothing can be
// faster than.
func BenchmarkFloor(b *testing.B) {
	body, _ := vector(b)
	s, _, _, err := parse(body)
	if err != nil {
		b.Fatal(err)
	}
	key, ok := s.Key.(*rsa.PublicKey)
	if !ok {
		b.Fatal("the vector's key is not RSA")
	}
	b.ReportAllocs()
	for b.Loop() {
		sum := sha256.Sum256(s.Message)
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], s.Signature.rsa); err != nil {
			b.Fatal(err)
		}
	}
}
