package tdx

import (
	"crypto/x509"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// collateral finds Intel's word on a platform, and checks that Intel signed it
// and that it is current. What is not there is an error that is Unavailable.
func (v *Verifier) collateral(c *evidence.Checks, tee evidence.TEE, p *pck, at time.Time) (*tcbInfo, *qeIdentity, error) {
	missing := func(w evidence.Want, what string) error {
		return c.Missing(tee, w, evidence.Check{
			Name: "collateral", Expected: what, Seen: "none",
			Reason: "there is no " + what + " in the reference material; import it from https://api.trustedservices.intel.com/tdx/certification/v4", Section: pcs,
		})
	}
	wants := [3]evidence.Want{{Kind: KindTCBInfo, Key: p.fmspc}, {Kind: KindIdentity}, {Kind: KindSigner}}
	var raw [3][]byte
	for i, what := range []string{"TCB info of FMSPC " + p.fmspc, "identity of the quoting enclave", "certificate of the TCB signer"} {
		if raw[i] = v.from.Find(wants[i].Kind, wants[i].Key); raw[i] == nil {
			return nil, nil, missing(wants[i], what)
		}
	}
	signer, err := v.signers.get(placeOf(raw[2]), func() (*x509.Certificate, error) { return parseIssued(raw[2], v.root, nameSigning) })
	if !c.That(err == nil, evidence.Check{Name: "collateral-signer", Expected: "issued by Intel", Reason: fault.Public(err), Section: pcs}) {
		return nil, nil, c.Err(tee)
	}
	v.current(c, "collateral-signer", []*x509.Certificate{signer, v.root}, at)
	info, err := v.infos.get(placeOf(raw[0]), func() (*tcbInfo, error) { return read(raw[0], "tcbInfo", parseTCBInfo, signer) })
	if !c.That(err == nil && strings.EqualFold(info.FMSPC, p.fmspc) && strings.EqualFold(info.PCEID, hexOf(p.pceID)), evidence.Check{
		Name: "tcb-info", Expected: "of FMSPC " + p.fmspc + ", signed by Intel", Reason: "the TCB info is of another platform, or not signed by Intel", Section: pcs,
	}) {
		return nil, nil, c.Err(tee)
	}
	identity, err := v.identities.get(placeOf(raw[1]), func() (*qeIdentity, error) {
		return read(raw[1], "enclaveIdentity", parseIdentity, signer)
	})
	if !c.That(err == nil, evidence.Check{
		Name: "qe-identity-document", Expected: "signed by Intel", Reason: "the identity of the quoting enclave is not signed by Intel", Section: pcs,
	}) {
		return nil, nil, c.Err(tee)
	}
	i, q := info, identity
	good := !at.Before(i.Issued) && !at.After(i.Next) && !at.Before(q.Issued) && !at.After(q.Next)
	c.That(good, evidence.Check{
		Name: "collateral-dates", Expected: "TCB info " + day(i.Issued) + " to " + day(i.Next) + ", identity " + day(q.Issued) + " to " + day(q.Next),
		Seen: at.UTC().Format(time.RFC3339), Reason: "the collateral is not current, import newer", Section: pcs,
	})
	return i, q, nil
}

// read reads a signed document and checks its signature. What it gives is kept
// for the life of the verifier, whose reference material does not change.
func read[T any](data []byte, member string, parse func([]byte) (T, error), signer *x509.Certificate) (T, error) {
	var none T
	signed, signature, err := document(data, member)
	if err != nil {
		return none, err
	}
	if !verifies(signer, signed, signature) {
		return none, fault.Invalidf("the %s is not signed by %s", member, signer.Subject.CommonName)
	}
	return parse(signed)
}
