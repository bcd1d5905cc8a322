// Package snp judges evidence of AMD SEV-SNP guests: an attestation report of
// the secure processor with the certificate of the key that signed it.
//
// Everything is checked here with the standard library alone: the form of the
// report, the chain from the signer to the manufacturer's root, dates and
// revocation, that the signer was made for this chip and these firmware
// versions, and the signature. What a guest's measurement means is left to
// policies. docs/evidence.md lists the checks.
package snp

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Sections of the specifications that checks name.
const (
	abi     = "SEV-SNP ABI 56860, table 23"
	vcek    = "VCEK 57230, table 8"
	binding = "KBS protocol, report data"
)

// Versions of reports that are accepted. Version 2 does not name the processor;
// only evidence whose other parts bind it may use it (Judge).
const (
	minVersion = 3
	maxVersion = 5
)

// Config is what a verifier is made with. The zero value judges evidence that
// brings its signer's certificate, without revocation lists.
type Config struct {
	// Endorsements has VCEKs for evidence that does not bring its own, and
	// revocation lists. May be nil.
	Endorsements evidence.Endorsements
	makers       *makers // of tests; AMD's if nil
}

// Verifier implements evidence.Verifier. Safe for concurrent use.
type Verifier struct {
	from   evidence.Endorsements
	makers *makers
	cache  cache
}

var _ evidence.Verifier = (*Verifier)(nil)

// New makes the verifier.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{from: cfg.Endorsements, makers: cfg.makers}
	if v.from == nil {
		v.from = evidence.Shelf(nil)
	}
	if v.makers == nil {
		var err error
		if v.makers, err = amd(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Verify implements evidence.Verifier.
func (v *Verifier) Verify(_ context.Context, e evidence.Evidence, b evidence.Binding, at time.Time) (evidence.Claims, error) {
	if e.TEE != evidence.Snp {
		return evidence.Claims{}, fault.Internalf("verifier of snp got evidence of %s", e.TEE)
	}
	var c evidence.Checks
	r, keys, err := parse(e.Body)
	if err != nil {
		return evidence.Claims{}, c.Malformed(evidence.Snp, abi, "%s", fault.Public(err))
	}
	var given []byte
	if len(keys) == 1 {
		given = keys[0].der
		c.That(keys[0].vlek == (r.signer() == 1), evidence.Check{
			Name: "endorsement-type", Expected: signerName(r.signer()), Seen: map[bool]string{true: "VLEK", false: "VCEK"}[keys[0].vlek],
			Reason: "the certificate is not of the kind of key that signed the report", Section: abi,
		})
	}
	n := r.Version()
	c.That(n >= minVersion && n <= maxVersion, evidence.Check{
		Name: "report-version", Expected: fmt.Sprintf("%d to %d", minVersion, maxVersion), Seen: fmt.Sprint(n),
		Reason: "update the host's firmware", Section: abi,
	})
	g, err := v.Judge(&c, evidence.Snp, r, given, at)
	if err != nil {
		return evidence.Claims{}, err
	}
	c.Bound(b, evidence.Matches(r.ReportData(), b.ReportData), evidence.Check{
		Name: "report-data", Expected: hexOf(evidence.Fit(b.ReportData, 64)), Seen: hexOf(r.ReportData()),
		Reason: "it is not bound to this nonce and key", Section: binding,
	})
	claims := evidence.Claims{Class: evidence.CPU, Values: r.Claims(g), ReportData: hexOf(r.ReportData())}
	if b.InitData != nil {
		c.Bound(b, evidence.Matches(r.HostData(), b.InitData), evidence.Check{
			Name: "init-data", Expected: hexOf(evidence.Fit(b.InitData, 32)), Seen: hexOf(r.HostData()),
			Reason: "it is not bound to this init-data", Section: "KBS protocol, init-data",
		})
		claims.InitData = hexOf(r.HostData())
	}
	if err := c.Err(evidence.Snp); err != nil {
		return evidence.Claims{}, err
	}
	claims.Checks = c
	return claims, nil
}

func signerName(n uint32) string {
	switch n {
	case 0:
		return "VCEK"
	case 1:
		return "VLEK"
	default:
		return fmt.Sprintf("none (%d)", n)
	}
}

// Judge makes every check of a report but those of its version and its binding,
// which are different in evidence that only contains a report. key is the
// signer's certificate, nil to look for it. An error means that the evidence
// cannot be judged further; else failures stand in c.
func (v *Verifier) Judge(c *evidence.Checks, tee evidence.TEE, r *Report, key []byte, at time.Time) (Generation, error) {
	c.That(r.VMPL() == 0, evidence.Check{
		Name: "vmpl", Expected: "0", Seen: fmt.Sprint(r.VMPL()), Reason: "the report was asked for at a lower privilege level", Section: abi,
	})
	c.That(r.u32(atAlgorithm) == 1, evidence.Check{
		Name: "signature-algorithm", Expected: "1 (ECDSA P-384 with SHA-384)", Seen: fmt.Sprint(r.u32(atAlgorithm)), Section: abi,
	})
	g := r.Generation()
	if r.Version() >= 3 && !c.That(g != "", evidence.Check{
		Name: "processor", Expected: "Milan, Genoa or Turin", Seen: fmt.Sprintf("family %#x model %#x", r[atCPUID], r[atCPUID+1]),
		Reason: "this processor is not known to this version", Section: abi,
	}) {
		return "", c.Err(tee)
	}
	if key == nil {
		wanted := wantedBy(r, g)
		missing := evidence.Check{
			Name: "endorsement", Expected: signerName(r.signer()) + " " + wanted, Seen: "none",
			Reason: "the signer's certificate is neither in the evidence nor in the reference material", Section: vcek,
		}
		if r.signer() != 0 || g == "" { // nobody hands these out
			return "", c.Missing(tee, evidence.Want{}, missing)
		}
		if key = v.from.Find(KindVCEK, wanted); key == nil {
			w := evidence.Want{Kind: KindVCEK, Key: wanted}
			missing.Reason += "; import it from " + kds + Path(w)
			return "", c.Missing(tee, w, missing)
		}
	}
	e, made, err := v.cache.endorse(v.makers, key)
	if !c.That(err == nil, evidence.Check{
		Name: "endorsement-chain", Expected: "signed by the manufacturer", Seen: chainOf(e), Reason: fault.Public(err), Section: "VCEK 57230, section 3",
	}) {
		return "", c.Err(tee)
	}
	if g == "" {
		g = made
	}
	c.That(g == made, evidence.Check{
		Name: "endorsement-generation", Expected: string(g), Seen: string(made), Reason: "the certificate is for another generation", Section: "VCEK 57230, section 3",
	})
	v.current(c, e, g, at)
	v.fits(c, e, r, g)
	return g, nil
}

func chainOf(e *endorser) string {
	if e == nil {
		return ""
	}
	return e.cert.Subject.CommonName + ", " + e.chain[0].Subject.CommonName + ", " + e.chain[1].Subject.CommonName
}

// current checks what changes with time: dates and revocation.
func (v *Verifier) current(c *evidence.Checks, e *endorser, g Generation, at time.Time) {
	good, reason := true, ""
	for _, cert := range append([]*x509.Certificate{e.cert}, e.chain...) {
		if at.Before(cert.NotBefore) || at.After(cert.NotAfter) {
			good = false
			reason = fmt.Sprintf("the certificate %s is valid from %s to %s", cert.Subject.CommonName, day(cert.NotBefore), day(cert.NotAfter))
		}
	}
	c.That(good, evidence.Check{
		Name: "endorsement-dates", Expected: day(e.cert.NotBefore) + " to " + day(e.cert.NotAfter), Seen: at.UTC().Format(time.RFC3339),
		Reason: reason, Section: "RFC 5280, 6.1.3",
	})
	k := evidence.Check{Name: "endorsement-revocation", Expected: "not revoked", Section: "RFC 5280, 6.3"}
	der := v.from.Find(KindCRL, string(g))
	if der == nil {
		k.Reason = "no revocation list of " + string(g) + " was imported"
		c.Skip(k)
		return
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		k.Reason = "the revocation list cannot be read"
		c.That(false, k)
		return
	}
	if k.Reason = v.makers.by[g].revocations(list, at); k.Reason != "" {
		c.That(false, k)
		return
	}
	name, gone := revoked(list, append([]*x509.Certificate{e.cert}, e.chain...))
	k.Seen, k.Reason = "a list of "+day(list.ThisUpdate), name+" is revoked"
	c.That(!gone, k)
}

// fits checks that the report is from the chip and the firmware that the signer
// was made for, and was signed by it.
func (v *Verifier) fits(c *evidence.Checks, e *endorser, r *Report, g Generation) {
	tcb := r.Reported(g)
	c.That(tcb == e.tcb, evidence.Check{
		Name: "reported-tcb", Expected: e.tcb.String(), Seen: tcb.String(), Reason: "the certificate is for other firmware versions", Section: vcek,
	})
	c.That(e.vlek == (r.signer() == 1) && r.signer() <= 1, evidence.Check{
		Name: "signing-key", Expected: map[bool]string{true: "VLEK", false: "VCEK"}[e.vlek], Seen: signerName(r.signer()), Section: abi,
	})
	chip := evidence.Check{Name: "chip-id", Expected: hexOf(e.hardware), Seen: hexOf(r.ChipID()), Reason: "the certificate is for another chip", Section: vcek}
	if e.vlek {
		chip.Reason = "a VLEK is the cloud provider's and names no chip"
		c.Skip(chip)
	} else {
		n := len(e.hardware)
		c.That(string(r.ChipID()[:n]) == string(e.hardware) && zero(r.ChipID()[n:]), chip)
	}
	sum := sha512.Sum384(r.signed())
	x, y, ok := r.signature()
	c.That(ok && ecdsa.Verify(e.key, sum[:], x, y), evidence.Check{
		Name: "report-signature", Expected: "ECDSA P-384 by " + e.cert.Subject.CommonName, Seen: map[bool]string{true: "a signature", false: "no P-384 signature"}[ok],
		Reason: "the report was not signed by this key", Section: "SEV-SNP ABI 56860, chapter 10",
	})
}

// String lists the parts, as KDS names them.
func (t TCB) String() string {
	return fmt.Sprintf("bl=%d tee=%d snp=%d ucode=%d fmc=%d", t.Bootloader, t.TEE, t.SNP, t.Microcode, t.FMC)
}
