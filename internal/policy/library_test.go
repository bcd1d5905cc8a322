package policy

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// shelf are reference values that change between appraisals.
type shelf struct {
	values map[string]any
	err    error
	asked  int
}

func (s *shelf) ReferenceValue(_ context.Context, id string) (any, bool, error) {
	s.asked++
	v, ok := s.values[id]
	return v, ok, s.err
}

func attestation(text string) Document {
	return Document{Name: CPUName, Version: 3, Kind: KBSAttestation, Source: "package policy\n" + text, At: noon}
}

func defaultCPU() Document {
	d := attestation("")
	d.Source = defaultCPUText
	return d
}

func appraise(t *testing.T, s *Set, in object, refs ReferenceValues) Appraisal {
	t.Helper()
	a, err := s.Appraise(context.Background(), CPUName, in, refs)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// bound makes evidence differ by what every handshake makes anew.
func bound(in object, nonce int) object {
	in["report_data"] = fmt.Sprint(nonce)
	in["runtime_data_claims"] = object{"nonce": fmt.Sprint(nonce)}
	return in
}

// TestAppraise_RemembersByWhatTheDocumentReads: nonce and key of a handshake do not
// count for a document that does not look at them, and count for one that does.
func TestAppraise_RemembersByWhatTheDocumentReads(t *testing.T) {
	s := mustCompile(t, defaultCPU())
	for n := range 5 {
		appraise(t, s, bound(sampleEvidence(nil), n), &shelf{values: object{"svn": []any{"1"}}})
	}
	if len(s.judged.known) != 1 {
		t.Errorf("%d appraisals are kept of one kind of evidence", len(s.judged.known))
	}
	curious := mustCompile(t, attestation(`trust_claims := {"hardware": to_number(input.report_data)}`))
	for n := range 5 {
		if a := appraise(t, curious, bound(sampleEvidence(nil), n), nil); a.Claims["hardware"] != n {
			t.Errorf("evidence %d was appraised as %d", n, a.Claims["hardware"])
		}
	}
}

// TestAppraise_ForgetsWhatReferenceValuesSaidBefore: an appraisal ends with any
// change of a value that it was made with, also of one that was not there.
func TestAppraise_ForgetsWhatReferenceValuesSaidBefore(t *testing.T) {
	s := mustCompile(t, attestation(`
default hardware := 97
hardware := 2 if input.sample.svn in query_reference_value("svn")
default executables := 33
executables := 3 if query_reference_value("later") == true
trust_claims := {"hardware": hardware, "executables": executables}`))
	refs := &shelf{values: object{"svn": []any{"1"}}}
	check := func(when string, hardware, executables int) {
		t.Helper()
		for range 2 {
			want := map[string]int{"hardware": hardware, "executables": executables}
			if diff := cmp.Diff(want, appraise(t, s, sampleEvidence(nil), refs).Claims); diff != "" {
				t.Errorf("%s: -want +got:\n%s", when, diff)
			}
		}
	}
	check("at first", 2, 33)
	refs.values["svn"] = []any{"2"}
	check("the value was replaced", 97, 33)
	delete(refs.values, "svn")
	check("the value has expired", 97, 33)
	refs.values["svn"], refs.values["later"] = []any{"1"}, true
	check("a value was added", 2, 3)
	refs.values["later"] = nil
	check("a value is null", 2, 33)
	refs.err = errors.New("the store is gone")
	if _, err := s.Appraise(context.Background(), CPUName, sampleEvidence(nil), refs); !fault.Is(err, fault.Unavailable) {
		t.Errorf("values that cannot be read: got %v, want Unavailable", err)
	}
	if _, err := s.Appraise(context.Background(), "other_cpu", sampleEvidence(nil), refs); !fault.Is(err, fault.NotFound) {
		t.Errorf("another document: got %v, want NotFound", err)
	}
}

func TestAppraise_AsksTheClockAnew(t *testing.T) {
	s := mustCompile(t, attestation(`trust_claims := {"hardware": 2} if time.now_ns() > 0`))
	appraise(t, s, sampleEvidence(nil), nil)
	if len(s.judged.known) != 0 {
		t.Error("an appraisal by the clock is kept")
	}
}

// TestAppraise_HandsOutCopies: who changes an appraisal changes nobody else's.
func TestAppraise_HandsOutCopies(t *testing.T) {
	s := mustCompile(t, attestation(`trust_claims := {"hardware": 2}
extensions := [{"name": "x", "key": 1, "value": {"list": [1, {"a": "b"}]}}]`))
	want := appraise(t, mustCompile(t, s.documents...), sampleEvidence(nil), nil)
	for range 3 {
		a := appraise(t, s, sampleEvidence(nil), nil)
		if diff := cmp.Diff(want, a); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		a.Claims["hardware"], a.Extensions[0].Name = 97, "changed"
		list, _ := a.Extensions[0].Value.(object)["list"].([]any)
		list[0], list[1].(object)["a"] = "changed", "changed"
	}
}

func TestAppraise_KeepsNoLargeAnswer(t *testing.T) {
	s := mustCompile(t, attestation(`trust_claims := {"hardware": 2} if count(query_reference_value("large")) > 0`))
	refs := &shelf{values: object{"large": string(make([]byte, 2*longestKey))}}
	appraise(t, s, sampleEvidence(nil), refs)
	if len(s.judged.known) != 0 {
		t.Error("an appraisal with a large reference value is kept")
	}
}

// TestAppraise_IsAlwaysAsFresh: whatever came before, a set answers as one that
// remembers nothing.
func TestAppraise_IsAlwaysAsFresh(t *testing.T) {
	document := defaultCPU()
	s := mustCompile(t, document)
	word := rapid.SampledFrom([]any{"1", "2", float64(1), float64(4), nil, []any{"1"}, []any{"abcde"}, true})
	rapid.Check(t, func(rt *rapid.T) {
		in := sampleEvidence(object{"sample": object{"svn": word.Draw(rt, "svn"), "debug": word.Draw(rt, "debug")}})
		refs := &shelf{values: rapid.MapOf(rapid.SampledFrom([]string{"svn", "launch_digest", "major_version", "minimum_minor_version"}), word).Draw(rt, "refs")}
		got, err := s.Appraise(context.Background(), CPUName, in, refs)
		want, wanted := mustCompile(t, document).Appraise(context.Background(), CPUName, in, refs)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (wanted == nil) {
			rt.Fatalf("%v, want %v; -want +got:\n%s", err, wanted, diff)
		}
	})
}
