package tpm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/verifier/tpm/tpmtest"
)

// TestTPM_ProvesItsKeys has a TPM that nobody here wrote show its endorsement key
// and its attestation keys, and open what was sealed to them in software.
func TestTPM_ProvesItsKeys(t *testing.T) {
	p := tpmtest.New(t)
	at := time.Now().Add(time.Hour)
	authorities, err := NewAuthorities(p.Read("ca/swtpm-localca-rootca-cert.pem"), p.Read("ca/issuer.pem"))
	if err != nil {
		t.Fatal(err)
	}
	p.Tool("nvread", "0x1c00002", "-o", "ek.crt")
	cert, err := ParseEK(p.Read("ek.crt"))
	if err != nil || cert.Model != "swtpm" {
		t.Fatalf("%+v, %v", cert, err)
	}
	var c evidence.Checks
	cert.Judge(&c, authorities, at)
	if failed := evidencetest.Failed(c); len(failed) > 0 {
		t.Errorf("the TPM's certificate fails %v", failed)
	}
	for name, judge := range map[string]func(*evidence.Checks){
		"before it was made": func(c *evidence.Checks) { cert.Judge(c, authorities, at.AddDate(-1, 0, 0)) },
		"without the root": func(c *evidence.Checks) {
			between, err := NewAuthorities(p.Read("ca/issuer.pem"))
			if err != nil {
				t.Fatal(err)
			}
			cert.Judge(c, between, at)
		},
	} {
		var c evidence.Checks
		judge(&c)
		if failed := evidencetest.Failed(c); !slices.Equal(failed, []string{"ek-chain"}) {
			t.Errorf("%s: failed %v", name, failed)
		}
	}
	for _, kind := range []string{"rsa", "ecc"} {
		ek, err := ParsePublic(p.EK(kind))
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if cert.Fits(ek) != (kind == "rsa") {
			t.Errorf("the certificate of the RSA key fits the one of %s: %t", kind, cert.Fits(ek))
		}
		public, name := p.AK(kind, kind+"ak", "ecc", "sha256", "ecdsa")
		ak, err := ParsePublic(public)
		if err != nil || !bytes.Equal(ak.Name(), name) {
			t.Fatalf("%s: name %x, the TPM says %x, %v", kind, ak.Name(), name, err)
		}
		var c evidence.Checks
		ak.JudgeAK(&c)
		if failed := evidencetest.Failed(c); len(failed) > 0 {
			t.Errorf("%s: a real attestation key fails %v", kind, failed)
		}
		value := secret.FromString("thirty-two bytes of some secret.")
		made, err := MakeCredential(ek, ak.Name(), value)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Activate(kind, kind+"ak", made.Blob, made.Secret); err != nil || !bytes.Equal(got, value.Reveal()) {
			t.Errorf("%s: the TPM gives %q, %v", kind, got, err)
		}
		// For the name of a key that is not in this TPM nothing comes out.
		other := bytes.Clone(ak.Name())
		other[5]++
		if made, err = MakeCredential(ek, other, value); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Activate(kind, kind+"ak", made.Blob, made.Secret); err == nil {
			t.Errorf("%s: another name's secret came out: %q", kind, got)
		}
		if _, err := MakeCredential(ak, ak.Name(), value); err == nil {
			t.Error("a signing key passes for an endorsement key")
		}
		if _, err := MakeCredential(ek, ak.Name(), secret.FromString(strings.Repeat("x", 33))); err == nil {
			t.Error("a secret is too long")
		}
	}
	// A key that signs anything is no attestation key.
	p.Tool("createprimary", "-C", "o", "-G", "ecc", "-c", "primary")
	p.Tool("create", "-C", "primary", "-G", "ecc", "-u", "free.pub", "-r", "free.priv", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign")
	free, err := ParsePublic(p.Read("free.pub")[2:])
	if err != nil {
		t.Fatal(err)
	}
	c = nil
	free.JudgeAK(&c)
	if failed := evidencetest.Failed(c); !slices.Equal(failed, []string{"ak-restricted"}) {
		t.Errorf("an unrestricted key fails %v", failed)
	}
}

// TestTPM_QuotesLogsOfRealMachines extends a TPM by what the logs of real
// machines say, has it quote, and judges quote and log. tpm2_checkquote is the
// second opinion on every quote.
func TestTPM_QuotesLogsOfRealMachines(t *testing.T) {
	digest := bytes.Repeat([]byte{0x42}, 48)
	for i, c := range []struct{ log, algorithm, scheme, hash string }{
		{"arch-linux-workstation", "rsa", "rsassa", "sha256"},
		{"rhel8-uefi", "rsa", "rsapss", "sha256"},
		{"ubuntu-2104-no-secure-boot", "ecc", "ecdsa", "sha256"},
		{"ubuntu-2404-amd-sevsnp", "ecc384", "ecdsa", "sha384"},
	} {
		data := evidencetest.Vector(t, "eventlog/"+c.log+".bin")
		l, err := eventlog.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		p := tpmtest.New(t)
		p.EK("rsa")
		p.AK("rsa", "ak", c.algorithm, c.hash, c.scheme)
		p.Extend(extensions(t, c.log, l)...)
		body := p.Evidence("ak", c.hash, digest[:32], data)
		b := evidence.Binding{ReportData: digest}
		claims, checks, err := judge(t, body, b)
		if err != nil || evidencetest.Result(checks, "event-log-replay") != evidence.Passed {
			t.Errorf("%s: %v, failed %v", c.log, err, evidencetest.Failed(checks))
			continue
		}
		if events, ok := claims.Values["uefi_event_logs"].([]any); !ok || len(events) != len(l.Events) {
			t.Errorf("%s: %d events, want %d", c.log, len(events), len(l.Events))
		}
		p.Tool("readpublic", "-c", "ak", "-f", "pem", "-o", "ak.pem")
		if c.scheme == "rsapss" {
			continue // which tpm2_checkquote does not know
		}
		if _, err := p.Try("tpm2_checkquote", "-u", "ak.pem", "-m", "message", "-s", "signature", "-g", c.hash, "-q", strings.Repeat("42", 32)); err != nil {
			t.Errorf("%s: tpm2_checkquote disagrees: %v", c.log, err)
		}
		if i > 0 {
			continue
		}
		// One more extension, and neither log nor older values fit any more.
		p.Extend("4:sha256=" + strings.Repeat("00", 32))
		p.Tool("setclock", "3600000") // so that it goes back when it is cleared, however long keys take then
		after := p.Evidence("ak", c.hash, digest[:32], data)
		if _, checks, err := judge(t, after, b); err == nil || !slices.Equal(evidencetest.Failed(checks), []string{"event-log-replay"}) {
			t.Errorf("a register that the log does not explain: %v", evidencetest.Failed(checks))
		}
		if _, checks, err := judge(t, p.Evidence("ak", c.hash, bytes.Repeat([]byte{1}, 32), nil), b); err == nil || !slices.Equal(evidencetest.Failed(checks), []string{"report-data"}) {
			t.Errorf("another nonce: %v", evidencetest.Failed(checks))
		}
		p.Tool("clear")
		p.EK("rsa")
		p.AK("rsa", "ak", c.algorithm, c.hash, c.scheme)
		first, second, cleared := clockOf(t, body), clockOf(t, after), clockOf(t, p.Evidence("ak", c.hash, digest[:32], nil))
		if failed := since(second, first); len(failed) > 0 {
			t.Errorf("a later quote fails %v: %+v after %+v", failed, second, first)
		}
		if failed := since(cleared, second); !slices.Equal(failed, []string{"clock-counters", "clock"}) {
			t.Errorf("a TPM that was cleared fails %v: %+v after %+v", failed, cleared, second)
		}
	}
}

func clockOf(t *testing.T, body []byte) Clock {
	t.Helper()
	s, _, _, err := parse(body)
	if err != nil {
		t.Fatal(err)
	}
	q, err := ParseQuote(s.Message)
	if err != nil {
		t.Fatal(err)
	}
	return q.Clock
}

// extensions are the events of a log for tpm2_pcrextend, in the TPM's banks.
func extensions(t *testing.T, name string, l *eventlog.Log) []string {
	t.Helper()
	var out []string
	for _, e := range l.Events {
		if e.Type == eventlog.NoAction {
			if strings.HasPrefix(string(e.Data), "StartupLocality") {
				t.Fatalf("%s starts at another locality: choose another log", name)
			}
			continue
		}
		out = append(out, fmt.Sprintf("%d:sha256=%x", e.Register, e.Digest(eventlog.SHA256)))
	}
	return out
}
