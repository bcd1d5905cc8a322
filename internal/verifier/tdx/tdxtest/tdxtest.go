// Package tdxtest is a made-up manufacturer of TDX platforms: it makes quotes and
// collateral that are good by a root of its own, and lets a test spoil each part
// before it is signed.
package tdxtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
)

// Sizes, offsets and names of the formats, written down a second time.
const (
	headerSize, report10, report15, qeReportSize = 48, 584, 648, 384
	atReportData                                 = 520
	namePlatform, namePCK, nameSigning           = "Intel SGX PCK Platform CA", "Intel SGX PCK Certificate", "Intel SGX TCB Signing"
	signerQE                                     = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"
)

var (
	oidSGX      = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	vendorIntel = []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}
)

type part struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func sign(key *ecdsa.PrivateKey, message []byte) []byte {
	sum := sha256.Sum256(message)
	x, y, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		panic(err)
	}
	return append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
}

// Bound is what quotes are bound to.
var Bound = []byte("forty-eight bytes of a digest, which binds a key")

// Intel is a made-up manufacturer with one platform.
type Intel struct {
	RootKey, CAKey, PCKKey, SignerKey, AttestationKey *ecdsa.PrivateKey
	Root, CA, Signer                                  *x509.Certificate

	// What may be changed, or spoiled, before evidence is made.
	Version   int // of quotes: 4 or 5
	From, To  time.Time
	FMSPC     []byte
	SVNs      [16]int
	PCESVN    int
	Report    func(b []byte)         // changes the TD report
	Header    func(b []byte)         // the quote's header
	QEReport  func(b []byte)         // that of the quoting enclave
	TCB, QE   func(m map[string]any) // the documents
	PCKIssuer *ecdsa.PrivateKey      // who signs the PCK
	Revoked   map[string][]*big.Int  // serials, by the issuer's name
	RevokedTo time.Time
}

// New makes its keys and certificates.
func New() *Intel {
	n := &Intel{
		RootKey: newKey(), CAKey: newKey(), PCKKey: newKey(), SignerKey: newKey(), AttestationKey: newKey(), Version: 4,
		From: evidencetest.Now.AddDate(-1, 0, 0), To: evidencetest.Now.AddDate(6, 0, 0), FMSPC: []byte{0, 1, 2, 3, 4, 0xab}, PCESVN: 11,
		SVNs: [16]int{5, 5, 13, 2, 3, 1, 0, 3},
	}
	n.PCKIssuer = n.CAKey
	n.Root = n.certify("Intel SGX Root CA", 1, n.RootKey, nil, n.RootKey, true, nil)
	n.CA = n.certify(namePlatform, 2, n.CAKey, n.Root, n.RootKey, true, nil)
	n.Signer = n.certify(nameSigning, 3, n.SignerKey, n.Root, n.RootKey, false, nil)
	return n
}

func (n *Intel) certify(name string, serial int64, key *ecdsa.PrivateKey, parent *x509.Certificate, signer *ecdsa.PrivateKey, ca bool, extensions []pkix.Extension) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: n.From, NotAfter: n.To, IsCA: ca, BasicConstraintsValid: true,
		SignatureAlgorithm: x509.ECDSAWithSHA256, ExtraExtensions: extensions,
	}
	if ca {
		t.KeyUsage, t.SubjectKeyId = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, []byte{byte(serial)}
	}
	if parent == nil {
		parent = t
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer))))
}

func (n *Intel) pck() *x509.Certificate {
	under := func(oid asn1.ObjectIdentifier, i ...int) asn1.ObjectIdentifier {
		return append(append(asn1.ObjectIdentifier{}, oid...), i...)
	}
	raw := func(v any) asn1.RawValue { return asn1.RawValue{FullBytes: must(asn1.Marshal(v))} }
	var tcb []part
	add := func(i, v int) {
		tcb = append(tcb, part{under(oidSGX, 2, i), raw(v)})
	}
	for i, v := range n.SVNs {
		add(i+1, v)
	}
	add(17, n.PCESVN)
	all := []part{{under(oidSGX, 2), raw(tcb)}, {under(oidSGX, 3), raw([]byte{0, 0})}, {under(oidSGX, 4), raw(n.FMSPC)}, {under(oidSGX, 6), raw(bytes.Repeat([]byte{7}, 16))}}
	parent := *n.CA // with its name, whoever signs
	parent.PublicKey = n.PCKIssuer.Public()
	return n.certify(namePCK, 4, n.PCKKey, &parent, n.PCKIssuer, false, []pkix.Extension{{Id: oidSGX, Value: must(asn1.Marshal(all))}})
}

// Quote makes a quote of the platform.
func (n *Intel) Quote() []byte {
	le := binary.LittleEndian
	header := make([]byte, headerSize)
	le.PutUint16(header, uint16(n.Version))
	le.PutUint16(header[2:], 2)
	le.PutUint32(header[4:], 0x81)
	copy(header[12:], vendorIntel)
	if n.Header != nil {
		n.Header(header)
	}
	size, kind := report10, []byte(nil)
	if n.Version == 5 {
		size, kind = report15, []byte{3, 0, 0x88, 2, 0, 0}
	}
	report := make([]byte, size)
	report[0], report[2] = 3, 5
	copy(report[atReportData:], Bound)
	if n.Report != nil {
		n.Report(report)
	}
	signed := append(append(bytes.Clone(header), kind...), report...)
	point := append(n.AttestationKey.X.FillBytes(make([]byte, 32)), n.AttestationKey.Y.FillBytes(make([]byte, 32))...)
	auth := bytes.Repeat([]byte{9}, 32)
	qe := make([]byte, qeReportSize)
	copy(qe[48:], must(hex.DecodeString("11000000000000000000000000000000")))
	copy(qe[128:], must(hex.DecodeString(signerQE)))
	le.PutUint16(qe[256:], 2)
	le.PutUint16(qe[258:], 4)
	sum := sha256.Sum256(append(bytes.Clone(point), auth...))
	copy(qe[320:], sum[:])
	if n.QEReport != nil {
		n.QEReport(qe)
	}
	var chain []byte
	for _, cert := range []*x509.Certificate{n.pck(), n.CA, n.Root} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	inner := append(append(bytes.Clone(qe), sign(n.PCKKey, qe)...), le.AppendUint16(nil, uint16(len(auth)))...)
	inner = append(append(inner, auth...), 5, 0)
	inner = append(le.AppendUint32(inner, uint32(len(chain))), chain...)
	data := append(append(sign(n.AttestationKey, signed), point...), 6, 0)
	data = append(le.AppendUint32(data, uint32(len(inner))), inner...)
	return append(le.AppendUint32(signed, uint32(len(data))), data...)
}

// Shelf is the manufacturer's collateral.
func (n *Intel) Shelf() evidence.Shelf {
	levels := func(status string, svn int) map[string]any {
		return map[string]any{"tcb": map[string]any{"isvsvn": svn}, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": status}
	}
	platform := func(status string, pce int, advisories ...string) map[string]any {
		list := func(first ...int) []any {
			var out []any
			for i := range 16 {
				v := 0
				if i < len(first) {
					v = first[i]
				}
				out = append(out, map[string]any{"svn": v})
			}
			return out
		}
		return map[string]any{
			"tcb":     map[string]any{"sgxtcbcomponents": list(5, 5, 2, 2, 3, 1, 0, 3), "tdxtcbcomponents": list(3, 0, 5), "pcesvn": pce},
			"tcbDate": "2023-02-15T00:00:00Z", "tcbStatus": status, "advisoryIDs": advisories,
		}
	}
	zeros := strings.Repeat("0", 96)
	dates := map[string]any{"issueDate": evidencetest.Now.AddDate(0, 0, -10), "nextUpdate": evidencetest.Now.AddDate(0, 0, 20)}
	mod := map[string]any{"mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF"}
	tcb := map[string]any{
		"id": "TDX", "version": 3, "issueDate": dates["issueDate"], "nextUpdate": dates["nextUpdate"], "fmspc": strings.ToUpper(hex.EncodeToString(n.FMSPC)), "pceId": "0000",
		"tdxModule":           mod,
		"tdxModuleIdentities": []any{map[string]any{"id": "TDX_01", "mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF", "tcbLevels": []any{levels("UpToDate", 4), levels("OutOfDate", 2)}}},
		"tcbLevels":           []any{platform("UpToDate", 11), platform("OutOfDate", 5, "INTEL-SA-00837"), platform("Revoked", 2)},
	}
	qe := map[string]any{
		"id": "TD_QE", "version": 2, "issueDate": dates["issueDate"], "nextUpdate": dates["nextUpdate"], "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
		"attributes": "11000000000000000000000000000000", "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000", "mrsigner": strings.ToUpper(signerQE), "isvprodid": 2,
		"tcbLevels": []any{levels("UpToDate", 4), levels("OutOfDate", 2)},
	}
	for change, m := range map[*func(map[string]any)]map[string]any{&n.TCB: tcb, &n.QE: qe} {
		if *change != nil {
			(*change)(m)
		}
	}
	out := evidence.Shelf{}
	put := func(kind, key, member string, m map[string]any) {
		text := must(json.Marshal(m))
		data := fmt.Sprintf(`{"%s":%s,"signature":"%x"}`, member, text, sign(n.SignerKey, text))
		out.Put(evidence.Endorsement{Kind: kind, Key: key, Data: []byte(data)})
	}
	put("tdx-tcb-info", hex.EncodeToString(n.FMSPC), "tcbInfo", tcb)
	put("tdx-qe-identity", "", "enclaveIdentity", qe)
	out.Put(evidence.Endorsement{Kind: "tdx-tcb-signer", Data: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Signer.Raw})})
	for name, serials := range n.Revoked {
		issuer, key := n.Root, n.RootKey
		if name == namePlatform {
			issuer, key = n.CA, n.CAKey
		}
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: n.From, NextUpdate: n.RevokedTo}
		for _, s := range serials {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: n.From})
		}
		out.Put(evidence.Endorsement{Kind: "tdx-crl", Key: name, Data: must(x509.CreateRevocationList(rand.Reader, list, issuer, key))})
	}
	return out
}
