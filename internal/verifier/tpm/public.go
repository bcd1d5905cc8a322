package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/big"
	"strconv"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Attributes of an object (TPMA_OBJECT, part 2, 8.3).
const (
	attrFixedTPM                   = 1 << 1
	attrFixedParent                = 1 << 4
	attrSensitiveDataOrigin        = 1 << 5
	attrRestricted                 = 1 << 16
	attrDecrypt                    = 1 << 17
	attrSign                       = 1 << 18
	attrReserved            uint32 = 0xfff0f309 // must be zero
)

// Public is the public area of an object in a TPM (TPMT_PUBLIC, part 2, 12.2.4).
type Public struct {
	Key        crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
	Attributes uint32
	Policy     []byte // authPolicy

	hash      eventlog.Algorithm // of the name
	symmetric uint16             // bits of the AES-CFB key of a storage key, 0 if it has none
	raw       []byte
}

// ParsePublic reads a public area, without the length that a TPM2B_PUBLIC has in
// front. Only RSA keys and keys on P-256, P-384 and P-521 are known.
func ParsePublic(data []byte) (*Public, error) {
	r := &reader{rest: data}
	kind := r.u16()
	p := &Public{hash: eventlog.Algorithm(r.u16()), Attributes: r.u32(), Policy: r.sized(maxDigest), raw: data}
	var err error
	switch kind {
	case algRSA:
		err = p.readRSA(r)
	case algECC:
		err = p.readECC(r)
	default:
		err = fault.Invalidf("the object is no key of RSA or an elliptic curve")
	}
	if err != nil {
		return nil, err
	}
	if p.Attributes&attrReserved != 0 || p.hash.Hash() == 0 {
		return nil, fault.Invalidf("the public area has unknown attributes, or a name of an unknown algorithm")
	}
	return p, r.done("public area")
}

// cipher reads TPMT_SYM_DEF_OBJECT.
func (p *Public) cipher(r *reader) error {
	switch r.u16() {
	case algNull:
		return nil
	case algAES:
		bits, mode := r.u16(), r.u16()
		if (bits == 128 || bits == 192 || bits == 256) && mode == algCFB {
			p.symmetric = bits
			return nil
		}
	}
	return fault.Invalidf("the key's cipher is not AES-CFB")
}

// scheme reads TPMT_RSA_SCHEME or TPMT_ECC_SCHEME with a hash, or none.
func scheme(r *reader) {
	if r.u16() != algNull {
		r.u16()
	}
}

func (p *Public) readRSA(r *reader) error {
	if err := p.cipher(r); err != nil {
		return err
	}
	scheme(r)
	bits, exponent := int(r.u16()), int(r.u32())
	if exponent == 0 {
		exponent = 65537
	}
	n := new(big.Int).SetBytes(r.sized(maxKey))
	if n.BitLen() != bits || bits < 1024 || exponent < 3 || exponent > 1<<31-1 || exponent%2 == 0 {
		return fault.Invalidf("the RSA key is not well-formed")
	}
	p.Key = &rsa.PublicKey{N: n, E: exponent}
	return nil
}

func (p *Public) readECC(r *reader) error {
	if err := p.cipher(r); err != nil {
		return err
	}
	scheme(r)
	curve, kdf := r.u16(), r.u16()
	if kdf != algNull {
		r.u16()
	}
	c := map[uint16]elliptic.Curve{curveP256: elliptic.P256(), curveP384: elliptic.P384(), curveP521: elliptic.P521()}[curve]
	x, y := r.sized(maxName), r.sized(maxName)
	if c == nil || r.bad {
		return fault.Invalidf("the key's curve is not P-256, P-384 or P-521")
	}
	size := (c.Params().BitSize + 7) / 8
	if len(x) > size || len(y) > size {
		return fault.Invalidf("the key's coordinates are longer than its curve")
	}
	point := make([]byte, 1+2*size) // a TPM may leave zeros out at the front
	point[0] = 4
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	key, err := ecdsa.ParseUncompressedPublicKey(c, point)
	if err != nil {
		return fault.Invalidf("the key is no point of its curve").Because(err)
	}
	p.Key = key
	return nil
}

// Name is the object's name: the algorithm and the digest of its public area
// (part 1, section 16).
func (p *Public) Name() []byte {
	sum := p.hash.Hash().New()
	sum.Write(p.raw)
	return sum.Sum(binary.BigEndian.AppendUint16(nil, uint16(p.hash)))
}

// What stands before and behind the modulus in the SubjectPublicKeyInfo of an RSA
// key of 2048 bits with the exponent 65537 (RFC 8017, A.1.1).
const (
	spkiBefore = "\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x0f\x00\x30\x82\x01\x0a\x02\x82\x01\x01\x00"
	spkiBehind = "\x02\x03\x01\x00\x01"
	spkiSize   = len(spkiBefore) + 256 + len(spkiBehind)
)

// publicKey reads a SubjectPublicKeyInfo. Nearly all attestation keys are of RSA
// and 2048 bits, which DER writes in one way only: that is compared, because to
// parse it costs a thirtieth of a verification.
func publicKey(der []byte) (crypto.PublicKey, error) {
	if len(der) == spkiSize && der[len(spkiBefore)] >= 0x80 &&
		string(der[:len(spkiBefore)]) == spkiBefore && string(der[spkiSize-len(spkiBehind):]) == spkiBehind {
		return &rsa.PublicKey{N: new(big.Int).SetBytes(der[len(spkiBefore) : spkiSize-len(spkiBehind)]), E: 65537}, nil
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fault.Invalidf("ak_public must be a public key in DER")
	}
	return key, nil
}

// JudgeAK checks that a key is an attestation key: it lives in one TPM alone,
// which made it, and signs only what that TPM itself says (restricted). A key of
// software, or one that signs anything, would make any quote.
func (p *Public) JudgeAK(c *evidence.Checks) {
	const section = "TPM 2.0 Library part 2, 8.3"
	for _, a := range []struct {
		name string
		bit  uint32
		want bool
	}{
		{"fixedTPM", attrFixedTPM, true},
		{"fixedParent", attrFixedParent, true},
		{"sensitiveDataOrigin", attrSensitiveDataOrigin, true},
		{"restricted", attrRestricted, true},
		{"sign", attrSign, true},
		{"decrypt", attrDecrypt, false},
	} {
		c.That(p.Attributes&a.bit != 0 == a.want, evidence.Check{
			Name: "ak-" + a.name, Expected: fmt.Sprint(a.want), Seen: fmt.Sprint(p.Attributes&a.bit != 0),
			Reason: "this is no attestation key", Section: section,
		})
	}
	c.That(p.hash != eventlog.SHA1, evidence.Check{
		Name: "ak-name-algorithm", Expected: "SHA-256 or longer", Seen: fmt.Sprintf("%#x", uint16(p.hash)), Section: section,
	})
	judgeKey(c, p.Key)
}

// judgeKey checks that a key is strong enough.
func judgeKey(c *evidence.Checks, key crypto.PublicKey) bool {
	k := evidence.Check{
		Name: "ak-strength", Expected: "RSA of 2048 bits or more, P-256, P-384 or P-521", Seen: "another key",
		Reason: "this kind of key is not accepted", Section: "NIST SP 800-57 part 1, 5.6.1",
	}
	ok := false
	switch key := key.(type) {
	case *rsa.PublicKey:
		k.Seen = "RSA of " + strconv.Itoa(key.N.BitLen()) + " bits"
		ok = key.N.BitLen() >= 2048 && key.N.BitLen() <= 8*maxKey && key.E >= 65537
	case *ecdsa.PublicKey:
		k.Seen = key.Curve.Params().Name
		ok = key.Curve == elliptic.P256() || key.Curve == elliptic.P384() || key.Curve == elliptic.P521()
	}
	return c.That(ok, k)
}
