package sample

import (
	"context"
	"testing"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestAttester_MakesBoundEvidence(t *testing.T) {
	for tee, want := range map[evidence.TEE]string{
		evidence.Sample:       `{"report_data":"AQID","svn":"1"}`,
		evidence.SampleDevice: `{"report_data":"AQID","svn":"2"}`,
	} {
		a, err := New(tee)
		if err != nil {
			t.Fatal(err)
		}
		e, err := a.Evidence(context.Background(), evidence.Binding{ReportData: []byte{1, 2, 3}})
		if err != nil || e.TEE != tee || a.TEE() != tee || string(e.Body) != want {
			t.Errorf("%s: %s, %v", tee, e.Body, err)
		}
	}
}

func TestAttester_CarriesInitData(t *testing.T) {
	a, err := New(evidence.Sample)
	if err != nil {
		t.Fatal(err)
	}
	e, err := a.Evidence(context.Background(), evidence.Binding{ReportData: []byte{1}, InitData: []byte{2}})
	if err != nil || string(e.Body) != `{"init_data":"Ag==","report_data":"AQ==","svn":"1"}` {
		t.Errorf("%s, %v", e.Body, err)
	}
}

func TestAttester_RefusesToBindToNothing(t *testing.T) {
	a, err := New(evidence.Sample)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Evidence(context.Background(), evidence.Binding{}); !fault.Is(err, fault.Internal) {
		t.Error(err)
	}
	if _, err := New(evidence.Tdx); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
