// Package azure judges evidence of confidential guests on Azure, which have a
// virtual TPM: a quote of that TPM, and a report of the processor that names the
// TPM's attestation key.
//
// The hypervisor below the guest (the HCL) asks the processor for a report once,
// at start, over a text with the public key of the TPM's attestation key. That
// report and text are the HCL report. The TPM then quotes for each challenge. The
// parts are judged by the packages for each: this one checks what ties them
// together.
package azure

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/verifier/snp"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx"
	"github.com/sallyport-project/sallyport/internal/verifier/tpm"
)

// Sections of the specifications that checks name.
const (
	hclSpec = "Azure guest attestation, HCL report"
	binding = "KBS protocol, report data"
)

// Limits, in bytes.
const (
	maxEvidence = 128 << 10
	maxHCL      = 16 << 10
	maxText     = 8 << 10
)

// Config is what a verifier is made with.
type Config struct {
	// SNP or TDX judges the processor's report; the one that is given says which
	// kind of evidence this verifier is for.
	SNP *snp.Verifier
	TDX *tdx.Verifier
}

// Verifier implements evidence.Verifier for one of the two kinds. Safe for
// concurrent use.
type Verifier struct {
	tee evidence.TEE
	Config
}

var _ evidence.Verifier = (*Verifier)(nil)

// New makes the verifier of az-snp-vtpm, or of az-tdx-vtpm.
func New(cfg Config) (*Verifier, error) {
	switch {
	case cfg.SNP != nil && cfg.TDX == nil:
		return &Verifier{evidence.AzSnpVtpm, cfg}, nil
	case cfg.TDX != nil && cfg.SNP == nil:
		return &Verifier{evidence.AzTdxVtpm, cfg}, nil
	}
	return nil, fault.Internalf("a verifier for Azure needs the one of SNP or that of TDX")
}

// wireEvidence is evidence of versions 1 and 2 as guests send it.
type wireEvidence struct {
	Version any `json:"version"` // a number, or a text
	Quote   struct {
		Signature string        `json:"signature"`
		Message   string        `json:"message"`
		PCRs      tpm.Registers `json:"pcrs"`
	} `json:"tpm_quote"`
	HCL  string `json:"hcl_report"`
	VCEK string `json:"vcek"`
	TD   string `json:"td_quote"`
}

// shown is evidence that was read.
type shown struct {
	version int
	quote   tpm.Shown
	hcl     *hcl
	vcek    []byte
	td      *tdx.Quote
}

func (v *Verifier) parse(body []byte) (*shown, error) {
	var w wireEvidence
	if err := canon.Lenient(body, maxEvidence, 8, &w); err != nil {
		return nil, err
	}
	s := &shown{}
	switch w.Version {
	case "1", 1.0:
		s.version = 1
	case "2", 2.0:
		s.version = 2
	default:
		return nil, fault.Invalidf("version must be 1 or 2")
	}
	signature, err := hex.DecodeString(w.Quote.Signature)
	if err != nil || len(signature) > 512 {
		return nil, fault.Invalidf("tpm_quote.signature must be a signature in hex")
	}
	if s.quote.Message, err = hex.DecodeString(w.Quote.Message); err != nil {
		return nil, fault.Invalidf("tpm_quote.message must be in hex")
	}
	if s.quote.PCRs, err = w.Quote.PCRs.Values(); err != nil {
		return nil, err
	}
	s.quote.Signature, s.quote.Bank = tpm.RawRSA(signature), eventlog.SHA256
	raw, err := base64url("hcl_report", w.HCL)
	if err != nil {
		return nil, err
	}
	if s.hcl, err = parseHCL(raw); err != nil {
		return nil, err
	}
	if s.quote.Key, err = s.hcl.key(); err != nil {
		return nil, err
	}
	if v.tee == evidence.AzSnpVtpm {
		s.vcek, err = base64url("vcek", w.VCEK)
		return s, err
	}
	if raw, err = base64url("td_quote", w.TD); err != nil {
		return nil, err
	}
	s.td, err = tdx.ParseQuote(raw)
	return s, err
}

// base64url reads text with or without padding.
func base64url(name, text string) ([]byte, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(data) == 0 {
		return nil, fault.Invalidf("%s must be base64url", name)
	}
	return data, nil
}

// Verify implements evidence.Verifier.
func (v *Verifier) Verify(_ context.Context, e evidence.Evidence, b evidence.Binding, at time.Time) (evidence.Claims, error) {
	if e.TEE != v.tee {
		return evidence.Claims{}, fault.Internalf("verifier of %s got evidence of %s", v.tee, e.TEE)
	}
	var c evidence.Checks
	s, err := v.parse(e.Body)
	if err != nil {
		return evidence.Claims{}, c.Malformed(v.tee, hclSpec, "%s", fault.Public(err))
	}
	q, err := s.quote.Judge(&c, v.tee)
	if err != nil {
		return evidence.Claims{}, err
	}
	c.Bound(b, len(b.ReportData) > 0 && bytes.Equal(q.Nonce, b.ReportData), evidence.Check{
		Name: "report-data", Expected: hex.EncodeToString(b.ReportData), Seen: hex.EncodeToString(q.Nonce),
		Reason: "the TPM's quote is not bound to this nonce and key", Section: binding,
	})
	if s.version == 2 {
		c.Bound(b, len(b.ReportData) > 0 && bytes.HasPrefix(s.hcl.userData, b.ReportData), evidence.Check{
			Name: "user-data", Expected: hex.EncodeToString(b.ReportData), Seen: hex.EncodeToString(s.hcl.userData),
			Reason: "the processor's report is not of this handshake", Section: hclSpec,
		})
	}
	values, err := v.processor(&c, s, at)
	if err != nil {
		return evidence.Claims{}, err
	}
	const initData = 8 // the register that a guest's start measures it into
	values["tpm"] = tpm.PCRClaims(s.quote.PCRs)
	values["report_data"] = hex.EncodeToString(q.Nonce)
	values["init_data"] = hex.EncodeToString(s.quote.PCRs[initData])
	claims := evidence.Claims{Class: evidence.CPU, Values: values, ReportData: hex.EncodeToString(q.Nonce)}
	if b.InitData != nil {
		tpm.JudgeInitData(&c, b, s.quote.PCRs)
		claims.InitData = hex.EncodeToString(s.quote.PCRs[initData])
	}
	if err := c.Err(v.tee); err != nil {
		return evidence.Claims{}, err
	}
	claims.Checks = c
	return claims, nil
}

// processor judges the report of the processor, and that it names the text with
// the attestation key.
func (v *Verifier) processor(c *evidence.Checks, s *shown, at time.Time) (map[string]any, error) {
	want := sha256.Sum256(s.hcl.text)
	tied := func(reportData []byte) {
		c.That(evidence.Matches(reportData, want[:]), evidence.Check{
			Name: "attestation-key", Expected: hex.EncodeToString(want[:]), Seen: hex.EncodeToString(reportData),
			Reason: "the processor's report is of another TPM's key", Section: hclSpec,
		})
	}
	kind := map[evidence.TEE]uint32{evidence.AzSnpVtpm: 2, evidence.AzTdxVtpm: 4}[v.tee]
	c.That(s.hcl.kind == kind, evidence.Check{
		Name: "hcl-report-type", Expected: fmt.Sprint(kind), Seen: fmt.Sprint(s.hcl.kind), Reason: "the report is of another processor", Section: hclSpec,
	})
	if v.tee == evidence.AzTdxVtpm {
		tied(s.td.ReportData())
		return v.TDX.Judge(c, v.tee, s.td, at)
	}
	r, err := snp.ParseReport(s.hcl.report)
	if err != nil {
		return nil, c.Malformed(v.tee, hclSpec, "%s", fault.Public(err))
	}
	n := r.Version()
	c.That(n >= 2 && n <= 5, evidence.Check{Name: "report-version", Expected: "2 to 5", Seen: fmt.Sprint(n), Section: hclSpec})
	tied(r.ReportData())
	g, err := v.SNP.Judge(c, v.tee, r, s.vcek, at)
	if err != nil {
		return nil, err
	}
	return texts(r.Claims(g), r), nil
}

// texts gives the claims of a report the form that they have for this kind of
// evidence, for which existing policies were written: everything is a text, and
// digests are base64.
func texts(claims map[string]any, r *snp.Report) map[string]any {
	out := map[string]any{}
	for name, v := range claims {
		switch v := v.(type) {
		case bool:
			out[name] = strconv.FormatBool(v)
		case float64:
			out[name] = strconv.FormatFloat(v, 'f', -1, 64)
		}
	}
	out["measurement"] = base64.StdEncoding.EncodeToString(r.Measurement())
	out["chip_id"] = hex.EncodeToString(r.ChipID())
	return out
}

// hcl is an HCL report.
type hcl struct {
	report   []byte // of the processor
	kind     uint32
	text     []byte // what the report is over
	keys     []jwk
	userData []byte
}

type jwk struct {
	ID      string `json:"kid"`
	Kind    string `json:"kty"`
	E       string `json:"e"`
	Modulus string `json:"n"`
}

// Sizes of an HCL report's parts.
const (
	hclHeader = 32
	hclNumber = 5 * 4
)

// parseHCL reads an HCL report: a header, the processor's report, five numbers,
// and a text in JSON; zeros may follow.
func parseHCL(data []byte) (*hcl, error) {
	const start = hclHeader + snp.ReportSize
	if len(data) < start+hclNumber || len(data) > maxHCL || string(data[:4]) != "HCLA" {
		return nil, fault.Invalidf("hcl_report is no HCL report")
	}
	number := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at:]) }
	if n := number(4); n != 1 && n != 2 {
		return nil, fault.Invalidf("the HCL report has version %d: 1 and 2 are known", n)
	}
	h := &hcl{report: data[hclHeader:start], kind: number(start + 8)}
	size, rest := number(start+16), data[start+hclNumber:]
	switch {
	case uint64(size) > uint64(len(rest)) || size > maxText || number(start) != size+hclNumber:
		return nil, fault.Invalidf("the HCL report's text is longer than the report")
	case number(start+12) != 1:
		return nil, fault.Invalidf("the HCL report's text is not hashed with SHA-256")
	case len(bytes.TrimRight(rest[size:], "\x00")) > 0:
		return nil, fault.Invalidf("the HCL report has bytes behind its text")
	}
	h.text = rest[:size]
	var t struct {
		Keys     []jwk  `json:"keys"`
		UserData string `json:"user-data"`
	}
	if err := canon.Lenient(h.text, maxText, 8, &t); err != nil {
		return nil, fault.Invalidf("the HCL report's text is no JSON object: %s", fault.Public(err))
	}
	var err error
	if h.userData, err = hex.DecodeString(t.UserData); err != nil {
		return nil, fault.Invalidf("the HCL report's user-data are not in hex")
	}
	h.keys = t.Keys
	return h, nil
}

// key is the TPM's attestation key.
func (h *hcl) key() (*rsa.PublicKey, error) {
	var found *rsa.PublicKey
	for _, k := range h.keys {
		if k.ID != "HCLAkPub" {
			continue
		}
		n, err1 := base64.RawURLEncoding.DecodeString(k.Modulus)
		e, err2 := base64.RawURLEncoding.DecodeString(k.E)
		if found != nil || k.Kind != "RSA" || err1 != nil || err2 != nil || len(n) > 512 || len(e) == 0 || len(e) > 4 {
			return nil, fault.Invalidf("the HCL report's attestation key cannot be read, or there are two")
		}
		exponent := new(big.Int).SetBytes(e)
		if exponent.BitLen() > 31 {
			return nil, fault.Invalidf("the HCL report's attestation key has an impossible exponent")
		}
		found = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	}
	if found == nil {
		return nil, fault.Invalidf("the HCL report names no attestation key")
	}
	return found, nil
}
