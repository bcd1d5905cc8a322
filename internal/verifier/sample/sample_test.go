package sample

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

var (
	report = bytes.Repeat([]byte{7}, 48)
	inits  = bytes.Repeat([]byte{9}, 32)
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func verify(t testing.TB, tee evidence.TEE, body string, b evidence.Binding) (evidence.Claims, error) {
	t.Helper()
	v, err := New(Config{Insecure: true, TEE: tee})
	if err != nil {
		t.Fatal(err)
	}
	return v.Verify(context.Background(), evidence.Evidence{TEE: tee, Body: json.RawMessage(body)}, b, time.Time{})
}

func TestNew_NeedsTheWordInsecure(t *testing.T) {
	if v, err := New(Config{TEE: evidence.Sample}); !fault.Is(err, fault.Denied) || v != nil {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := New(Config{Insecure: true, TEE: evidence.Snp}); !fault.Is(err, fault.Invalid) || v != nil {
		t.Errorf("%v, %v", v, err)
	}
	v, err := New(Config{Insecure: true, TEE: evidence.Sample})
	if err != nil || !strings.Contains(v.Banner(), "INSECURE") {
		t.Errorf("banner %q, %v", v.Banner(), err)
	}
}

func TestVerifier_ReportsTheKnownClaims(t *testing.T) {
	got, err := verify(t, evidence.Sample, `{"svn":"1","report_data":"`+b64(report)+`"}`, evidence.Binding{ReportData: report})
	if err != nil {
		t.Fatal(err)
	}
	want := evidence.Claims{Class: evidence.CPU, ReportData: b64(report), Values: map[string]any{
		"svn": "1", "report_data": b64(report), "launch_digest": "abcde", "debug": false,
		"platform_version": map[string]any{"major": 1.0, "minor": 4.0},
	}}
	if _, failed := got.Checks.Refused(); failed || len(got.Checks) != 2 {
		t.Errorf("checks %v", got.Checks)
	}
	got.Checks = nil
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got, err = verify(t, evidence.SampleDevice, `{"svn":"2","report_data":"`+b64(report)+`"}`, evidence.Binding{ReportData: report})
	if err != nil || got.Class != evidence.GPU {
		t.Errorf("device: %v, %v", got.Class, err)
	}
}

func TestVerifier_EchoesOnlyInitDataThatItChecked(t *testing.T) {
	with := `{"svn":"1","report_data":"` + b64(report) + `","init_data":"` + b64(inits) + `"}`
	without := `{"svn":"1","report_data":"` + b64(report) + `"}`
	got, err := verify(t, evidence.Sample, with, evidence.Binding{ReportData: report, InitData: inits})
	if err != nil || got.InitData != b64(inits) || got.Values["init_data"] != b64(inits) {
		t.Errorf("matching: %v, %v", got, err)
	}
	got, err = verify(t, evidence.Sample, without, evidence.Binding{ReportData: report, InitData: inits})
	if _, has := got.Values["init_data"]; err != nil || got.InitData != "" || has {
		t.Errorf("unproven init-data is echoed: %v, %v", got, err)
	}
	for name, b := range map[string]evidence.Binding{
		"other digest": {ReportData: report, InitData: bytes.Repeat([]byte{8}, 32)},
		"none sent":    {ReportData: report},
		"longer":       {ReportData: report, InitData: bytes.Repeat([]byte{9}, 48)},
	} {
		if _, err := verify(t, evidence.Sample, with, b); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifier_RefusesUnboundEvidence(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		kind fault.Kind
	}{
		"other report data": {`{"svn":"1","report_data":"` + b64(inits) + `"}`, fault.Denied},
		"padded to 64":      {`{"svn":"1","report_data":"` + b64(append(bytes.Clone(report), make([]byte, 16)...)) + `"}`, fault.Denied},
		"no report data":    {`{"svn":"1"}`, fault.Denied},
		"no base64":         {`{"svn":"1","report_data":"!"}`, fault.Denied},
		"no svn":            {`{"report_data":"` + b64(report) + `"}`, fault.Invalid},
		"long svn":          {`{"svn":"` + strings.Repeat("1", 33) + `","report_data":"` + b64(report) + `"}`, fault.Invalid},
		"number":            {`{"svn":1,"report_data":"` + b64(report) + `"}`, fault.Invalid},
		"array":             {`[]`, fault.Invalid},
		"empty":             {``, fault.Invalid},
		"too long":          {`{"svn":"1","x":"` + strings.Repeat("x", maxEvidence) + `"}`, fault.Invalid},
	} {
		if got, err := verify(t, evidence.Sample, c.body, evidence.Binding{ReportData: report}); !fault.Is(err, c.kind) || got.Values != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	empty := `{"svn":"1","report_data":""}`
	if _, err := verify(t, evidence.Sample, empty, evidence.Binding{}); !fault.Is(err, fault.Denied) {
		t.Errorf("evidence bound to nothing: %v", err)
	}
	v, err := New(Config{Insecure: true, TEE: evidence.Sample})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(context.Background(), evidence.Evidence{TEE: evidence.Snp, Body: json.RawMessage(`{}`)}, evidence.Binding{}, time.Time{}); !fault.Is(err, fault.Internal) {
		t.Errorf("another TEE: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"svn":"1","report_data":"`+b64(report)+`"}`), report, inits)
	f.Add([]byte(`{"svn":"1","report_data":"","init_data":"AA=="}`), []byte{}, []byte{0})
	f.Fuzz(func(t *testing.T, body, r, i []byte) {
		got, err := verify(t, evidence.Sample, string(body), evidence.Binding{ReportData: r, InitData: i})
		if err == nil && (got.ReportData != b64(r) || got.InitData != "" && got.InitData != b64(i)) {
			t.Fatalf("unbound evidence was accepted: %v", got)
		}
	})
}
