package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// The kinds of endorsements, and what their keys are.
const (
	KindTCBInfo   = "tdx-tcb-info"    // FMSPC, lower-case hex
	KindIdentity  = "tdx-qe-identity" // empty
	KindSigner    = "tdx-tcb-signer"  // empty: the certificate that signs the two
	KindAuthority = "tdx-pck-ca"      // common name: what signed revocation lists of PCK certificates
	KindCRL       = "tdx-crl"         // common name of the issuer
)

// maxCollateral bounds one document, in bytes.
const maxCollateral = 256 << 10

// level is a state of firmware that Intel has judged.
type level struct {
	TCB struct {
		SGX    []component `json:"sgxtcbcomponents"`
		TDX    []component `json:"tdxtcbcomponents"`
		PCESVN int         `json:"pcesvn"`
		ISVSVN int         `json:"isvsvn"`
	} `json:"tcb"`
	Date       time.Time `json:"tcbDate"`
	Status     string    `json:"tcbStatus"`
	Advisories []string  `json:"advisoryIDs"`
}

type component struct {
	SVN int `json:"svn"`
}

// module is an identity of the TDX module.
type module struct {
	ID         string  `json:"id"`
	Signer     string  `json:"mrsigner"`
	Attributes string  `json:"attributes"`
	Mask       string  `json:"attributesMask"`
	Levels     []level `json:"tcbLevels"`
}

// tcbInfo is Intel's word on the platforms of one FMSPC (PCS API v4, TDX TCB
// info).
type tcbInfo struct {
	ID      string    `json:"id"`
	Version int       `json:"version"`
	Issued  time.Time `json:"issueDate"`
	Next    time.Time `json:"nextUpdate"`
	FMSPC   string    `json:"fmspc"`
	PCEID   string    `json:"pceId"`
	Module  module    `json:"tdxModule"`
	Modules []module  `json:"tdxModuleIdentities"`
	Levels  []level   `json:"tcbLevels"`
}

// qeIdentity is Intel's word on its quoting enclave (PCS API v4, enclave
// identity).
type qeIdentity struct {
	ID         string    `json:"id"`
	Version    int       `json:"version"`
	Issued     time.Time `json:"issueDate"`
	Next       time.Time `json:"nextUpdate"`
	Misc       string    `json:"miscselect"`
	MiscMask   string    `json:"miscselectMask"`
	Attributes string    `json:"attributes"`
	AttrMask   string    `json:"attributesMask"`
	Signer     string    `json:"mrsigner"`
	ProdID     int       `json:"isvprodid"`
	Levels     []level   `json:"tcbLevels"`
}

// document splits a signed document into what is signed, byte for byte, and its
// signature.
func document(data []byte, member string) (signed, signature []byte, err error) {
	var m map[string]json.RawMessage
	if err := canon.Lenient(data, maxCollateral, 16, &m); err != nil {
		return nil, nil, err
	}
	var text string
	if m[member] == nil || canon.Lenient(m["signature"], 256, 1, &text) != nil {
		return nil, nil, fault.Invalidf("the document has no %s with a signature", member)
	}
	if signature, err = hex.DecodeString(text); err != nil || len(signature) != 64 {
		return nil, nil, fault.Invalidf("the document's signature is not 64 bytes in hex")
	}
	return m[member], signature, nil
}

func parseTCBInfo(signed []byte) (*tcbInfo, error) {
	var t tcbInfo
	if err := canon.Lenient(signed, maxCollateral, 16, &t); err != nil {
		return nil, err
	}
	if t.ID != "TDX" || t.Version != 3 || len(t.FMSPC) != 12 {
		return nil, fault.Invalidf("the TCB info is not of TDX in version 3")
	}
	for _, l := range t.Levels {
		if len(l.TCB.SGX) != 16 || len(l.TCB.TDX) != 16 {
			return nil, fault.Invalidf("a level of the TCB info does not have 16 components")
		}
	}
	return &t, nil
}

func parseIdentity(signed []byte) (*qeIdentity, error) {
	var q qeIdentity
	if err := canon.Lenient(signed, maxCollateral, 16, &q); err != nil {
		return nil, err
	}
	if q.ID != "TD_QE" || q.Version != 2 {
		return nil, fault.Invalidf("the enclave identity is not of TD_QE in version 2")
	}
	return &q, nil
}

// parseIssued reads a certificate with this name that the root issued: the signer
// of collateral, or an authority of PCK certificates.
func parseIssued(text []byte, root *x509.Certificate, name string) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, fault.Invalidf("%s is no certificate in PEM", name)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fault.Invalidf("the certificate of %s cannot be read", name).Because(err)
	}
	if block, rest = pem.Decode(rest); block != nil { // the root may stand behind it
		if !bytes.Equal(block.Bytes, root.Raw) {
			return nil, fault.Invalidf("the certificate of %s does not lead to Intel's root", name)
		}
	}
	if len(bytes.TrimSpace(rest)) > 0 || cert.Subject.CommonName != name || cert.IsCA != (name != nameSigning) {
		return nil, fault.Invalidf("the certificate is not that of %s", name)
	}
	return cert, issuedBy(cert, root)
}

func verifies(cert *x509.Certificate, signed, signature []byte) bool {
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return false
	}
	sum := sha256.Sum256(signed)
	x, y := numbers(signature)
	return ecdsa.Verify(key, sum[:], x, y)
}

// platform finds the level of a platform: the first one that it reaches in every
// component (PCS API v4, how to determine the TCB status).
func (t *tcbInfo) platform(p *pck, svn []byte) *level {
	from := 0
	if svn[1] > 0 { // the first two are the module's, which has an identity of its own
		from = 2
	}
	for i := range t.Levels {
		l := &t.Levels[i]
		reached := p.pceSVN >= l.TCB.PCESVN
		for n := range 16 {
			reached = reached && p.svns[n] >= l.TCB.SGX[n].SVN && (n < from || int(svn[n]) >= l.TCB.TDX[n].SVN)
		}
		if reached {
			return l
		}
	}
	return nil
}

// moduleOf finds the identity that a quote's TDX module has to have, and its
// level; the level is nil for modules of version 0, which have none.
func (t *tcbInfo) moduleOf(svn []byte) (*module, *level) {
	if svn[1] == 0 {
		return &t.Module, nil
	}
	id := fmt.Sprintf("TDX_%02X", svn[1])
	for i := range t.Modules {
		m := &t.Modules[i]
		if m.ID != id {
			continue
		}
		return m, reached(m.Levels, int(svn[0]))
	}
	return nil, nil
}

func reached(levels []level, svn int) *level {
	for i := range levels {
		if svn >= levels[i].TCB.ISVSVN {
			return &levels[i]
		}
	}
	return nil
}

// masked reports whether a value equals an expected one in the bits of a mask,
// both of them hex.
func masked(value []byte, expected, mask string) bool {
	e, err1 := hex.DecodeString(expected)
	m, err2 := hex.DecodeString(mask)
	if err1 != nil || err2 != nil || len(e) != len(value) || len(m) != len(value) {
		return false
	}
	for i := range value {
		if value[i]&m[i] != e[i] {
			return false
		}
	}
	return true
}

// matches checks a QE report against the identity.
func (q *qeIdentity) matches(report []byte) bool {
	// miscselect is a number in the document, and little-endian in the report.
	misc, mask := reversed(q.Misc), reversed(q.MiscMask)
	return masked(report[16:20], misc, mask) && masked(report[48:64], q.Attributes, q.AttrMask) &&
		strings.EqualFold(hexOf(report[128:160]), q.Signer) && int(binary.LittleEndian.Uint16(report[256:])) == q.ProdID
}

func reversed(text string) string {
	b, err := hex.DecodeString(text)
	if err != nil {
		return ""
	}
	slices.Reverse(b)
	return hexOf(b)
}

// converge is the state of a platform whose firmware, module and quoting enclave
// have states of their own (PCS API v4; Intel's verifier does the same).
func converge(platform string, others ...string) string {
	for _, o := range others {
		switch o {
		case "Revoked":
			return "Revoked"
		case "OutOfDate":
			switch platform {
			case "UpToDate", "SWHardeningNeeded":
				platform = "OutOfDate"
			case "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded":
				platform = "OutOfDateConfigurationNeeded"
			}
		}
	}
	return platform
}

// known are the states that Intel gives.
var known = []string{
	"UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded", "Revoked",
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
