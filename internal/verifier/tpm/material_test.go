package tpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// manufacturer is a made-up maker of TPMs.
type manufacturer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newManufacturer(t *testing.T, name string) *manufacturer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &manufacturer{t: t, key: key}
	m.cert = m.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte(name),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: evidencetest.Now.AddDate(-1, 0, 0), NotAfter: evidencetest.Now.AddDate(9, 0, 0),
	}, nil)
	return m
}

func (m *manufacturer) sign(c, parent *x509.Certificate) *x509.Certificate {
	m.t.Helper()
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, m.key.Public(), m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return cert
}

// template is the certificate of an endorsement key, with the TPM's names in it.
func (m *manufacturer) template(serial int64) *x509.Certificate {
	m.t.Helper()
	names := pkix.RDNSequence{{{Type: oidManufacturer, Value: "id:4D414445"}, {Type: oidModel, Value: "made up"}, {Type: oidFirmware, Value: "id:1"}}}
	rdn, err := asn1.Marshal(names)
	if err != nil {
		m.t.Fatal(err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: rdn}})
	if err != nil {
		m.t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), KeyUsage: x509.KeyUsageKeyAgreement, NotBefore: m.cert.NotBefore, NotAfter: m.cert.NotAfter,
		ExtraExtensions: []pkix.Extension{{Id: oidAltName, Critical: true, Value: san}},
	}
}

func (m *manufacturer) ek(serial int64) *EK {
	m.t.Helper()
	ek, err := ParseEK(m.sign(m.template(serial), m.cert).Raw)
	if err != nil {
		m.t.Fatal(err)
	}
	return ek
}

func (m *manufacturer) crl(from, to time.Time, serials ...int64) []byte {
	m.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: from, NextUpdate: to}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: from})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, m.cert, m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	return der
}

func (m *manufacturer) bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Raw})
}

func only(t *testing.T, list []evidence.Endorsement, err error) evidence.Endorsement {
	t.Helper()
	if err != nil || len(list) != 1 {
		t.Fatalf("recognised %v, %v", list, err)
	}
	return list[0]
}

func TestEK_Judge_AsksTheRevocationList(t *testing.T) {
	m, now := newManufacturer(t, "maker"), evidencetest.Now
	shelf := evidence.Shelf{}
	list, err := RecogniseAuthorities("bundles/maker.pem", m.bundle())
	shelf.Put(only(t, list, err))
	good, bad := m.ek(7), m.ek(8)
	result := func(ek *EK) evidence.Result {
		t.Helper()
		a, err := Bundles(shelf)
		if err != nil {
			t.Fatal(err)
		}
		var c evidence.Checks
		ek.Judge(&c, a, now)
		for _, name := range evidencetest.Failed(c) {
			if name != "ek-revocation" {
				t.Errorf("failed %s", name)
			}
		}
		return evidencetest.Result(c, "ek-revocation")
	}
	if r := result(bad); r != evidence.Skipped {
		t.Errorf("without a list: %s", r)
	}
	for name, x := range map[string]struct {
		list      []byte
		good, bad evidence.Result
	}{
		"current": {m.crl(now.Add(-time.Hour), now.Add(time.Hour), 8), evidence.Passed, evidence.Failed},
		"expired": {m.crl(now.Add(-2*time.Hour), now.Add(-time.Hour)), evidence.Failed, evidence.Failed},
		"to come": {m.crl(now.Add(time.Hour), now.Add(2*time.Hour)), evidence.Failed, evidence.Failed},
	} {
		found, err := Recognise(x.list)
		e := only(t, found, err)
		if err := Vouch(e, shelf); err != nil {
			t.Fatal(err)
		}
		shelf.Put(e)
		if g, b := result(good), result(bad); g != x.good || b != x.bad {
			t.Errorf("%s: the good one %s, the revoked one %s", name, g, b)
		}
	}
}

// A list by somebody with the same name and identifier is not vouched for, and is
// believed by nobody if it gets onto the shelf all the same.
func TestVouch_RefusesAListOfAnother(t *testing.T) {
	m, other, now := newManufacturer(t, "maker"), newManufacturer(t, "maker"), evidencetest.Now
	shelf := evidence.Shelf{}
	list, err := RecogniseAuthorities("maker.pem", m.bundle())
	shelf.Put(only(t, list, err))
	found, err := Recognise(other.crl(now.Add(-time.Hour), now.Add(time.Hour)))
	e := only(t, found, err)
	if err := Vouch(e, shelf); !fault.Is(err, fault.Invalid) {
		t.Errorf("another's list: %v", err)
	}
	if err := Vouch(e, evidence.Shelf{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("nobody is known: %v", err)
	}
	shelf.Put(e)
	a, err := Bundles(shelf)
	if err != nil {
		t.Fatal(err)
	}
	var c evidence.Checks
	m.ek(7).Judge(&c, a, now)
	if evidencetest.Result(c, "ek-revocation") != evidence.Failed {
		t.Errorf("checks %v", c)
	}
	for _, name := range []string{"", "/", "a b", "x\n"} {
		if _, err := RecogniseAuthorities(name, m.bundle()); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzRecognise(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if list, err := Recognise(data); err == nil && len(list) == 1 {
			_ = Vouch(list[0], nil)
		}
	})
}
