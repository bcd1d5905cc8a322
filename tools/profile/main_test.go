package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/pprof/profile"
)

func TestRun_MergesAndForgetsThePlace(t *testing.T) {
	dir := t.TempDir()
	in := []string{write(t, dir, "a", 2), write(t, dir, "b", 3)}
	out := filepath.Join(dir, "out")
	if err := run(out, in); err != nil {
		t.Fatal(err)
	}
	p, err := read(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sample) != 1 || p.Sample[0].Value[0] != 5 || p.Function[0].Name != "main.f" {
		t.Errorf("merged to %v", p)
	}
	if p.TimeNanos != 0 || len(p.Mapping) != 1 || p.Mapping[0].File != "load" || p.Function[0].Filename != "main.go" {
		t.Errorf("it says when or where: %v", p)
	}
}

func TestRun_RefusesWhatIsNoProfile(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("no profile"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{bad, filepath.Join(dir, "absent")} {
		if err := run(filepath.Join(dir, "out"), []string{in}); err == nil {
			t.Errorf("%s was taken", in)
		}
	}
}

// write makes a profile of one function.
func write(t *testing.T, dir, name string, n int64) string {
	t.Helper()
	m := &profile.Mapping{ID: 1, Start: 1, Limit: 9, File: "/home/someone/load", HasFunctions: true}
	f := &profile.Function{ID: 1, Name: "main.f", Filename: "/home/someone/main.go"}
	l := &profile.Location{ID: 1, Mapping: m, Address: 5, Line: []profile.Line{{Function: f, Line: 7}}}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1, TimeNanos: 99,
		Sample:  []*profile.Sample{{Location: []*profile.Location{l}, Value: []int64{n}}},
		Mapping: []*profile.Mapping{m}, Function: []*profile.Function{f}, Location: []*profile.Location{l},
	}
	path := filepath.Join(dir, name)
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(out); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
