package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
)

// Sections of the specifications that checks name.
const (
	attest = "TPM 2.0 Library part 2, 10.12"
	signed = "TPM 2.0 Library part 2, 11.3"
)

// Shown is a quote with what it is checked against.
type Shown struct {
	Message   []byte // the quote's bytes, which are signed
	Signature Signature
	Key       crypto.PublicKey
	Bank      eventlog.Algorithm
	PCRs      [][]byte // the values of all registers of the bank, in order
}

// Judge checks a quote but for its nonce: the signature, that it is of exactly
// these registers of this bank, and that it has these values. It is nil when the
// message is no quote, and the error then a refusal; else failures stand in c.
func (s Shown) Judge(c *evidence.Checks, tee evidence.TEE) (*Quote, error) {
	q, err := ParseQuote(s.Message)
	if err != nil {
		return nil, c.Malformed(tee, attest, "%s", publicOf(err))
	}
	judgeKey(c, s.Key)
	hash := eventlog.Algorithm(s.Signature.hash).Hash()
	c.That(s.Signature.hash != hashSHA1 && hash != 0, evidence.Check{
		Name: "signature-hash", Expected: "SHA-256, SHA-384 or SHA-512", Seen: hexNumber(uint32(s.Signature.hash)),
		Reason: "signatures over this hash can be forged, or are not known", Section: signed,
	})
	c.That(s.Signature.verifies(s.Key, s.Message), evidence.Check{
		Name: "quote-signature", Expected: "by the attestation key", Seen: s.Signature.String(), Reason: "the quote was not signed by this key", Section: signed,
	})
	want := Selection{s.Bank, uint32(1)<<len(s.PCRs) - 1}
	k := evidence.Check{Name: "pcr-selection", Expected: want.String(), Reason: "the quote is not of the registers that are shown", Section: attest + ".1"}
	k.Seen = k.Expected
	same := len(q.Selections) == 1 && q.Selections[0] == want
	if !same {
		k.Seen = selected(q.Selections)
	}
	c.That(same, k)
	digest := []byte(nil)
	if hash != 0 {
		sum := hash.New()
		for _, v := range s.PCRs {
			sum.Write(v)
		}
		digest = sum.Sum(nil)
	}
	k = evidence.Check{Name: "pcr-digest", Expected: hex.EncodeToString(digest), Reason: "the registers do not have the values that are shown", Section: attest + ".1"}
	k.Seen = k.Expected
	if same = bytes.Equal(digest, q.Digest); !same {
		k.Seen = hex.EncodeToString(q.Digest)
	}
	c.That(same && len(digest) > 0, k)
	return q, nil
}

func selected(list []Selection) string {
	if len(list) == 1 {
		return list[0].String()
	}
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = s.String()
	}
	return strings.Join(texts, "; ")
}

// String names bank and registers.
func (s Selection) String() string {
	return "bank " + hexNumber(uint32(s.Bank)) + ", registers " + hexNumber(s.Mask)
}

func hexNumber(n uint32) string { return "0x" + strconv.FormatUint(uint64(n), 16) }

// String names the scheme.
func (s Signature) String() string {
	name := "RSASSA"
	switch s.scheme {
	case algRSAPSS:
		name = "RSAPSS"
	case algECDSA:
		name = "ECDSA"
	}
	return name + " over hash " + hexNumber(uint32(s.hash))
}

// verifies reports whether a key made the signature over a message.
func (s Signature) verifies(key crypto.PublicKey, message []byte) bool {
	hash := eventlog.Algorithm(s.hash).Hash()
	if hash == 0 {
		return false
	}
	sum := hash.New()
	sum.Write(message)
	digest := sum.Sum(nil)
	switch key := key.(type) {
	case *rsa.PublicKey:
		switch s.scheme {
		case algRSASSA:
			return rsa.VerifyPKCS1v15(key, hash, digest, s.rsa) == nil
		case algRSAPSS: // the salt is as long as it can be, or as the digest: both are in use (part 1, B.7)
			return rsa.VerifyPSS(key, hash, digest, s.rsa, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}) == nil
		}
	case *ecdsa.PublicKey:
		return s.scheme == algECDSA && s.r != nil && ecdsa.Verify(key, digest, s.r, s.s)
	}
	return false
}
