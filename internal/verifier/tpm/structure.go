package tpm

import (
	"encoding/binary"
	"math/big"
	"slices"

	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Constants of TPM 2.0 Library, part 2, sections 6.2, 6.3, 6.9.
const (
	generated             = 0xff544347 // TPM_GENERATED_VALUE
	attestQuote           = 0x8018     // TPM_ST_ATTEST_QUOTE
	algRSA                = 0x0001
	algNull               = 0x0010
	algRSASSA             = 0x0014
	algRSAPSS             = 0x0016
	algECDSA              = 0x0018
	algECC                = 0x0023
	algAES, algCFB        = 0x0006, 0x0043
	curveP256             = 0x0003
	curveP384             = 0x0004
	curveP521             = 0x0005
	maxDigest             = 64
	maxName               = 2 + maxDigest
	maxKey                = 512
	maxBanks              = 16
	maxSelect             = 4
	registers             = 24
	maxStructure          = 4 << 10
	hashSHA1       uint16 = 0x0004
	hashSHA256     uint16 = 0x000b
	hashSHA384     uint16 = 0x000c
	hashSHA512     uint16 = 0x000d
)

// reader takes big-endian fields from the front of a structure.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// sized takes a TPM2B: 16 bits of length, and at most most bytes.
func (r *reader) sized(most int) []byte {
	n := int(r.u16())
	if n > most {
		r.bad = true
	}
	return r.take(n)
}

// done is Invalid unless everything was read, and all of it.
func (r *reader) done(what string) error {
	if r.bad {
		return fault.Invalidf("the %s is cut short, or a part of it is too long", what)
	}
	if len(r.rest) > 0 {
		return fault.Invalidf("the %s has %d bytes behind its end", what, len(r.rest))
	}
	return nil
}

// Selection names registers of one bank.
type Selection struct {
	Bank eventlog.Algorithm
	Mask uint32 // bit n for register n
}

// Clock is the TPM's time and how often it began anew (part 2, 10.11).
type Clock struct {
	Milliseconds     uint64
	Resets, Restarts uint32
	Safe             bool // no value of the clock can have been reported before
}

// Quote is a TPMS_ATTEST of type quote (part 2, 10.12).
type Quote struct {
	Signer     []byte // qualified name of the key
	Nonce      []byte // extraData
	Clock      Clock
	Firmware   uint64
	Selections []Selection
	Digest     []byte // of the selected registers
}

// ParseQuote reads a quote, strictly: another type of attestation, a flag that is
// neither 0 nor 1, registers that do not exist, a bank twice, or a byte too many
// is Invalid.
func ParseQuote(data []byte) (*Quote, error) {
	r := &reader{rest: data}
	if magic, kind := r.u32(), r.u16(); magic != generated || kind != attestQuote {
		return nil, fault.Invalidf("this is no quote of a TPM")
	}
	q := &Quote{Signer: r.sized(maxName), Nonce: r.sized(maxName)}
	q.Clock = Clock{Milliseconds: r.u64(), Resets: r.u32(), Restarts: r.u32()}
	safe := r.u8()
	q.Clock.Safe = safe == 1
	q.Firmware = r.u64()
	n := r.u32()
	if n > maxBanks || safe > 1 {
		return nil, fault.Invalidf("the quote has impossible values")
	}
	for range n {
		s := Selection{Bank: eventlog.Algorithm(r.u16())}
		size := r.u8()
		if size > maxSelect || slices.ContainsFunc(q.Selections, func(o Selection) bool { return o.Bank == s.Bank }) {
			return nil, fault.Invalidf("the quote selects registers that do not exist, or a bank twice")
		}
		for i, b := range r.take(int(size)) {
			s.Mask |= uint32(b) << (8 * i)
		}
		if s.Mask>>registers != 0 {
			return nil, fault.Invalidf("the quote selects registers that do not exist")
		}
		q.Selections = append(q.Selections, s)
	}
	q.Digest = r.sized(maxDigest)
	return q, r.done("quote")
}

// Signature is a TPMT_SIGNATURE (part 2, 11.3.4).
type Signature struct {
	scheme uint16
	hash   uint16
	rsa    []byte
	r, s   *big.Int
}

// ParseSignature reads a signature of RSASSA, RSAPSS or ECDSA.
func ParseSignature(data []byte) (Signature, error) {
	r := &reader{rest: data}
	s := Signature{scheme: r.u16(), hash: r.u16()}
	switch s.scheme {
	case algRSASSA, algRSAPSS:
		s.rsa = r.sized(maxKey)
	case algECDSA:
		s.r, s.s = new(big.Int).SetBytes(r.sized(maxName)), new(big.Int).SetBytes(r.sized(maxName))
	default:
		return Signature{}, fault.Invalidf("the signature's scheme %#x is not known: use RSASSA, RSAPSS or ECDSA", s.scheme)
	}
	return s, r.done("signature")
}

// RawRSA is a signature that travels without its structure: RSASSA with SHA-256.
func RawRSA(signature []byte) Signature {
	return Signature{scheme: algRSASSA, hash: hashSHA256, rsa: signature}
}
