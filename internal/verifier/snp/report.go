package snp

import (
	"bytes"
	"encoding/binary"
	"math/big"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// ReportSize is the size of an attestation report in bytes.
const ReportSize = 0x4a0

// Offsets in a report (SEV-SNP ABI, table 23), and the ends of its parts.
const (
	atPolicy, atVMPL, atAlgorithm          = 0x008, 0x030, 0x034
	atCurrentTCB, atPlatform, atKey        = 0x038, 0x040, 0x048
	atReportData, atMeasurement, atHost    = 0x050, 0x090, 0x0c0
	atIDKey, atAuthorKey, atReportID, atMA = 0x0e0, 0x110, 0x140, 0x160
	atReportedTCB, atCPUID, atChip         = 0x180, 0x188, 0x1a0
	atCommittedTCB, atCurrentVersion       = 0x1e0, 0x1e8
	atCommittedVersion, atLaunchTCB        = 0x1ec, 0x1f0
	atLaunchMitigation, atNowMitigation    = 0x1f8, 0x200
	atSignature, atR, atS, atRest          = 0x2a0, 0x2a0, 0x2e8, 0x330
)

// Report is an attestation report as the secure processor writes it. Its
// methods read fields; nothing in it is checked by having it.
type Report [ReportSize]byte

// ParseReport takes exactly the bytes of a report. What stands behind the
// signature is not signed and must be zero.
func ParseReport(data []byte) (*Report, error) {
	if len(data) != ReportSize {
		return nil, fault.Invalidf("an attestation report has %d bytes, not %d", ReportSize, len(data))
	}
	r := (*Report)(bytes.Clone(data))
	if !zero(r[atRest:]) {
		return nil, fault.Invalidf("the attestation report has unsigned bytes behind its signature")
	}
	return r, nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (r *Report) u32(at int) uint32 { return binary.LittleEndian.Uint32(r[at:]) }
func (r *Report) u64(at int) uint64 { return binary.LittleEndian.Uint64(r[at:]) }

// Version is the version of the report's form.
func (r *Report) Version() uint32 { return r.u32(0) }

// VMPL is the privilege level of who asked for the report, 0 the highest.
func (r *Report) VMPL() uint32 { return r.u32(atVMPL) }

// ReportData is what the guest put in, 64 bytes.
func (r *Report) ReportData() []byte { return r[atReportData:atMeasurement] }

// Measurement is the digest of what the guest was launched with, 48 bytes.
func (r *Report) Measurement() []byte { return r[atMeasurement:atHost] }

// HostData is what the host put in at launch, 32 bytes.
func (r *Report) HostData() []byte { return r[atHost:atIDKey] }

// ChipID names the chip, 64 bytes; zero where the host masks it.
func (r *Report) ChipID() []byte { return r[atChip:atCommittedTCB] }

// signer is which key signed: 0 a VCEK, 1 a VLEK, 7 none.
func (r *Report) signer() uint32 { return r.u32(atKey) >> 2 & 7 }

// Generation is a processor generation; it decides the layout of TCB versions
// and the manufacturer's keys.
type Generation string

// The generations.
const (
	Milan Generation = "Milan"
	Genoa Generation = "Genoa"
	Turin Generation = "Turin"
)

// Generation is what the report says of its processor; empty if it is not known,
// and in reports of version 2, which do not say.
func (r *Report) Generation() Generation {
	if r.Version() < 3 {
		return ""
	}
	family, model := r[atCPUID], r[atCPUID+1]
	switch {
	case family == 0x19 && model <= 0x0f:
		return Milan
	case family == 0x19 && (model >= 0x10 && model <= 0x1f || model >= 0xa0 && model <= 0xaf):
		return Genoa
	case family == 0x1a && model <= 0x11:
		return Turin
	default:
		return ""
	}
}

// TCB is a version of the trusted computing base, part by part. Only Turin has
// an FMC.
type TCB struct{ FMC, Bootloader, TEE, SNP, Microcode uint8 }

func (t TCB) bytes(g Generation) [8]byte {
	if g == Turin {
		return [8]byte{t.FMC, t.Bootloader, t.TEE, t.SNP, 0, 0, 0, t.Microcode}
	}
	return [8]byte{t.Bootloader, t.TEE, 0, 0, 0, 0, t.SNP, t.Microcode}
}

// tcbOf reads a version of eight bytes.
func tcbOf(b []byte, g Generation) TCB {
	if g == Turin {
		return TCB{FMC: b[0], Bootloader: b[1], TEE: b[2], SNP: b[3], Microcode: b[7]}
	}
	return TCB{Bootloader: b[0], TEE: b[1], SNP: b[6], Microcode: b[7]}
}

// Reported is the TCB that the report claims and its signer is made for.
func (r *Report) Reported(g Generation) TCB {
	return tcbOf(r[atReportedTCB:atCPUID], g)
}

// signed is what the signature covers.
func (r *Report) signed() []byte { return r[:atSignature] }

// signature reads R and S, which are little-endian in 72 bytes each. It is false
// for numbers that no P-384 signature has.
func (r *Report) signature() (x, y *big.Int, ok bool) {
	number := func(b []byte) *big.Int {
		turned := make([]byte, 48)
		for i := range turned {
			turned[i] = b[47-i]
		}
		return new(big.Int).SetBytes(turned)
	}
	rs, ss := r[atR:atS], r[atS:atRest]
	return number(rs), number(ss), zero(rs[48:]) && zero(ss[48:])
}

// Claims are what policies see, with the names and types that existing policies
// use.
func (r *Report) Claims(g Generation) map[string]any {
	policy, platform, tcb := r.u64(atPolicy), r.u64(atPlatform), r.Reported(g)
	bit := func(word uint64, n int) bool { return word>>n&1 == 1 }
	return map[string]any{
		"policy_abi_major":        float64(policy >> 8 & 0xff),
		"policy_abi_minor":        float64(policy & 0xff),
		"policy_smt_allowed":      bit(policy, 16),
		"policy_migrate_ma":       bit(policy, 18),
		"policy_debug_allowed":    bit(policy, 19),
		"policy_single_socket":    bit(policy, 20),
		"reported_tcb_bootloader": float64(tcb.Bootloader),
		"reported_tcb_tee":        float64(tcb.TEE),
		"reported_tcb_snp":        float64(tcb.SNP),
		"reported_tcb_microcode":  float64(tcb.Microcode),
		"platform_smt_enabled":    bit(platform, 0),
		"platform_tsme_enabled":   bit(platform, 1),
		"measurement":             hexOf(r.Measurement()),
		"report_data":             hexOf(r.ReportData()),
		"init_data":               hexOf(r.HostData()),
		"chip_id":                 hexOf(r.ChipID()),
	}
}
