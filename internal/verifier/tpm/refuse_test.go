package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// software is what a TPM would say, said by software: well signed, and wrong where
// a test wants it.
type software struct {
	key       crypto.Signer
	shown     crypto.PublicKey // nil: that of key
	banks     []byte           // count and selections
	nonce     []byte
	digest    []byte // nil: of the registers
	behind    []byte
	registers [registers][sha256.Size]byte
}

var everything = []byte{0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0xff}

func (s software) evidence(t *testing.T) json.RawMessage {
	t.Helper()
	be := binary.BigEndian
	var all []byte
	pcrs := make([]string, registers)
	for i, v := range s.registers {
		all = append(all, v[:]...)
		pcrs[i] = hex.EncodeToString(v[:])
	}
	if s.digest == nil {
		sum := sha256.Sum256(all)
		s.digest = sum[:]
	}
	message := be.AppendUint16(be.AppendUint32(nil, generated), attestQuote)
	message = append(message, 0, 0)
	message = append(be.AppendUint16(message, uint16(len(s.nonce))), s.nonce...)
	message = append(append(message, make([]byte, 16)...), 1)
	message = append(append(message, make([]byte, 8)...), s.banks...)
	message = append(be.AppendUint16(message, uint16(len(s.digest))), s.digest...)
	message = append(message, s.behind...)
	sum := sha256.Sum256(message)
	var signature []byte
	switch key := s.key.(type) {
	case *rsa.PrivateKey:
		made, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		signature = append(be.AppendUint16([]byte{0, algRSASSA, 0, 0x0b}, uint16(len(made))), made...)
	case *ecdsa.PrivateKey:
		x, y, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		signature = []byte{0, algECDSA, 0, 0x0b}
		for _, n := range []*big.Int{x, y} {
			signature = append(be.AppendUint16(signature, uint16(len(n.Bytes()))), n.Bytes()...)
		}
	default:
		signature = append([]byte{0, algRSASSA, 0, 0x0b, 1, 0}, make([]byte, 256)...)
	}
	if s.shown == nil {
		s.shown = s.key.Public()
	}
	der, err := x509.MarshalPKIXPublicKey(s.shown)
	if err != nil {
		t.Fatal(err)
	}
	var w madeEvidence
	b64 := base64.StdEncoding.EncodeToString
	w.AK, w.Quote.Message, w.Quote.Signature = b64(der), b64(message), b64(signature)
	if w.Quote.PCRs, err = json.Marshal(pcrs); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Everything but the one thing is good: the check that is named refuses it.
func TestVerifier_RefusesWhatIsWellSigned(t *testing.T) {
	digest := bytes.Repeat([]byte{7}, 48)
	strong := must(rsa.GenerateKey(rand.Reader, 2048))
	other := must(rsa.GenerateKey(rand.Reader, 2048))
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	short := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	longer := sha512.Sum384(make([]byte, registers*sha256.Size))
	inits := bytes.Repeat([]byte{9}, 32)
	for name, c := range map[string]struct {
		change func(s *software)
		inits  []byte
		kind   fault.Kind
		check  string
	}{
		"nothing":                   {func(*software) {}, nil, 0, ""},
		"nothing, by P-521":         {func(s *software) { s.key = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) }, nil, 0, ""},
		"a key of 1024 bits":        {func(s *software) { s.key = weak }, nil, fault.Denied, "ak-strength"},
		"a key on P-224":            {func(s *software) { s.key = short }, nil, fault.Denied, "ak-strength"},
		"a key of Ed25519":          {func(s *software) { s.key = edwards }, nil, fault.Denied, "ak-strength"},
		"an exponent of 3":          {func(s *software) { s.shown = &rsa.PublicKey{N: strong.N, E: 3} }, nil, fault.Denied, "ak-strength"},
		"swapped keys":              {func(s *software) { s.shown = other.Public() }, nil, fault.Denied, "quote-signature"},
		"a key of another kind":     {func(s *software) { s.shown = short.Public() }, nil, fault.Denied, "quote-signature"},
		"no registers":              {func(s *software) { s.banks = make([]byte, 4) }, nil, fault.Denied, "pcr-selection"},
		"one register less":         {func(s *software) { s.banks = []byte{0, 0, 0, 1, 0, 0x0b, 3, 0xfe, 0xff, 0xff} }, nil, fault.Denied, "pcr-selection"},
		"the bank of SHA-1":         {func(s *software) { s.banks = []byte{0, 0, 0, 1, 0, 4, 3, 0xff, 0xff, 0xff} }, nil, fault.Denied, "pcr-selection"},
		"two banks":                 {func(s *software) { s.banks = append([]byte{0, 0, 0, 2, 0, 4, 3, 0, 0, 0}, everything[4:]...) }, nil, fault.Denied, "pcr-selection"},
		"a bank twice":              {func(s *software) { s.banks = append([]byte{0, 0, 0, 2}, append(everything[4:], everything[4:]...)...) }, nil, fault.Invalid, "form"},
		"register 24":               {func(s *software) { s.banks = []byte{0, 0, 0, 1, 0, 0x0b, 4, 0xff, 0xff, 0xff, 1} }, nil, fault.Invalid, "form"},
		"a selection of 255 bytes":  {func(s *software) { s.banks = []byte{0, 0, 0, 1, 0, 0x0b, 255, 0xff, 0xff, 0xff} }, nil, fault.Invalid, "form"},
		"four billion banks":        {func(s *software) { s.banks = append([]byte{0xff, 0xff, 0xff, 0xff}, everything[4:]...) }, nil, fault.Invalid, "form"},
		"other registers":           {func(s *software) { s.digest = make([]byte, 32) }, nil, fault.Denied, "pcr-digest"},
		"no digest":                 {func(s *software) { s.digest = []byte{} }, nil, fault.Denied, "pcr-digest"},
		"a digest of another hash":  {func(s *software) { s.digest = longer[:] }, nil, fault.Denied, "pcr-digest"},
		"a digest of 65 bytes":      {func(s *software) { s.digest = make([]byte, 65) }, nil, fault.Invalid, "form"},
		"a byte behind":             {func(s *software) { s.behind = []byte{0} }, nil, fault.Invalid, "form"},
		"another handshake":         {func(s *software) { s.nonce = bytes.Repeat([]byte{8}, 32) }, nil, fault.Denied, "report-data"},
		"no nonce":                  {func(s *software) { s.nonce = nil }, nil, fault.Denied, "report-data"},
		"a nonce with a tail":       {func(s *software) { s.nonce = append(bytes.Clone(digest), bytes.Repeat([]byte{1}, 16)...) }, nil, fault.Denied, "report-data"},
		"nothing, with init-data":   {func(s *software) { s.registers[8] = sha256.Sum256(append(make([]byte, 32), inits...)) }, inits, 0, ""},
		"no init-data":              {func(*software) {}, inits, fault.Denied, "init-data"},
		"init-data of 48 bytes":     {func(*software) {}, digest, fault.Denied, "init-data"},
		"init-data, and more later": {func(s *software) { s.registers[8][31] = 1 }, inits, fault.Denied, "init-data"},
	} {
		s := software{key: strong, banks: everything, nonce: digest[:32]}
		c.change(&s)
		_, checks, err := judge(t, s.evidence(t), evidence.Binding{ReportData: digest, InitData: c.inits})
		switch failed := evidencetest.Failed(checks); {
		case c.check == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.check != "" && (!fault.Is(err, c.kind) || !slices.Contains(failed, c.check)):
			t.Errorf("%s: %v, failed %v", name, err, failed)
		}
	}
}

func TestEK_Judge_RefusesWhatIsNoEndorsementKey(t *testing.T) {
	m := newManufacturer(t, "maker")
	a, err := NewAuthorities(m.bundle())
	if err != nil {
		t.Fatal(err)
	}
	now := evidencetest.Now
	for check, change := range map[string]func(c *x509.Certificate){
		"":             func(*x509.Certificate) {},
		"ek-key-usage": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature },
		"ek-purpose":   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"ek-leaf": func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageKeyAgreement|x509.KeyUsageCertSign
		},
		"ek-tpm": func(c *x509.Certificate) { c.ExtraExtensions = nil },
		"ek-chain": func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
		},
		"ek-chain ": func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, 0, -1) },
		" ek-chain": func(c *x509.Certificate) { c.NotBefore = now.AddDate(0, 0, 1) },
	} {
		template := m.template(7)
		change(template)
		ek, err := ParseEK(m.sign(template, m.cert).Raw)
		if err != nil {
			t.Fatal(err)
		}
		var c evidence.Checks
		ek.Judge(&c, a, now)
		if got := strings.Join(evidencetest.Failed(c), " "); got != strings.TrimSpace(check) {
			t.Errorf("%q: failed %q", check, got)
		}
	}
	// Another maker of the same name is another.
	var c evidence.Checks
	newManufacturer(t, "maker").ek(7).Judge(&c, a, now)
	if got := evidencetest.Failed(c); !slices.Equal(got, []string{"ek-chain"}) {
		t.Errorf("of a maker of the same name: failed %v", got)
	}
}

// What is built of evidence is bounded by the evidence.
func TestVerifier_AllocatesNoMoreThanTwiceTheEvidence(t *testing.T) {
	body, q := vector(t)
	for name, body := range map[string]json.RawMessage{
		"evidence":       body,
		"many registers": spoil(t, body, func(w *madeEvidence) { w.Quote.PCRs = json.RawMessage("[" + strings.Repeat(`"",`, 1000) + `""]`) }),
	} {
		t.Run(name, func(t *testing.T) {
			evidencetest.AtMost(t, 2*len(body), func() { _, _, _ = judge(t, body, evidence.Binding{ReportData: q.Nonce}) })
		})
	}
}
