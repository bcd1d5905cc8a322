package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const good = `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/b"}
{"Action":"skip","Package":"empty"}
{"Action":"pass","Package":"p"}
`

const skips = good + `{"Action":"output","Package":"p","Test":"TestS","Output":"    s_test.go:9: needs sshd\n"}
{"Action":"output","Package":"p","Test":"TestS","Output":"--- SKIP: TestS (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestS"}
`

const python = `test_a (tests.test_a.A) ... ok
test_b (tests.test_a.A) ... skipped 'needs grpcio'
----------------------------------------------------------------------
Ran 3 tests in 0.001s

FAILED (failures=1, skipped=1)
`

func TestReport_CountsAndJudges(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		allow  string
		strict bool
		ok     bool
		wants  string
	}{
		"all passed":            {files: map[string]string{"go.json": good}, strict: true, ok: true, wants: "2 passed, 0 failed, 0 skipped\n"},
		"nothing ran":           {files: map[string]string{}, wants: "no test passed"},
		"a skip by a person":    {files: map[string]string{"go.json": skips}, ok: true, wants: "skipped: p TestS: s_test.go:9: needs sshd\n2 passed, 0 failed, 1 skipped\n"},
		"a skip in CI":          {files: map[string]string{"go.json": skips}, strict: true, wants: "CI allows no skip"},
		"an allowed skip in CI": {files: map[string]string{"go.json": skips}, allow: "p TestS no sshd there\n", strict: true, ok: true, wants: "no sshd there\n"},
		"a failed test":         {files: map[string]string{"go.json": good + `{"Action":"fail","Package":"p","Test":"TestB"}`}, wants: "2 passed, 1 failed, 0 skipped"},
		"a broken package":      {files: map[string]string{"go.json": good + `{"Action":"fail","Package":"q"}`}, wants: "2 passed, 1 failed, 0 skipped"},
		"python":                {files: map[string]string{"go.json": good, "python.log": python}, wants: "3 passed, 1 failed, 1 skipped"},
		"a step left out":       {files: map[string]string{"go.json": good, "skipped": "python3\n"}, strict: true, wants: "step -: needs python3"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for n, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, n), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			allow := filepath.Join(dir, "allowed")
			if err := os.WriteFile(allow, []byte("# none\n"+c.allow), 0o600); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			ok, err := report(&out, dir, allow, c.strict)
			if err != nil {
				t.Fatal(err)
			}
			if ok != c.ok || !strings.Contains(out.String(), c.wants) {
				t.Errorf("ok %v, want %v; printed %q, want %q", ok, c.ok, out.String(), c.wants)
			}
		})
	}
}

func TestReport_RefusesASkipWithoutReason(t *testing.T) {
	allow := filepath.Join(t.TempDir(), "allowed")
	if err := os.WriteFile(allow, []byte("p TestS\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readAllowed(allow); err == nil {
		t.Error("no error")
	}
}
