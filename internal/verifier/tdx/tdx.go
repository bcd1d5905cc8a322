// Package tdx judges evidence of Intel TDX guests: a quote of version 4 or 5,
// which a quoting enclave signed for a report of the TDX module, and the guest's
// event log.
//
// Everything is checked here with the standard library: the form of the quote,
// the chain from the platform's key to Intel's root, the quoting enclave, the
// signatures, and what Intel's collateral says of the platform's firmware. Which
// state of firmware is good enough, and what the measurements mean, is left to
// policies. docs/evidence.md lists the checks.
package tdx

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Sections of the specifications that checks name.
const (
	form    = "TDX DCAP quote, A.3"
	pckSpec = "SGX PCK certificate specification, 1.3"
	pcs     = "Intel PCS API v4"
)

// Constants of every quote of a TD (A.3.1).
const (
	teeTDX   = 0x81
	keyECDSA = 2
)

var (
	vendorIntel = []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}
	// signerQE is who signs Intel's quoting enclaves.
	signerQE = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"
)

// mostChecks is about how many there are.
const mostChecks = 32

// maxEvidence bounds evidence in bytes: a quote and an event log in base64.
const maxEvidence = 4096 + (maxQuote+eventlog.MaxSize)/3*4

// Config is what a verifier is made with.
type Config struct {
	// Endorsements has Intel's collateral. Without it no evidence can be judged.
	Endorsements evidence.Endorsements
	// Root is the only trust anchor: Intel's in the program if nil. Another one is
	// for tests.
	Root *x509.Certificate
}

// Verifier implements evidence.Verifier. Safe for concurrent use.
type Verifier struct {
	from       evidence.Endorsements
	root       *x509.Certificate
	pcks       cache[digest, *pck]
	infos      cache[place, *tcbInfo]
	identities cache[place, *qeIdentity]
	signers    cache[place, *x509.Certificate]
	lists      cache[listKey, *x509.RevocationList]
}

// listKey is a revocation list with the certificate that was found to sign it.
type listKey struct {
	list   place
	issuer digest
}

var _ evidence.Verifier = (*Verifier)(nil)

// New makes the verifier.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{from: cfg.Endorsements, root: cfg.Root}
	if v.from == nil {
		v.from = evidence.Shelf(nil)
	}
	if v.root == nil {
		var err error
		if v.root, err = intelRoot(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

type wireEvidence struct {
	Log   *string `json:"cc_eventlog"`
	Quote string  `json:"quote"`
}

// Wrap writes a raw quote as a guest without an event log would send it.
func Wrap(quote []byte) (json.RawMessage, error) {
	body, err := json.Marshal(wireEvidence{Quote: base64.StdEncoding.EncodeToString(quote)})
	return body, fault.Wrap(err, "encode evidence")
}

func parse(body []byte) (q *Quote, log []byte, err error) {
	var w wireEvidence
	if err := canon.Lenient(body, maxEvidence, 8, &w); err != nil {
		return nil, nil, err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(w.Quote)
	if err != nil {
		return nil, nil, fault.Invalidf("quote must be standard base64")
	}
	if w.Log != nil {
		if log, err = base64.StdEncoding.Strict().DecodeString(*w.Log); err != nil {
			return nil, nil, fault.Invalidf("cc_eventlog must be standard base64, or null")
		}
	}
	q, err = ParseQuote(raw)
	return q, log, err
}

// Verify implements evidence.Verifier.
func (v *Verifier) Verify(_ context.Context, e evidence.Evidence, b evidence.Binding, at time.Time) (evidence.Claims, error) {
	if e.TEE != evidence.Tdx {
		return evidence.Claims{}, fault.Internalf("verifier of tdx got evidence of %s", e.TEE)
	}
	c := make(evidence.Checks, 0, mostChecks)
	q, log, err := parse(e.Body)
	if err != nil {
		return evidence.Claims{}, c.Malformed(evidence.Tdx, form, "%s", fault.Public(err))
	}
	claims := evidence.Claims{Class: evidence.CPU, ReportData: hexOf(q.ReportData())}
	c.Bound(b, evidence.Matches(q.ReportData(), b.ReportData), evidence.Check{
		Name: "report-data", Expected: hexOf(evidence.Fit(b.ReportData, 64)), Seen: claims.ReportData,
		Reason: "it is not bound to this nonce and key", Section: "KBS protocol, report data",
	})
	if b.InitData != nil {
		claims.InitData = hexOf(q.ConfigID())
		c.Bound(b, evidence.Matches(q.ConfigID(), b.InitData), evidence.Check{
			Name: "init-data", Expected: hexOf(evidence.Fit(b.InitData, 48)), Seen: claims.InitData,
			Reason: "it is not bound to this init-data", Section: "KBS protocol, init-data",
		})
	}
	values, err := v.Judge(&c, evidence.Tdx, q, at)
	if err != nil {
		return evidence.Claims{}, err
	}
	claims.Values = values
	if len(log) > 0 {
		if l := judgeLog(&c, log, q); l != nil {
			values["uefi_event_logs"] = l.Claims()
		}
	}
	if err := c.Err(evidence.Tdx); err != nil {
		return evidence.Claims{}, err
	}
	claims.Checks = c
	return claims, nil
}

// Judge makes every check of a quote but those of its binding. An error means
// that the evidence cannot be judged further; else failures stand in c. The
// claims are to be believed only if none did.
func (v *Verifier) Judge(c *evidence.Checks, tee evidence.TEE, q *Quote, at time.Time) (map[string]any, error) {
	kind, key := binary.LittleEndian.Uint32(q.header[4:]), binary.LittleEndian.Uint16(q.header[2:])
	c.That(kind == teeTDX && key == keyECDSA && bytes.Equal(q.header[12:28], vendorIntel), evidence.Check{
		Name: "quote-header", Expected: "TDX, ECDSA P-256, a quoting enclave of Intel", Seen: hexOf(q.header[2:28]),
		Reason: "the quote is not of a TD, or not of Intel's quoting enclave", Section: form + ".1",
	})
	p, err := v.pcks.get(sha256.Sum256(q.chain), func() (*pck, error) { return parsePCK(q.chain, v.root) })
	if !c.That(err == nil, evidence.Check{
		Name: "pck-chain", Expected: "issued by Intel", Reason: fault.Public(err), Section: pckSpec,
	}) {
		return nil, c.Err(tee)
	}
	v.current(c, "pck", p.chain, at)
	v.enclave(c, q, p)
	values := q.Claims()
	if p.instance != nil {
		turned := slices.Clone(p.instance)
		slices.Reverse(turned) // as existing policies know it
		values["platform_instance_id"] = hexOf(turned)
	}
	if err := v.platform(c, tee, q, p, at, values); err != nil {
		return nil, err
	}
	return values, nil
}

// current checks dates and revocation of a chain.
func (v *Verifier) current(c *evidence.Checks, what string, chain []*x509.Certificate, at time.Time) {
	k := evidence.Check{
		Name: what + "-dates", Expected: day(chain[0].NotBefore) + " to " + day(chain[0].NotAfter), Seen: at.UTC().Format(time.RFC3339), Section: "RFC 5280, 6.1.3",
	}
	good := true
	for _, cert := range chain {
		if !within(cert, at) {
			good = false
			k.Reason = fmt.Sprintf("the certificate %q is valid from %s to %s", cert.Subject.CommonName, day(cert.NotBefore), day(cert.NotAfter))
		}
	}
	c.That(good, k)
	for i, cert := range chain[:len(chain)-1] {
		issuer := chain[i+1]
		k := evidence.Check{Name: what + "-revocation", Expected: "not revoked by " + issuer.Subject.CommonName, Section: "RFC 5280, 6.3"}
		der := v.from.Find(KindCRL, issuer.Subject.CommonName)
		if der == nil {
			k.Reason = "no revocation list of " + issuer.Subject.CommonName + " was imported"
			c.Skip(k)
			continue
		}
		list, err := v.lists.get(listKey{placeOf(der), sha256.Sum256(issuer.Raw)}, func() (*x509.RevocationList, error) {
			l, err := x509.ParseRevocationList(der)
			if err != nil || l.CheckSignatureFrom(issuer) != nil {
				return nil, fault.Invalidf("the revocation list is not signed by %s", issuer.Subject.CommonName)
			}
			return l, nil
		})
		switch {
		case err != nil:
			k.Reason = fault.Public(err)
		case at.Before(list.ThisUpdate) || list.NextUpdate.IsZero() || at.After(list.NextUpdate):
			k.Reason = fmt.Sprintf("the revocation list is valid from %s to %s, import a current one", day(list.ThisUpdate), day(list.NextUpdate))
		case slices.ContainsFunc(list.RevokedCertificateEntries, func(r x509.RevocationListEntry) bool { return r.SerialNumber.Cmp(cert.SerialNumber) == 0 }):
			k.Reason = fmt.Sprintf("the certificate %q is revoked", cert.Subject.CommonName)
		}
		c.That(k.Reason == "", k)
	}
}

// enclave checks that Intel's quoting enclave of this platform vouches for the
// attestation key, and that the key signed the quote.
func (v *Verifier) enclave(c *evidence.Checks, q *Quote, p *pck) {
	sum := sha256.Sum256(q.qeReport)
	x, y := numbers(q.qeSig)
	c.That(ecdsa.Verify(p.key, sum[:], x, y), evidence.Check{
		Name: "qe-report-signature", Expected: "by the platform's key", Reason: "the quoting enclave's report was not signed by this platform", Section: form + ".10",
	})
	c.That(hexOf(q.qeReport[128:160]) == signerQE, evidence.Check{
		Name: "qe-signer", Expected: signerQE, Seen: hexOf(q.qeReport[128:160]), Reason: "another enclave than Intel's made the quote", Section: pcs,
	})
	bound := sha256.Sum256(append(slices.Clone(q.key), q.auth...))
	c.That(bytes.Equal(q.qeReport[320:352], bound[:]) && bytes.Equal(q.qeReport[352:], make([]byte, 32)), evidence.Check{
		Name: "attestation-key", Expected: hexOf(bound[:]), Seen: hexOf(q.qeReport[320:352]),
		Reason: "the quoting enclave vouches for another key", Section: form + ".10",
	})
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, q.key...))
	good := false
	if err == nil { // a point of the curve
		sum := sha256.Sum256(q.signed)
		x, y := numbers(q.signature)
		good = ecdsa.Verify(key, sum[:], x, y)
	}
	c.That(good, evidence.Check{
		Name: "quote-signature", Expected: "by the attestation key", Reason: "the quote was not signed by this key", Section: form + ".8",
	})
}

// platform looks up what Intel says of the platform's firmware, its TDX module
// and its quoting enclave, and adds it to the claims.
func (v *Verifier) platform(c *evidence.Checks, tee evidence.TEE, q *Quote, p *pck, at time.Time, values map[string]any) error {
	info, identity, err := v.collateral(c, tee, p, at)
	if err != nil {
		return err
	}
	svn := q.report[:16]
	l := info.platform(p, svn)
	if !c.That(l != nil && slices.Contains(known, l.Status), evidence.Check{
		Name: "tcb-level", Expected: "a level that Intel has judged", Seen: "tdx " + hexOf(svn) + ", " + p.firmware,
		Reason: "Intel does not know this state of firmware", Section: pcs,
	}) {
		return c.Err(tee)
	}
	m, ml := info.moduleOf(svn)
	c.That(m != nil && hexEqual(q.report[atSEAMSigner:atSEAMAttributes], m.Signer) && masked(q.report[atSEAMAttributes:atAttributes], m.Attributes, m.Mask) && (svn[1] == 0 || ml != nil), evidence.Check{
		Name: "tdx-module", Expected: "version " + strconv.Itoa(int(svn[1])) + " of Intel's", Seen: hexOf(q.report[atSEAMSigner:atAttributes]),
		Reason: "Intel does not know this TDX module", Section: pcs,
	})
	ql := reached(identity.Levels, int(binary.LittleEndian.Uint16(q.qeReport[258:])))
	c.That(identity.matches(q.qeReport) && ql != nil, evidence.Check{
		Name: "qe-identity", Expected: identity.ID, Seen: "product and version " + hexOf(q.qeReport[256:260]),
		Reason: "the quoting enclave is not the one that Intel describes", Section: pcs,
	})
	status, advisories, date := l.Status, slices.Clone(l.Advisories), l.Date
	for _, other := range []*level{ml, ql} {
		if other != nil {
			status = converge(status, other.Status)
			advisories = append(advisories, other.Advisories...)
			if other.Date.Before(date) {
				date = other.Date
			}
		}
	}
	c.That(status != "Revoked", evidence.Check{
		Name: "tcb-status", Expected: "not revoked", Seen: status, Reason: "Intel has revoked this state of firmware", Section: pcs,
	})
	slices.Sort(advisories)
	list := []any{}
	for _, a := range slices.Compact(advisories) {
		list = append(list, a)
	}
	values["tcb_status"], values["tcb_date"] = status, date.UTC().Format(time.RFC3339)
	values["advisory_ids"], values["collateral_expiration_status"] = list, "0"
	return nil
}

func hexEqual(b []byte, text string) bool {
	want, err := hex.DecodeString(text)
	return err == nil && bytes.Equal(b, want)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

// judgeLog checks that an event log leads to the runtime registers of the quote.
// It gives the log only then. Registers of the log are counted from the TD's own
// measurement, which no event extends.
func judgeLog(c *evidence.Checks, data []byte, q *Quote) *eventlog.Log {
	k := evidence.Check{Name: "event-log", Expected: "the quoted registers", Section: "TDX virtual firmware design guide, 5"}
	l, err := eventlog.Parse(data)
	var values map[uint32][]byte
	if err == nil {
		values, err = l.Replay(eventlog.SHA384)
	}
	if err != nil {
		k.Reason = fault.Public(err)
		c.That(false, k)
		return nil
	}
	k.Seen = fmt.Sprintf("%d events", len(l.Events))
	good := true
	for i, value := range values {
		if i < 1 || i > 4 || !bytes.Equal(value, q.rtmr(int(i)-1)) {
			good = false
			k.Seen, k.Reason = fmt.Sprintf("register %d is %x", i, value), "the log is not what was measured"
		}
	}
	if !c.That(good, k) {
		return nil
	}
	return l
}
