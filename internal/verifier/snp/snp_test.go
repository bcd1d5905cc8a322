package snp

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func genuine(t testing.TB) *Verifier {
	t.Helper()
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestVerifier_AcceptsRealGenoaEvidence is evidence of a real machine, as a guest
// sent it to a real broker.
func TestVerifier_AcceptsRealGenoaEvidence(t *testing.T) {
	body := evidencetest.Vector(t, "snp/genoa-v3-evidence.json")
	r, _, err := parse(body)
	if err != nil {
		t.Fatal(err)
	}
	claims, checks, err := judge(t, genuine(t), body, evidence.Binding{ReportData: r.ReportData()}, evidencetest.Now)
	if err != nil {
		t.Fatalf("%v\n%+v", err, checks)
	}
	want := map[string]any{
		"policy_abi_major": 0.0, "policy_abi_minor": 0.0, "policy_smt_allowed": true, "policy_migrate_ma": false,
		"policy_debug_allowed": false, "policy_single_socket": false,
		"reported_tcb_bootloader": 10.0, "reported_tcb_tee": 0.0, "reported_tcb_snp": 23.0, "reported_tcb_microcode": 25.0,
		"platform_smt_enabled": true, "platform_tsme_enabled": false,
		"measurement": "6a6519d757e68c2e939c9dbbbc1828498e8de35d2766dd05f1a2cca5059d0cf4ae62a36d75c837974dd50b315506e73e",
		"report_data": hexOf(r.ReportData()), "init_data": strings.Repeat("0", 64), "chip_id": hexOf(r.ChipID()),
	}
	if d := cmp.Diff(want, claims.Values); d != "" {
		t.Error(d)
	}
	if claims.Class != evidence.CPU || claims.InitData != "" || claims.ReportData != hexOf(r.ReportData()) {
		t.Errorf("%+v", claims)
	}
	for _, name := range []string{"report-version", "vmpl", "processor", "endorsement-chain", "endorsement-dates", "reported-tcb", "chip-id", "report-signature", "report-data"} {
		if evidencetest.Result(checks, name) != evidence.Passed {
			t.Errorf("%s is %q", name, evidencetest.Result(checks, name))
		}
	}
	if evidencetest.Result(checks, "endorsement-revocation") != evidence.Skipped {
		t.Error("revocation was checked without a list")
	}

	// The nonce of a real handshake is gone: another one must be refused.
	for name, b := range map[string]evidence.Binding{"another nonce": {ReportData: bound}, "none": {}} {
		if _, checks, err := judge(t, genuine(t), body, b, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"report-data"}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The same evidence before its certificate was valid, and after.
	for _, at := range []time.Time{evidencetest.Now.AddDate(-10, 0, 0), evidencetest.Now.AddDate(10, 0, 0)} {
		if _, checks, err := judge(t, genuine(t), body, evidence.Binding{ReportData: r.ReportData()}, at); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"endorsement-dates"}) {
			t.Errorf("%s: %v", at, err)
		}
	}
	if _, checks, err := judge(t, genuine(t), body, evidence.Binding{ReportData: r.ReportData(), InitData: inits}, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"init-data"}) {
		t.Errorf("init-data that the host did not put in: %v", err)
	}
}

// TestVerifier_JudgesTheRealMilanReport whose signature is good, and whose version
// is too old for a guest of today.
func TestVerifier_JudgesTheRealMilanReport(t *testing.T) {
	report := evidencetest.Vector(t, "snp/milan-v2-report.bin")
	r, err := ParseReport(report)
	if err != nil {
		t.Fatal(err)
	}
	b := evidence.Binding{ReportData: r.ReportData()}
	body, err := Wrap(report, evidencetest.Vector(t, "snp/milan-v2-vcek.der"), false)
	if err != nil {
		t.Fatal(err)
	}
	_, checks, err := judge(t, genuine(t), body, b, evidencetest.Now)
	if !fault.Is(err, fault.Denied) || evidencetest.Result(checks, "report-signature") != evidence.Passed || evidencetest.Result(checks, "chip-id") != evidence.Passed {
		t.Fatalf("%v %+v", err, checks)
	}
	if !slices.Equal(evidencetest.Failed(checks), []string{"report-version"}) {
		t.Errorf("failed: %v", evidencetest.Failed(checks))
	}
	body, err = Wrap(report, evidencetest.Vector(t, "snp/invalid-vcek-legacy.der"), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, checks, err := judge(t, genuine(t), body, b, evidencetest.Now); err == nil || evidencetest.Result(checks, "reported-tcb") == evidence.Passed {
		t.Errorf("a VCEK of another TCB: %v %+v", err, checks)
	}
}

func TestMakers_ArePinned(t *testing.T) {
	m, err := amd()
	if err != nil {
		t.Fatal(err)
	}
	for g, want := range map[Generation]string{
		Milan: "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
		Genoa: "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
		Turin: "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
	} {
		if sum := sha256.Sum256(m.by[g].ark.Raw); hex.EncodeToString(sum[:]) != want {
			t.Errorf("the root of %s is %x", g, sum)
		}
		text := evidencetest.Vector(t, "snp/"+strings.ToLower(string(g))+"-ask-ark-asvk.pem")
		vector, err := newMaker(text)
		if err != nil || !vector.ark.Equal(m.by[g].ark) || !vector.ask.Equal(m.by[g].ask) || !vector.asvk.Equal(m.by[g].asvk) {
			t.Errorf("%s: the certificates differ from those of the vectors: %v", g, err)
		}
	}
}

func TestVerifier_AcceptsEachGenerationAndKindOfKey(t *testing.T) {
	for _, g := range []Generation{Milan, Genoa, Turin} {
		for _, vlek := range []bool{false, true} {
			a, c := newAuthority(g), newChip(g)
			c.vlek = vlek
			body, err := Wrap(c.report(leafKey, nil)[:], c.endorse(a, leafKey), vlek)
			if err != nil {
				t.Fatal(err)
			}
			claims, checks, err := judge(t, verifierOf(t, a, g, nil), body, evidence.Binding{ReportData: bound, InitData: inits}, evidencetest.Now)
			if err != nil || claims.InitData != hexOf(inits) {
				t.Errorf("%s vlek %t: %v %+v", g, vlek, err, checks)
			}
			if skipped := evidencetest.Result(checks, "chip-id") == evidence.Skipped; skipped != vlek {
				t.Errorf("%s vlek %t: chip-id is %s", g, vlek, evidencetest.Result(checks, "chip-id"))
			}
		}
	}
}

// Every case is well signed by the made-up manufacturer unless it says so: what
// refuses it is the one check that is named.
func TestVerifier_RefusesWhatDoesNotFit(t *testing.T) {
	for name, c := range map[string]struct {
		g      Generation
		chip   func(*chip)
		report func(*Report)
		after  func(*Report)
		check  string
	}{
		"version 2":               {Milan, nil, func(r *Report) { r[0] = 2; clear(r[atCPUID : atCPUID+3]) }, nil, "report-version"},
		"version 6":               {Milan, nil, func(r *Report) { r[0] = 6 }, nil, "report-version"},
		"VMPL 1":                  {Genoa, nil, func(r *Report) { r[atVMPL] = 1 }, nil, "vmpl"},
		"VMPL with a high byte":   {Genoa, nil, func(r *Report) { r[atVMPL+3] = 1 }, nil, "vmpl"},
		"another algorithm":       {Genoa, nil, func(r *Report) { r[atAlgorithm] = 2 }, nil, "signature-algorithm"},
		"an unknown processor":    {Genoa, nil, func(r *Report) { r[atCPUID] = 0x20 }, nil, "processor"},
		"another generation":      {Genoa, nil, func(r *Report) { copy(r[atCPUID:], []byte{0x19, 1}) }, nil, "endorsement-generation"},
		"another chip":            {Genoa, func(c *chip) { c.id[9]++ }, nil, nil, "chip-id"},
		"a masked chip":           {Genoa, nil, func(r *Report) { clear(r[atChip:atCommittedTCB]) }, nil, "chip-id"},
		"a longer chip id":        {Turin, nil, func(r *Report) { r[atChip+8] = 1 }, nil, "chip-id"},
		"older firmware":          {Genoa, func(c *chip) { c.tcb.SNP-- }, nil, nil, "reported-tcb"},
		"another FMC":             {Turin, func(c *chip) { c.tcb.FMC++ }, nil, nil, "reported-tcb"},
		"newer microcode":         {Milan, func(c *chip) { c.tcb.Microcode++ }, nil, nil, "reported-tcb"},
		"an expired certificate":  {Genoa, func(c *chip) { c.to = evidencetest.Now.Add(-time.Second) }, nil, nil, "endorsement-dates"},
		"one not valid yet":       {Genoa, func(c *chip) { c.from = evidencetest.Now.Add(time.Second) }, nil, nil, "endorsement-dates"},
		"SHA-256 in the chain":    {Genoa, func(c *chip) { c.alg = x509.SHA256WithRSAPSS }, nil, nil, "endorsement-chain"},
		"PKCS#1 in the chain":     {Genoa, func(c *chip) { c.alg = x509.SHA384WithRSA }, nil, nil, "endorsement-chain"},
		"no hardware id":          {Genoa, func(c *chip) { c.drop = oidHardware }, nil, nil, "endorsement-chain"},
		"no microcode version":    {Genoa, func(c *chip) { c.drop = oidMicrocode }, nil, nil, "endorsement-chain"},
		"no FMC version":          {Turin, func(c *chip) { c.drop = oidFMC }, nil, nil, "endorsement-chain"},
		"a report by a VLEK":      {Genoa, nil, func(r *Report) { r[atKey] = 1 << 2 }, nil, "signing-key"},
		"a report signed by none": {Genoa, nil, func(r *Report) { r[atKey] = 7 << 2 }, nil, "signing-key"},
		"a changed measurement":   {Genoa, nil, nil, func(r *Report) { r[atMeasurement]++ }, "report-signature"},
		"another R":               {Genoa, nil, nil, func(r *Report) { r[atR]++ }, "report-signature"},
		"a longer S":              {Genoa, nil, nil, func(r *Report) { r[atS+48] = 1 }, "report-signature"},
		"R and S of zero":         {Genoa, nil, nil, func(r *Report) { clear(r[atR:atRest]) }, "report-signature"},
		"another key's data":      {Genoa, nil, func(r *Report) { r[atReportData]++ }, nil, "report-data"},
		"bytes behind the digest": {Genoa, nil, func(r *Report) { r[atReportData+50] = 1 }, nil, "report-data"},
		"another init-data":       {Genoa, nil, func(r *Report) { r[atHost]++ }, nil, "init-data"},
	} {
		a, made := newAuthority(c.g), newChip(c.g)
		r := made.report(leafKey, c.report)
		if c.after != nil {
			c.after(r)
		}
		if c.chip != nil {
			c.chip(&made)
		}
		body, err := Wrap(r[:], made.endorse(a, leafKey), false)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, checks, err := judge(t, verifierOf(t, a, c.g, nil), body, evidence.Binding{ReportData: bound, InitData: inits}, evidencetest.Now)
		if !fault.Is(err, fault.Denied) || !slices.Contains(evidencetest.Failed(checks), c.check) {
			t.Errorf("%s: %v, failed %v", name, err, evidencetest.Failed(checks))
		}
	}
}

func TestVerifier_RefusesForeignKeysAndChains(t *testing.T) {
	a, c := newAuthority(Genoa), newChip(Genoa)
	good := c.report(leafKey, nil)
	swapped := c.endorse(a, otherKey)
	b := evidence.Binding{ReportData: bound, InitData: inits}
	body := must(Wrap(good[:], swapped, false))
	if _, checks, err := judge(t, verifierOf(t, a, Genoa, nil), body, b, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"report-signature"}) {
		t.Errorf("swapped keys: %v %v", err, evidencetest.Failed(checks))
	}
	body = must(Wrap(good[:], c.endorse(a, leafKey), false))
	if _, checks, err := judge(t, genuine(t), body, b, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"endorsement-chain"}) {
		t.Errorf("a made-up manufacturer: %v %v", err, evidencetest.Failed(checks))
	}
	body = must(Wrap(good[:], c.endorse(a, leafKey), true))
	if _, checks, err := judge(t, verifierOf(t, a, Genoa, nil), body, b, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Contains(evidencetest.Failed(checks), "endorsement-type") {
		t.Errorf("a VCEK that is called VLEK: %v %v", err, evidencetest.Failed(checks))
	}
	// The manufacturer's own certificates are never taken from evidence.
	body = must(Wrap(good[:], a.askCert.Raw, false))
	if _, checks, err := judge(t, verifierOf(t, a, Genoa, nil), body, b, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"endorsement-chain"}) {
		t.Errorf("an ASK as endorsement key: %v %v", err, evidencetest.Failed(checks))
	}
}

func TestVerifier_LooksForTheVCEK(t *testing.T) {
	a, c := newAuthority(Turin), newChip(Turin)
	r := c.report(leafKey, nil)
	body := must(Wrap(r[:], nil, false))
	b := evidence.Binding{ReportData: bound, InitData: inits}
	_, checks, err := judge(t, verifierOf(t, a, Turin, nil), body, b, evidencetest.Now)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err), "https://kdsintf.amd.com/vcek/v1/Turin/0102030405060708?fmcSPL=03&blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=200") {
		t.Errorf("%v %v", err, checks)
	}
	lower := c.report(leafKey, func(r *Report) { r[atVMPL] = 1 })
	_, checks, err = judge(t, verifierOf(t, a, Turin, nil), must(Wrap(lower[:], nil, false)), b, evidencetest.Now)
	if !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"vmpl"}) { // whatever the VCEK would say
		t.Errorf("of VMPL 1: %v %v", err, evidencetest.Failed(checks))
	}
	key := wantedBy(r, Turin)
	shelf := evidence.Shelf{}
	shelf.Put(evidence.Endorsement{Kind: KindVCEK, Key: key, Data: c.endorse(a, leafKey)})
	if _, checks, err := judge(t, verifierOf(t, a, Turin, shelf), body, b, evidencetest.Now); err != nil {
		t.Errorf("with the VCEK at hand: %v %v", err, evidencetest.Failed(checks))
	}
	c.vlek = true
	body = must(Wrap(c.report(leafKey, nil)[:], nil, false))
	if _, _, err := judge(t, verifierOf(t, a, Turin, shelf), body, b, evidencetest.Now); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a VLEK is not looked for: %v", err)
	}
}

func TestVerifier_AsksTheRevocationList(t *testing.T) {
	a, c := newAuthority(Genoa), newChip(Genoa)
	body := must(Wrap(c.report(leafKey, nil)[:], c.endorse(a, leafKey), false))
	b := evidence.Binding{ReportData: bound, InitData: inits}
	day := 24 * time.Hour
	for name, x := range map[string]struct {
		list   []byte
		result evidence.Result
	}{
		"revokes another":    {a.crl(evidencetest.Now.Add(-day), evidencetest.Now.Add(day), a.ark, a.arkCert, 9), evidence.Passed},
		"revokes the ASK":    {a.crl(evidencetest.Now.Add(-day), evidencetest.Now.Add(day), a.ark, a.arkCert, 2), evidence.Failed},
		"has expired":        {a.crl(evidencetest.Now.Add(-2*day), evidencetest.Now.Add(-day), a.ark, a.arkCert), evidence.Failed},
		"is not valid yet":   {a.crl(evidencetest.Now.Add(day), evidencetest.Now.Add(2*day), a.ark, a.arkCert), evidence.Failed},
		"is by another key":  {a.crl(evidencetest.Now.Add(-day), evidencetest.Now.Add(day), a.ask, a.askCert), evidence.Failed},
		"is no list":         {[]byte("?"), evidence.Failed},
		"names another's 77": {a.crl(evidencetest.Now.Add(-day), evidencetest.Now.Add(day), a.ark, a.arkCert, 77), evidence.Passed}, // the VCEK is the ASK's to revoke
	} {
		shelf := evidence.Shelf{}
		shelf.Put(evidence.Endorsement{Kind: KindCRL, Key: "Genoa", Data: x.list})
		_, checks, err := judge(t, verifierOf(t, a, Genoa, shelf), body, b, evidencetest.Now)
		if evidencetest.Result(checks, "endorsement-revocation") != x.result || (err == nil) != (x.result == evidence.Passed) {
			t.Errorf("a list that %s: %s, %v", name, evidencetest.Result(checks, "endorsement-revocation"), err)
		}
	}
}

func TestParse_RefusesMalformedEvidence(t *testing.T) {
	a, c := newAuthority(Genoa), newChip(Genoa)
	key := c.endorse(a, leafKey)
	good := string(must(Wrap(c.report(leafKey, nil)[:], key, false)))
	b := evidence.Binding{ReportData: bound, InitData: inits}
	v := verifierOf(t, a, Genoa, nil)
	if _, _, err := judge(t, v, json.RawMessage(good), b, evidencetest.Now); err != nil {
		t.Fatal(err)
	}
	replace := func(old, by string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("there is no %s", old)
		}
		return strings.Replace(good, old, by, 1)
	}
	for name, body := range map[string]string{
		"empty":            "",
		"array":            "[]",
		"no report":        `{"cert_chain":null}`,
		"cut":              good[:len(good)-1],
		"followed":         good + "{}",
		"member twice":     replace(`{"attestation_report"`, `{"attestation_report":{},"attestation_report"`),
		"short array":      replace(`"report_data":[`, `"report_data":[1,`),
		"number too big":   replace(`"report_data":[102`, `"report_data":[258`),
		"fraction":         replace(`"vmpl":0`, `"vmpl":0.5`),
		"negative":         replace(`"vmpl":0`, `"vmpl":-1`),
		"fmc on Genoa":     replace(`"fmc":null`, `"fmc":0`),
		"two keys":         replace(`"cert_chain":[`, `"cert_chain":[{"cert_type":"VLEK","data":[1]},`),
		"many others":      replace(`"cert_chain":[`, `"cert_chain":[`+strings.Repeat(`{"cert_type":"ASK","data":[1]},`, maxChain)),
		"empty others":     replace(`"cert_chain":[`, `"cert_chain":[`+strings.Repeat(`{},`, 50_000)),
		"a chain of text":  replace(`"cert_chain":[`, `"cert_chain":"[`),
		"key not of bytes": replace(`"data":[48,`, `"data":[304,`),
		"long key":         replace(`"data":[`, `"data":[`+strings.Repeat("1,", maxDER)),
		"deep":             `{"attestation_report":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
		"too long":         good + strings.Repeat(" ", maxEvidence),
	} {
		if _, checks, err := judge(t, v, json.RawMessage(body), b, evidencetest.Now); !fault.Is(err, fault.Invalid) || !slices.Equal(evidencetest.Failed(checks), []string{"form"}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, more := range []string{"", "x"} {
		if _, err := ParseReport([]byte(strings.Repeat("x", ReportSize-1+2*len(more)))); !fault.Is(err, fault.Invalid) {
			t.Errorf("a report of another size: %v", err)
		}
	}
}

// A report is refused whichever way it was changed, and so is the certificate of
// its signer.
func TestVerifier_AcceptsNoMutant(t *testing.T) {
	body := evidencetest.Vector(t, "snp/genoa-v3-evidence.json")
	r, certs, err := parse(body)
	if err != nil {
		t.Fatal(err)
	}
	v := genuine(t)
	refused := func(i int, report, key []byte, vlek bool) {
		made, err := Wrap(report, key, vlek)
		if err != nil {
			return // no report at all
		}
		if _, _, err := judge(t, v, made, evidence.Binding{Unknown: true}, evidencetest.Now); err == nil {
			t.Fatalf("mutant %d was accepted", i)
		}
	}
	const n = 10_000
	evidencetest.Mutants(r[:], n, func(i int, m []byte) { refused(i, m, certs[0].der, false) })
	evidencetest.Mutants(certs[0].der, n, func(i int, m []byte) { refused(i, r[:], m, false) })
	evidencetest.Cuts(r[:], func(m []byte) { refused(len(m), m, certs[0].der, false) })
	evidencetest.Cuts(certs[0].der, func(m []byte) { refused(len(m), r[:], m, false) })
	evidencetest.Cuts(body, func(m []byte) {
		if _, _, err := judge(t, v, m, evidence.Binding{Unknown: true}, evidencetest.Now); err == nil {
			t.Fatalf("evidence that was cut at %d was accepted", len(m))
		}
	})
}

func TestRecognise_TakesWhatTheMakerSigned(t *testing.T) {
	der := evidencetest.Vector(t, "snp/milan-v2-vcek.der")
	list, err := Recognise(der)
	if err != nil || len(list) != 1 || list[0].Kind != KindVCEK || !strings.HasPrefix(list[0].Key, "Milan/c38427a3") || list[0].NotAfter.IsZero() || !bytes.Equal(list[0].Data, der) {
		t.Fatalf("%+v, %v", list, err)
	}
	a, c := newAuthority(Milan), newChip(Milan)
	if _, err := Recognise(c.endorse(a, leafKey)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a made-up one: %v", err)
	}
	if _, err := Recognise(a.crl(evidencetest.Now, evidencetest.Now.Add(time.Hour), a.ark, a.arkCert)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a made-up list: %v", err)
	}
	for _, foreign := range [][]byte{nil, []byte("{}"), a.arkCert.Raw} {
		if list, err := Recognise(foreign); len(list) > 0 || err != nil {
			t.Errorf("foreign: %v, %v", list, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(evidencetest.Vector(f, "snp/genoa-v3-evidence.json"))
	f.Add([]byte(must(Wrap(evidencetest.Vector(f, "snp/milan-v2-report.bin"), evidencetest.Vector(f, "snp/milan-v2-vcek.der"), false))))
	v := must(New(Config{}))
	known, _, err := parse(evidencetest.Vector(f, "snp/genoa-v3-evidence.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _, err := judge(t, v, body, evidence.Binding{Unknown: true}, evidencetest.Now)
		if err != nil {
			return
		}
		if r, _, err := parse(body); err != nil || *r != *known {
			t.Fatalf("forged evidence was accepted: %v", err)
		}
	})
}

func FuzzRecognise(f *testing.F) {
	f.Add(evidencetest.Vector(f, "snp/milan-v2-vcek.der"))
	f.Add(evidencetest.Vector(f, "snp/milan-ask-ark-asvk.pem"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = Recognise(data) })
}

// What is built of evidence is bounded by the evidence.
func TestVerifier_AllocatesNoMoreThanTwiceTheEvidence(t *testing.T) {
	body, v := evidencetest.Vector(t, "snp/genoa-v3-evidence.json"), genuine(t)
	evidencetest.AtMost(t, 2*len(body), func() { _, _, _ = judge(t, v, body, evidence.Binding{Unknown: true}, evidencetest.Now) })
}
