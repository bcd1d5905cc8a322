package ca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/keys/ca"
)

// TestFingerprint_IsTheSameForEveryFormOfTheSignature: a certificate whose
// ECDSA signature is replaced by its twin verifies and has other bytes, and must
// not be another certificate to whoever revokes it.
func TestFingerprint_IsTheSameForEveryFormOfTheSignature(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	var outer struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	var signature struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(outer.Signature.Bytes, &signature); err != nil {
		t.Fatal(err)
	}
	signature.S.Sub(elliptic.P256().Params().N, signature.S)
	flipped, err := asn1.Marshal(signature)
	if err != nil {
		t.Fatal(err)
	}
	outer.Signature = asn1.BitString{Bytes: flipped, BitLength: 8 * len(flipped)}
	forged, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := x509.ParseCertificate(forged)
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.CheckSignatureFrom(cert); err != nil || bytes.Equal(twin.Raw, cert.Raw) {
		t.Fatalf("this is no twin: %v", err)
	}
	if ca.FingerprintOf(twin) != ca.FingerprintOf(cert) {
		t.Error("the twin has another fingerprint: revoking the one leaves the other")
	}
}
