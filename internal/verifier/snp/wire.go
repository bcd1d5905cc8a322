package snp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Limits of evidence: a report as JSON has some 6 kB, a certificate 1.3 kB.
const (
	maxEvidence = 256 << 10
	maxChain    = 8
	maxDER      = 8 << 10
)

// numbers are bytes as guests send them: an array of numbers.
type numbers []uint16

func (n numbers) fill(dst []byte) bool {
	if len(n) != len(dst) {
		return false
	}
	for i, v := range n {
		if v > 0xff {
			return false
		}
		dst[i] = byte(v)
	}
	return true
}

// wireEvidence is evidence as guests send it (kbs-types: SnpEvidence).
type wireEvidence struct {
	Report wireReport      `json:"attestation_report"`
	Chain  json.RawMessage `json:"cert_chain"` // null, or a list of wireCertificate
}

type wireCertificate struct {
	Type any     `json:"cert_type"` // a name, or an object for others
	Data numbers `json:"data"`
}

type wireTCB struct {
	FMC        *uint8 `json:"fmc"`
	Bootloader uint8  `json:"bootloader"`
	TEE        uint8  `json:"tee"`
	SNP        uint8  `json:"snp"`
	Microcode  uint8  `json:"microcode"`
}

type wireVersion struct {
	Major uint8 `json:"major"`
	Minor uint8 `json:"minor"`
	Build uint8 `json:"build"`
}

type wireReport struct {
	Version          uint32      `json:"version"`
	GuestSVN         uint32      `json:"guest_svn"`
	Policy           uint64      `json:"policy"`
	FamilyID         numbers     `json:"family_id"`
	ImageID          numbers     `json:"image_id"`
	VMPL             uint32      `json:"vmpl"`
	Algorithm        uint32      `json:"sig_algo"`
	Current          wireTCB     `json:"current_tcb"`
	Platform         uint64      `json:"plat_info"`
	Key              uint32      `json:"key_info"`
	ReportData       numbers     `json:"report_data"`
	Measurement      numbers     `json:"measurement"`
	HostData         numbers     `json:"host_data"`
	IDKey            numbers     `json:"id_key_digest"`
	AuthorKey        numbers     `json:"author_key_digest"`
	ReportID         numbers     `json:"report_id"`
	ReportIDMA       numbers     `json:"report_id_ma"`
	Reported         wireTCB     `json:"reported_tcb"`
	Family           *uint8      `json:"cpuid_fam_id"`
	Model            *uint8      `json:"cpuid_mod_id"`
	Step             *uint8      `json:"cpuid_step"`
	ChipID           numbers     `json:"chip_id"`
	Committed        wireTCB     `json:"committed_tcb"`
	CurrentVersion   wireVersion `json:"current"`
	CommittedVersion wireVersion `json:"committed"`
	Launch           wireTCB     `json:"launch_tcb"`
	LaunchMitigation *uint64     `json:"launch_mit_vector"`
	NowMitigation    *uint64     `json:"current_mit_vector"`
	Signature        struct {
		R numbers `json:"r"`
		S numbers `json:"s"`
	} `json:"signature"`
}

// certificate is one of the chain that came with evidence.
type certificate struct {
	vlek bool
	der  []byte
}

// parse reads evidence and gives the report as the processor signed it, and the
// endorsement keys beside it. Certificates of the manufacturer in the chain are
// left out: they are never taken from evidence.
func parse(body []byte) (*Report, []certificate, error) {
	var w wireEvidence
	if err := canon.Lenient(body, maxEvidence, 8, &w); err != nil {
		return nil, nil, err
	}
	r, err := w.Report.encode()
	if err != nil {
		return nil, nil, err
	}
	// Counted before anything is built: an empty certificate is three bytes of text.
	if bytes.Count(w.Chain, []byte("{")) > 2*maxChain {
		return nil, nil, fault.Invalidf("cert_chain has more than %d certificates", maxChain)
	}
	var chain []wireCertificate
	if len(w.Chain) > 0 && !bytes.Equal(w.Chain, []byte("null")) {
		if err := canon.Lenient(w.Chain, maxEvidence, 4, &chain); err != nil {
			return nil, nil, fault.Invalidf("cert_chain must be null, or a list of certificates").Because(err)
		}
	}
	if len(chain) > maxChain {
		return nil, nil, fault.Invalidf("cert_chain has more than %d certificates", maxChain)
	}
	var keys []certificate
	for _, c := range chain {
		if c.Type != "VCEK" && c.Type != "VLEK" {
			continue
		}
		der := make([]byte, min(len(c.Data), maxDER))
		if !c.Data.fill(der) {
			return nil, nil, fault.Invalidf("a certificate of cert_chain is longer than %d bytes, or not of bytes", maxDER)
		}
		keys = append(keys, certificate{c.Type == "VLEK", der})
	}
	if len(keys) > 1 {
		return nil, nil, fault.Invalidf("cert_chain has %d endorsement keys, there must be one", len(keys))
	}
	return r, keys, nil
}

// encode writes the report's bytes; only what its version signs is carried over.
func (w *wireReport) encode() (*Report, error) {
	r := &Report{}
	for _, f := range []struct {
		name   string
		at, to int
		value  numbers
	}{
		{"family_id", 0x10, 0x20, w.FamilyID},
		{"image_id", 0x20, atVMPL, w.ImageID},
		{"report_data", atReportData, atMeasurement, w.ReportData},
		{"measurement", atMeasurement, atHost, w.Measurement},
		{"host_data", atHost, atIDKey, w.HostData},
		{"id_key_digest", atIDKey, atAuthorKey, w.IDKey},
		{"author_key_digest", atAuthorKey, atReportID, w.AuthorKey},
		{"report_id", atReportID, atMA, w.ReportID},
		{"report_id_ma", atMA, atReportedTCB, w.ReportIDMA},
		{"chip_id", atChip, atCommittedTCB, w.ChipID},
		{"signature.r", atR, atS, w.Signature.R},
		{"signature.s", atS, atRest, w.Signature.S},
	} {
		if !f.value.fill(r[f.at:f.to]) {
			return nil, fault.Invalidf("%s must be %d bytes", f.name, f.to-f.at)
		}
	}
	put32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(r[at:], v) }
	put64 := func(at int, v uint64) { binary.LittleEndian.PutUint64(r[at:], v) }
	put32(0, w.Version)
	put32(4, w.GuestSVN)
	put64(atPolicy, w.Policy)
	put32(atVMPL, w.VMPL)
	put32(atAlgorithm, w.Algorithm)
	put64(atPlatform, w.Platform)
	put32(atKey, w.Key)
	for i, v := range []*uint8{w.Family, w.Model, w.Step} {
		if v != nil && w.Version >= 3 {
			r[atCPUID+i] = *v
		}
	}
	g := r.Generation()
	for at, t := range map[int]wireTCB{atCurrentTCB: w.Current, atReportedTCB: w.Reported, atCommittedTCB: w.Committed, atLaunchTCB: w.Launch} {
		if (t.FMC != nil) != (g == Turin) {
			return nil, fault.Invalidf("a TCB version has an fmc if the processor is a Turin, and else none")
		}
		tcb := TCB{Bootloader: t.Bootloader, TEE: t.TEE, SNP: t.SNP, Microcode: t.Microcode}
		if t.FMC != nil {
			tcb.FMC = *t.FMC
		}
		b := tcb.bytes(g)
		copy(r[at:], b[:])
	}
	copy(r[atCurrentVersion:], []byte{w.CurrentVersion.Build, w.CurrentVersion.Minor, w.CurrentVersion.Major})
	copy(r[atCommittedVersion:], []byte{w.CommittedVersion.Build, w.CommittedVersion.Minor, w.CommittedVersion.Major})
	for at, v := range map[int]*uint64{atLaunchMitigation: w.LaunchMitigation, atNowMitigation: w.NowMitigation} {
		if v != nil && w.Version >= 5 {
			put64(at, *v)
		}
	}
	return r, nil
}

// Wrap writes a raw report and its endorsement key as a guest would send them.
// A report with bytes that the form cannot carry is Invalid.
func Wrap(report, key []byte, vlek bool) (json.RawMessage, error) {
	r, err := ParseReport(report)
	if err != nil {
		return nil, err
	}
	w := wireEvidence{Report: r.wire()}
	if back, err := w.Report.encode(); err != nil || *back != *r {
		return nil, fault.Invalidf("the attestation report has bytes in reserved places").Because(err)
	}
	if key != nil {
		name := "VCEK"
		if vlek {
			name = "VLEK"
		}
		if w.Chain, err = json.Marshal([]wireCertificate{{name, spread(key)}}); err != nil {
			return nil, fault.Wrap(err, "encode certificate")
		}
	}
	body, err := json.Marshal(w)
	return body, fault.Wrap(err, "encode evidence")
}

func spread(b []byte) numbers {
	n := make(numbers, len(b))
	for i, v := range b {
		n[i] = uint16(v)
	}
	return n
}

func (r *Report) wire() wireReport {
	g := r.Generation()
	tcb := func(at int) wireTCB {
		b := r[at : at+8]
		if g == Turin {
			return wireTCB{&b[0], b[1], b[2], b[3], b[7]}
		}
		return wireTCB{nil, b[0], b[1], b[6], b[7]}
	}
	version := func(at int) wireVersion { return wireVersion{r[at+2], r[at+1], r[at]} }
	launch, now := r.u64(atLaunchMitigation), r.u64(atNowMitigation)
	w := wireReport{
		Version: r.Version(), GuestSVN: r.u32(4), Policy: r.u64(atPolicy),
		FamilyID: spread(r[0x10:0x20]), ImageID: spread(r[0x20:atVMPL]), VMPL: r.VMPL(), Algorithm: r.u32(atAlgorithm),
		Current: tcb(atCurrentTCB), Platform: r.u64(atPlatform), Key: r.u32(atKey),
		ReportData: spread(r.ReportData()), Measurement: spread(r.Measurement()), HostData: spread(r.HostData()),
		IDKey: spread(r[atIDKey:atAuthorKey]), AuthorKey: spread(r[atAuthorKey:atReportID]),
		ReportID: spread(r[atReportID:atMA]), ReportIDMA: spread(r[atMA:atReportedTCB]),
		Reported: tcb(atReportedTCB), ChipID: spread(r.ChipID()), Committed: tcb(atCommittedTCB),
		CurrentVersion: version(atCurrentVersion), CommittedVersion: version(atCommittedVersion),
		Launch: tcb(atLaunchTCB), LaunchMitigation: &launch, NowMitigation: &now,
	}
	if r.Version() >= 3 {
		w.Family, w.Model, w.Step = &r[atCPUID], &r[atCPUID+1], &r[atCPUID+2]
	}
	w.Signature.R, w.Signature.S = spread(r[atR:atS]), spread(r[atS:atRest])
	return w
}
