package tdx

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/big"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Sizes of a quote's parts (Intel TDX DCAP Quoting Library API, appendix A.3 and
// A.4).
const (
	headerSize   = 48
	report10     = 584
	report15     = 648
	qeReportSize = 384
	maxQuote     = 16 << 10
	maxAuth      = 1 << 10
)

// Offsets in a TD report, from its beginning.
const (
	atSEAM, atSEAMSigner, atSEAMAttributes = 16, 64, 112
	atAttributes, atXFAM, atMRTD           = 120, 128, 136
	atConfigID, atOwner, atOwnerConfig     = 184, 232, 280
	atRTMR, atReportData, atTCB2           = 328, 520, 584
	atServiceTD                            = 600
)

// Quote is a quote that was read. Its slices share memory with the bytes it was
// read from, and nothing in it is checked by having it.
type Quote struct {
	Version uint16
	header  []byte
	kind    []byte // version 5: type and size of the report, 6 bytes
	report  []byte
	signed  []byte // header to report: what the attestation key signed

	signature, key  []byte
	qeReport, qeSig []byte
	auth, chain     []byte
}

// reader takes little-endian fields from the front.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// ParseQuote reads a quote of version 4 or 5 over a TD report, with a signature
// of ECDSA P-256 and the PCK chain in it. What is of another kind, cut short, or
// followed by anything is Invalid.
func ParseQuote(data []byte) (*Quote, error) {
	if len(data) > maxQuote {
		return nil, fault.Invalidf("the quote is larger than %d bytes", maxQuote)
	}
	r := &reader{rest: data}
	q := &Quote{header: r.take(headerSize)}
	if r.bad {
		return nil, fault.Invalidf("the quote ends within its header")
	}
	q.Version = binary.LittleEndian.Uint16(q.header)
	size := uint64(report10)
	switch q.Version {
	case 4:
	case 5:
		q.kind = r.take(6)
		switch {
		case bytes.Equal(q.kind, []byte{2, 0, 0x48, 2, 0, 0}):
		case bytes.Equal(q.kind, []byte{3, 0, 0x88, 2, 0, 0}):
			size = report15
		default:
			return nil, fault.Invalidf("the quote is over another kind of report than a TD's")
		}
	default:
		return nil, fault.Invalidf("the quote has version %d: 4 and 5 are known", q.Version)
	}
	q.report = r.take(size)
	q.signed = data[:len(data)-len(r.rest)]
	if n := r.u32(); r.bad || uint64(n) != uint64(len(r.rest)) {
		return nil, fault.Invalidf("the quote is cut short, or has bytes behind its signature")
	}
	q.signature, q.key = r.take(64), r.take(64)
	if kind, n := r.u16(), r.u32(); kind != 6 || uint64(n) != uint64(len(r.rest)) {
		return nil, fault.Invalidf("the quote's certification data are not those of a quoting enclave")
	}
	q.qeReport, q.qeSig = r.take(qeReportSize), r.take(64)
	n := r.u16()
	if n > maxAuth {
		return nil, fault.Invalidf("the quote's authentication data are too long")
	}
	q.auth = r.take(uint64(n))
	if kind, n := r.u16(), r.u32(); kind != 5 || r.bad || uint64(n) != uint64(len(r.rest)) {
		return nil, fault.Invalidf("the quote does not end in a PCK chain")
	}
	q.chain = r.rest
	return q, nil
}

// ReportData is what the guest put in, 64 bytes.
func (q *Quote) ReportData() []byte { return q.report[atReportData:atTCB2] }

// ConfigID is what the guest was configured with at launch, 48 bytes.
func (q *Quote) ConfigID() []byte { return q.report[atConfigID:atOwner] }

// rtmr is one of the four runtime measurement registers, 48 bytes.
func (q *Quote) rtmr(n int) []byte { return q.report[atRTMR+48*n : atRTMR+48*(n+1)] }

// numbers are the two halves of a raw signature or point.
func numbers(b []byte) (x, y *big.Int) {
	return new(big.Int).SetBytes(b[:32]), new(big.Int).SetBytes(b[32:])
}

// Claims are what policies see, with the names that existing policies use.
func (q *Quote) Claims() map[string]any {
	h := func(b []byte) any { return hex.EncodeToString(b) }
	body := map[string]any{}
	for _, f := range []struct {
		name     string
		from, to int
	}{
		{"tcb_svn", 0, atSEAM},
		{"mr_seam", atSEAM, atSEAMSigner},
		{"mrsigner_seam", atSEAMSigner, atSEAMAttributes},
		{"seam_attributes", atSEAMAttributes, atAttributes},
		{"td_attributes", atAttributes, atXFAM},
		{"xfam", atXFAM, atMRTD},
		{"mr_td", atMRTD, atConfigID},
		{"mr_config_id", atConfigID, atOwner},
		{"mr_owner", atOwner, atOwnerConfig},
		{"mr_owner_config", atOwnerConfig, atRTMR},
		{"report_data", atReportData, atTCB2},
		{"rtmr_0", atRTMR, atRTMR + 48},
		{"rtmr_1", atRTMR + 48, atRTMR + 96},
		{"rtmr_2", atRTMR + 96, atRTMR + 144},
		{"rtmr_3", atRTMR + 144, atReportData},
	} {
		body[f.name] = h(q.report[f.from:f.to])
	}
	quote := map[string]any{
		"header": map[string]any{
			"version": h(q.header[:2]), "att_key_type": h(q.header[2:4]), "tee_type": h(q.header[4:8]),
			"reserved": h(q.header[8:12]), "vendor_id": h(q.header[12:28]), "user_data": h(q.header[28:48]),
		},
		"body": body,
	}
	if q.Version == 5 {
		quote["type"], quote["size"] = h(q.kind[:2]), h(q.kind[2:])
	}
	if len(q.report) == report15 {
		body["tee_tcb_svn2"], body["mr_servicetd"] = h(q.report[atTCB2:atServiceTD]), h(q.report[atServiceTD:])
	}
	attributes := binary.LittleEndian.Uint64(q.report[atAttributes:])
	bit := func(n int) bool { return attributes>>n&1 == 1 }
	return map[string]any{
		"quote": quote, "report_data": h(q.ReportData()), "init_data": h(q.ConfigID()),
		"td_attributes": map[string]any{
			"debug": bit(0), "septve_disable": bit(28), "protection_keys": bit(30), "key_locker": bit(31), "perfmon": bit(63),
		},
	}
}
