package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx/tdxtest"
)

// then is when the collateral in testdata was current.
var then = time.Date(2023, 7, 1, 0, 0, 0, 0, time.UTC)

// collateral is Intel's word of July 2023, read from files as an operator has
// them.
func collateral(t testing.TB) evidence.Shelf {
	t.Helper()
	out := evidence.Shelf{}
	names, err := filepath.Glob("testdata/*-2023*")
	if err != nil || len(names) != 3 {
		t.Fatalf("%v %v", names, err)
	}
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		list, err := Recognise(data)
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %v, %v", n, list, err)
		}
		out.Put(list[0])
	}
	return out
}

// TestVerifier_AcceptsARealQuote judges a quote of a real machine by what Intel
// said of that machine at the time. The claims are those of a known broker.
func TestVerifier_AcceptsARealQuote(t *testing.T) {
	v := must(New(Config{Endorsements: collateral(t)}))
	raw := evidencetest.Vector(t, "tdx/quote-v4.dat")
	q, err := ParseQuote(raw)
	if err != nil {
		t.Fatal(err)
	}
	claims, checks, err := judge(t, v, wrap(raw, nil), evidence.Binding{ReportData: q.ReportData()}, then)
	if err != nil {
		t.Fatalf("%v\n%+v", err, checks)
	}
	var want map[string]any
	if err := json.Unmarshal(evidencetest.Vector(t, "tdx/claims-expected.json"), &want); err != nil {
		t.Fatal(err)
	}
	delete(want, "uefi_event_logs") // its log is not among the vectors
	want["tcb_status"], want["tcb_date"] = "UpToDate", "2023-02-15T00:00:00Z"
	want["advisory_ids"], want["collateral_expiration_status"] = []any{}, "0"
	if d := cmp.Diff(want, claims.Values); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"quote-header", "pck-chain", "pck-dates", "qe-report-signature", "qe-signer", "attestation-key", "quote-signature", "tcb-info", "collateral-dates", "tcb-level", "tdx-module", "qe-identity", "tcb-status", "report-data"} {
		if evidencetest.Result(checks, name) != evidence.Passed {
			t.Errorf("%s is %q", name, evidencetest.Result(checks, name))
		}
	}
	for name, c := range map[string]struct {
		b     evidence.Binding
		at    time.Time
		check string
	}{
		"another nonce":         {evidence.Binding{ReportData: bound}, then, "report-data"},
		"no binding":            {evidence.Binding{}, then, "report-data"},
		"init-data":             {evidence.Binding{ReportData: q.ReportData(), InitData: bound[:32]}, then, "init-data"},
		"collateral of before":  {evidence.Binding{ReportData: q.ReportData()}, then.AddDate(0, 2, 0), "collateral-dates"},
		"collateral not yet":    {evidence.Binding{ReportData: q.ReportData()}, then.AddDate(0, -2, 0), "collateral-dates"},
		"an expired PCK":        {evidence.Binding{ReportData: q.ReportData()}, then.AddDate(8, 0, 0), "pck-dates"},
		"a PCK not valid yet":   {evidence.Binding{ReportData: q.ReportData()}, then.AddDate(-2, 0, 0), "pck-dates"},
		"a signer that expired": {evidence.Binding{ReportData: q.ReportData()}, then.AddDate(2, 0, 0), "collateral-signer-dates"},
	} {
		if _, checks, err := judge(t, v, wrap(raw, nil), c.b, c.at); !fault.Is(err, fault.Denied) || !slices.Contains(evidencetest.Failed(checks), c.check) {
			t.Errorf("%s: %v, failed %v", name, err, evidencetest.Failed(checks))
		}
	}
}

// TestVerifier_ReadsARealQuoteOfVersion5 whose collateral is not at hand: every
// signature of it is good, and still it is not accepted.
func TestVerifier_ReadsARealQuoteOfVersion5(t *testing.T) {
	raw := evidencetest.Vector(t, "tdx/quote-v5.dat")
	v := must(New(Config{Endorsements: collateral(t)}))
	_, checks, err := judge(t, v, wrap(raw, nil), evidence.Binding{Unknown: true}, evidencetest.Now)
	if !fault.Is(err, fault.Unavailable) || !slices.Equal(evidencetest.Failed(checks), []string{"collateral"}) {
		t.Errorf("%v, failed %v", err, evidencetest.Failed(checks))
	}
	for _, name := range []string{"pck-chain", "pck-dates", "qe-report-signature", "attestation-key", "quote-signature"} {
		if evidencetest.Result(checks, name) != evidence.Passed {
			t.Errorf("%s is %q", name, evidencetest.Result(checks, name))
		}
	}
	q, err := ParseQuote(raw)
	if err != nil {
		t.Fatal(err)
	}
	claims := q.Claims()
	quote := claims["quote"].(map[string]any)
	body := quote["body"].(map[string]any)
	if quote["type"] != "0300" || quote["size"] != "88020000" || len(body["mr_servicetd"].(string)) != 96 || quote["header"].(map[string]any)["version"] != "0500" {
		t.Errorf("claims %v", claims)
	}
}

func TestRoot_IsPinned(t *testing.T) {
	root, err := intelRoot()
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(root.Raw); hexOf(sum[:]) != "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3" {
		t.Errorf("the root is %x", sum)
	}
}

func TestVerifier_AcceptsBothVersions(t *testing.T) {
	for _, version := range []int{4, 5} {
		n := tdxtest.New()
		n.Version = version
		n.Report = func(b []byte) { copy(b[atConfigID:], bound[:32]) }
		n.Revoked = map[string][]*big.Int{namePlatform: {big.NewInt(99)}, "Intel SGX Root CA": nil}
		n.RevokedTo = evidencetest.Now.Add(time.Hour)
		claims, checks, err := judge(t, verifierOf(n), wrap(n.Quote(), nil), evidence.Binding{ReportData: bound, InitData: bound[:32]}, evidencetest.Now)
		if err != nil || claims.InitData == "" || claims.Values["tcb_status"] != "UpToDate" {
			t.Errorf("version %d: %v, failed %v", version, err, evidencetest.Failed(checks))
		}
		for _, k := range checks {
			if k.Result == evidence.Skipped && k.Name != "collateral-signer-revocation" {
				t.Errorf("version %d: %s was skipped", version, k.Name)
			}
		}
	}
}

// Firmware that is old is a claim, and refuses nothing by itself.
func TestVerifier_SaysHowOldTheFirmwareIs(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*tdxtest.Intel)
		want   string
	}{
		"all of today":     {func(*tdxtest.Intel) {}, "UpToDate"},
		"an old platform":  {func(n *tdxtest.Intel) { n.PCESVN = 7 }, "OutOfDate"},
		"an old enclave":   {func(n *tdxtest.Intel) { n.QEReport = func(b []byte) { b[258] = 3 } }, "OutOfDate"},
		"a new module":     {func(n *tdxtest.Intel) { n.Report = func(b []byte) { b[0], b[1] = 4, 1 } }, "UpToDate"},
		"an old module":    {func(n *tdxtest.Intel) { n.Report = func(b []byte) { b[0], b[1] = 3, 1 } }, "OutOfDate"},
		"a needed setting": {func(n *tdxtest.Intel) { n.TCB = status("ConfigurationNeeded") }, "ConfigurationNeeded"},
		"old, and a setting": {func(n *tdxtest.Intel) {
			n.TCB = status("ConfigurationNeeded")
			n.QEReport = func(b []byte) { b[258] = 3 }
		}, "OutOfDateConfigurationNeeded"},
	} {
		n := tdxtest.New()
		c.change(n)
		claims, checks, err := judge(t, verifierOf(n), wrap(n.Quote(), nil), evidence.Binding{ReportData: bound}, evidencetest.Now)
		if err != nil || claims.Values["tcb_status"] != c.want {
			t.Errorf("%s: %v, %v, failed %v", name, claims.Values["tcb_status"], err, evidencetest.Failed(checks))
		}
		if list, _ := claims.Values["advisory_ids"].([]any); name == "an old platform" && !cmp.Equal(list, []any{"INTEL-SA-00837"}) {
			t.Errorf("advisories %v", list)
		}
	}
}

// status sets that of the first level.
func status(s string) func(map[string]any) {
	return func(m map[string]any) { m["tcbLevels"].([]any)[0].(map[string]any)["tcbStatus"] = s }
}

func TestVerifier_RefusesWhatDoesNotFit(t *testing.T) {
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		change func(*tdxtest.Intel)
		check  string
	}{
		"an SGX quote":      {func(n *tdxtest.Intel) { n.Header = func(b []byte) { b[4] = 0 } }, "quote-header"},
		"another key type":  {func(n *tdxtest.Intel) { n.Header = func(b []byte) { b[2] = 3 } }, "quote-header"},
		"another vendor":    {func(n *tdxtest.Intel) { n.Header = func(b []byte) { b[12]++ } }, "quote-header"},
		"a PCK by somebody": {func(n *tdxtest.Intel) { n.PCKIssuer = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }, "pck-chain"},
		"a PCK by the root": {func(n *tdxtest.Intel) { n.PCKIssuer = n.RootKey }, "pck-chain"},
		"a revoked PCK": {func(n *tdxtest.Intel) {
			n.RevokedTo = evidencetest.Now.Add(day)
			n.Revoked = map[string][]*big.Int{namePlatform: {big.NewInt(4)}}
		}, "pck-revocation"},
		"a revoked authority": {func(n *tdxtest.Intel) {
			n.RevokedTo = evidencetest.Now.Add(day)
			n.Revoked = map[string][]*big.Int{"Intel SGX Root CA": {big.NewInt(2)}}
		}, "pck-revocation"},
		"a revoked signer": {func(n *tdxtest.Intel) {
			n.RevokedTo = evidencetest.Now.Add(day)
			n.Revoked = map[string][]*big.Int{"Intel SGX Root CA": {big.NewInt(3)}}
		}, "collateral-signer-revocation"},
		"an old revocation list": {func(n *tdxtest.Intel) {
			n.RevokedTo = evidencetest.Now.Add(-day)
			n.Revoked = map[string][]*big.Int{namePlatform: nil}
		}, "pck-revocation"},
		"another enclave":         {func(n *tdxtest.Intel) { n.QEReport = func(b []byte) { b[128]++ } }, "qe-signer"},
		"another product":         {func(n *tdxtest.Intel) { n.QEReport = func(b []byte) { b[256]++ } }, "qe-identity"},
		"a debug enclave":         {func(n *tdxtest.Intel) { n.QEReport = func(b []byte) { b[48] |= 2 } }, "qe-identity"},
		"an enclave's misc":       {func(n *tdxtest.Intel) { n.QEReport = func(b []byte) { b[19] = 1 } }, "qe-identity"},
		"an unknown enclave":      {func(n *tdxtest.Intel) { n.QEReport = func(b []byte) { b[258] = 1 } }, "qe-identity"},
		"another attestation key": {func(n *tdxtest.Intel) { n.QEReport = func(b []byte) { b[320]++ } }, "attestation-key"},
		"bytes behind the key":    {func(n *tdxtest.Intel) { n.QEReport = func(b []byte) { b[360] = 1 } }, "attestation-key"},
		"another platform's TCB":  {func(n *tdxtest.Intel) { n.TCB = func(m map[string]any) { m["fmspc"] = "000000000000" } }, "tcb-info"},
		"another PCE":             {func(n *tdxtest.Intel) { n.TCB = func(m map[string]any) { m["pceId"] = "0001" } }, "tcb-info"},
		"TCB info of SGX":         {func(n *tdxtest.Intel) { n.TCB = func(m map[string]any) { m["id"] = "SGX" } }, "tcb-info"},
		"TCB info of version 2":   {func(n *tdxtest.Intel) { n.TCB = func(m map[string]any) { m["version"] = 2 } }, "tcb-info"},
		"an identity of SGX":      {func(n *tdxtest.Intel) { n.QE = func(m map[string]any) { m["id"] = "QE" } }, "qe-identity-document"},
		"old TCB info": {func(n *tdxtest.Intel) {
			n.TCB = func(m map[string]any) { m["nextUpdate"] = evidencetest.Now.Add(-day) }
		}, "collateral-dates"},
		"TCB info of tomorrow":   {func(n *tdxtest.Intel) { n.TCB = func(m map[string]any) { m["issueDate"] = evidencetest.Now.Add(day) } }, "collateral-dates"},
		"an old identity":        {func(n *tdxtest.Intel) { n.QE = func(m map[string]any) { m["nextUpdate"] = evidencetest.Now.Add(-day) } }, "collateral-dates"},
		"an unknown level":       {func(n *tdxtest.Intel) { n.PCESVN = 1 }, "tcb-level"},
		"an older component":     {func(n *tdxtest.Intel) { n.SVNs[4] = 0 }, "tcb-level"},
		"an older TDX component": {func(n *tdxtest.Intel) { n.Report = func(b []byte) { b[0], b[2] = 3, 0 } }, "tcb-level"},
		"a status nobody knows":  {func(n *tdxtest.Intel) { n.TCB = status("Fine") }, "tcb-level"},
		"a revoked level":        {func(n *tdxtest.Intel) { n.PCESVN = 3 }, "tcb-status"},
		"a revoked enclave": {func(n *tdxtest.Intel) {
			n.QE = func(m map[string]any) { m["tcbLevels"].([]any)[0].(map[string]any)["tcbStatus"] = "Revoked" }
		}, "tcb-status"},
		"another module's signer":    {func(n *tdxtest.Intel) { n.Report = func(b []byte) { b[0], b[2], b[atSEAMSigner] = 3, 5, 1 } }, "tdx-module"},
		"another module's attribute": {func(n *tdxtest.Intel) { n.Report = func(b []byte) { b[0], b[2], b[atSEAMAttributes] = 3, 5, 1 } }, "tdx-module"},
		"an unknown module":          {func(n *tdxtest.Intel) { n.Report = func(b []byte) { b[0], b[1] = 9, 9 } }, "tdx-module"},
		"a module below its levels":  {func(n *tdxtest.Intel) { n.Report = func(b []byte) { b[0], b[1] = 1, 1 } }, "tdx-module"},
		"another key's data":         {func(n *tdxtest.Intel) { n.Report = func(b []byte) { b[atReportData]++ } }, "report-data"},
	} {
		n := tdxtest.New()
		c.change(n)
		_, checks, err := judge(t, verifierOf(n), wrap(n.Quote(), nil), evidence.Binding{ReportData: bound}, evidencetest.Now)
		if !fault.Is(err, fault.Denied) || !slices.Contains(evidencetest.Failed(checks), c.check) {
			t.Errorf("%s: %v, failed %v", name, err, evidencetest.Failed(checks))
		}
	}
}

func TestVerifier_NeedsCollateralOfIntel(t *testing.T) {
	n := tdxtest.New()
	body := wrap(n.Quote(), nil)
	b := evidence.Binding{ReportData: bound}
	for _, kind := range []string{KindTCBInfo, KindIdentity, KindSigner} {
		shelf := n.Shelf()
		delete(shelf, kind)
		if _, _, err := judge(t, must(New(Config{Endorsements: shelf, Root: n.Root})), body, b, evidencetest.Now); !fault.Is(err, fault.Unavailable) {
			t.Errorf("without %s: %v", kind, err)
		}
	}
	// Forged evidence, or that of another handshake, asks for nothing.
	forged := tdxtest.New()
	quote := forged.Quote()
	quote[100]++
	for name, refused := range map[string]struct {
		body  json.RawMessage
		bound []byte
		check string
	}{
		"forged":            {wrap(quote, nil), bound, "quote-signature"},
		"another handshake": {wrap(forged.Quote(), nil), make([]byte, 48), "report-data"},
	} {
		_, checks, err := judge(t, must(New(Config{Root: forged.Root})), refused.body, evidence.Binding{ReportData: refused.bound}, evidencetest.Now)
		r, _ := errors.AsType[*evidence.RefusedError](err)
		if !fault.Is(err, fault.Denied) || r.Want.Kind != "" || !slices.Contains(evidencetest.Failed(checks), refused.check) || evidencetest.Result(checks, "collateral") != evidence.Skipped {
			t.Errorf("%s, without collateral: %v, failed %v", name, err, evidencetest.Failed(checks))
		}
	}
	other := tdxtest.New()
	for kind, check := range map[string]string{KindTCBInfo: "tcb-info", KindIdentity: "qe-identity-document", KindSigner: "collateral-signer"} {
		shelf := n.Shelf()
		shelf[kind] = other.Shelf()[kind]
		if _, checks, err := judge(t, must(New(Config{Endorsements: shelf, Root: n.Root})), body, b, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Contains(evidencetest.Failed(checks), check) {
			t.Errorf("somebody's %s: %v, failed %v", kind, err, evidencetest.Failed(checks))
		}
	}
	if _, checks, err := judge(t, must(New(Config{Endorsements: n.Shelf()})), body, b, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Contains(evidencetest.Failed(checks), "pck-chain") {
		t.Errorf("a made-up root: %v", err)
	}
}

// ccLog is a log of one event in a register, in the form of firmware.
func ccLog(register uint32, data string) ([]byte, []byte) {
	le := binary.LittleEndian
	head := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0)
	out := append(le.AppendUint32(make([]byte, 4), 3), make([]byte, 20)...)
	out = append(le.AppendUint32(out, uint32(len(head))), head...)
	sum := sha512.Sum384([]byte(data))
	out = append(le.AppendUint32(le.AppendUint32(out, register), 4), 1, 0, 0, 0, 0x0c, 0)
	out = append(le.AppendUint32(append(out, sum[:]...), uint32(len(data))), data...)
	value := sha512.Sum384(append(make([]byte, 48), sum[:]...))
	return append(out, bytes.Repeat([]byte{0xff}, 200)...), value[:]
}

func TestVerifier_ReplaysTheEventLog(t *testing.T) {
	log, value := ccLog(2, "kernel")
	n := tdxtest.New()
	n.Report = func(b []byte) { copy(b[atRTMR+48:], value) }
	b := evidence.Binding{ReportData: bound}
	claims, checks, err := judge(t, verifierOf(n), wrap(n.Quote(), log), b, evidencetest.Now)
	if err != nil {
		t.Fatalf("%v, failed %v", err, evidencetest.Failed(checks))
	}
	if events, ok := claims.Values["uefi_event_logs"].([]any); !ok || len(events) != 1 || events[0].(map[string]any)["digest_matches_event"] != true {
		t.Errorf("events %v", claims.Values["uefi_event_logs"])
	}
	for name, other := range map[string][]byte{
		"another event":     first(ccLog(2, "another")),
		"another register":  first(ccLog(3, "kernel")),
		"the TD's own":      first(ccLog(0, "kernel")),
		"a fifth register":  first(ccLog(5, "kernel")),
		"no log":            []byte("log"),
		"a log of SHA-1":    make([]byte, 32),
		"a log that is cut": log[:100],
	} {
		if _, checks, err := judge(t, verifierOf(n), wrap(n.Quote(), other), b, evidencetest.Now); !fault.Is(err, fault.Denied) || !slices.Equal(evidencetest.Failed(checks), []string{"event-log"}) {
			t.Errorf("%s: %v, failed %v", name, err, evidencetest.Failed(checks))
		}
	}
}

func first(a, _ []byte) []byte { return a }

func TestParse_RefusesMalformedEvidence(t *testing.T) {
	n := tdxtest.New()
	good := n.Quote()
	v := verifierOf(n)
	change := func(at int, b ...byte) []byte {
		return append(append(bytes.Clone(good[:at]), b...), good[at+len(b):]...)
	}
	for name, body := range map[string][]byte{
		"empty":                {},
		"array":                []byte("[]"),
		"no base64":            []byte(`{"quote":"!"}`),
		"a log of no base64":   []byte(`{"quote":"","cc_eventlog":"!"}`),
		"twice":                []byte(`{"quote":"","quote":""}`),
		"deep":                 []byte(strings.Repeat("[", 50)),
		"an empty quote":       wrap(nil, nil),
		"version 3":            wrap(change(0, 3), nil),
		"version 5 as 4":       wrap(change(0, 5), nil),
		"followed":             wrap(append(bytes.Clone(good), 0), nil),
		"a longer signature":   wrap(change(632, 0xff, 0xff, 0xff, 0xff), nil),
		"another chain":        wrap(change(636+128, 5), nil),
		"a huge quote":         wrap(make([]byte, maxQuote+1), nil),
		"long authentication":  wrap(change(636+128+6+384+64, 0xff, 0xff), nil),
		"another certificates": wrap(change(636+128+6+384+64+2+32, 3), nil),
	} {
		if _, checks, err := judge(t, v, body, evidence.Binding{ReportData: bound}, evidencetest.Now); !fault.Is(err, fault.Invalid) || !slices.Equal(evidencetest.Failed(checks), []string{"form"}) {
			t.Errorf("%s: %v, failed %v", name, err, evidencetest.Failed(checks))
		}
	}
}

// No mutant of a real quote is accepted, wherever it was cut or changed, and
// none of the collateral that judges it. The chain at its end is text, in which
// some changes mean nothing: there it has to be the same certificates.
func TestVerifier_AcceptsNoMutant(t *testing.T) {
	raw := evidencetest.Vector(t, "tdx/quote-v4.dat")
	shelf := collateral(t)
	v := must(New(Config{Endorsements: shelf}))
	accepted := func(m []byte) bool {
		_, _, err := judge(t, v, wrap(m, nil), evidence.Binding{Unknown: true}, then)
		return err == nil
	}
	if !accepted(raw) {
		t.Fatal("the quote is refused")
	}
	known, err := ParseQuote(raw)
	if err != nil {
		t.Fatal(err)
	}
	root := must(intelRoot())
	const n = 10_000
	evidencetest.Mutants(raw, n, func(i int, m []byte) {
		if !accepted(m) {
			return
		}
		q, err := ParseQuote(m)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parsePCK(q.chain, root)
		if err != nil || !p.chain[0].Equal(must(parsePCK(known.chain, root)).chain[0]) || !bytes.Equal(q.signed, known.signed) || !bytes.Equal(q.qeReport, known.qeReport) {
			t.Fatalf("mutant %d was accepted", i)
		}
	})
	evidencetest.Cuts(raw, func(m []byte) {
		if accepted(m) {
			t.Fatalf("a quote cut at %d was accepted", len(m))
		}
	})
	for _, kind := range []string{KindTCBInfo, KindIdentity} {
		for key, e := range shelf[kind] {
			signed, _, err := document(e.Data, map[string]string{KindTCBInfo: "tcbInfo", KindIdentity: "enclaveIdentity"}[kind])
			if err != nil {
				t.Fatal(err)
			}
			evidencetest.Mutants(e.Data, n/5, func(i int, m []byte) {
				changed := evidence.Shelf{KindSigner: shelf[KindSigner], KindTCBInfo: shelf[KindTCBInfo], KindIdentity: shelf[KindIdentity]}
				changed[kind] = map[string]evidence.Endorsement{key: {Data: m}}
				_, _, err := judge(t, must(New(Config{Endorsements: changed})), wrap(raw, nil), evidence.Binding{Unknown: true}, then)
				if err == nil {
					now, _, err := document(m, map[string]string{KindTCBInfo: "tcbInfo", KindIdentity: "enclaveIdentity"}[kind])
					if err != nil || !bytes.Equal(now, signed) {
						t.Fatalf("mutant %d of %s was accepted", i, kind)
					}
				}
			})
		}
	}
}

func FuzzVerify(f *testing.F) {
	v := must(New(Config{Endorsements: collateral(f)}))
	known := must(ParseQuote(evidencetest.Vector(f, "tdx/quote-v4.dat")))
	f.Add([]byte(wrap(evidencetest.Vector(f, "tdx/quote-v4.dat"), nil)))
	f.Add([]byte(wrap(evidencetest.Vector(f, "tdx/quote-v5.dat"), first(ccLog(2, "kernel")))))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, _, err := judge(t, v, body, evidence.Binding{Unknown: true}, then); err != nil {
			return
		}
		if q, _, err := parse(body); err != nil || !bytes.Equal(q.signed, known.signed) {
			t.Fatalf("forged evidence was accepted: %v", err)
		}
	})
}

func FuzzRecognise(f *testing.F) {
	f.Add(evidencetest.Vector(f, "tdx/tcbInfo.json"))
	f.Add(evidencetest.Vector(f, "tdx/enclaveIdentity.json"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = Recognise(data) })
}

func TestRecognise_TakesIntelsFiles(t *testing.T) {
	for name, want := range map[string]string{"tdx/tcbInfo.json": KindTCBInfo + " 00a06d080000", "tdx/enclaveIdentity.json": KindIdentity + " "} {
		list, err := Recognise(evidencetest.Vector(t, name))
		if err != nil || len(list) != 1 || list[0].Kind+" "+list[0].Key != want || list[0].NotAfter.Year() != 2025 {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
	}
	for _, foreign := range [][]byte{nil, []byte("{}"), []byte("?")} {
		if list, err := Recognise(foreign); len(list) > 0 || err != nil {
			t.Errorf("foreign: %v, %v", list, err)
		}
	}
	for _, bad := range []string{`{"tcbInfo":{},"signature":"00"}`, `{"tcbInfo":{"id":"TDX"},"signature":"` + strings.Repeat("0", 128) + `"}`, `{"enclaveIdentity":1}`} {
		if _, err := Recognise([]byte(bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// What is built of evidence is bounded by the evidence.
func TestVerifier_AllocatesNoMoreThanTwiceTheEvidence(t *testing.T) {
	body, v := wrap(evidencetest.Vector(t, "tdx/quote-v4.dat"), nil), must(New(Config{Endorsements: collateral(t)}))
	evidencetest.AtMost(t, 2*len(body), func() { _, _, _ = judge(t, v, body, evidence.Binding{Unknown: true}, then) })
}
