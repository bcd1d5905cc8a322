// Package evidencetest is what the tests of verifiers share: vectors of real
// hardware, mutants of evidence, and reading of checks.
//
// The vectors are not part of this repository: they lie beside it, in
// ../shared/vectors. Where they are absent a test that needs them is skipped,
// and fails in CI.
package evidencetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
)

// Now is a time at which every vector is valid unless its test says otherwise.
var Now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// Folder is where the vectors are; the test is skipped where they are not.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("there is no go.mod above this test")
		}
		dir = filepath.Dir(dir)
	}
	folder := filepath.Join(dir, "..", "shared", "vectors")
	if _, err := os.Stat(folder); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the vectors are needed in CI: %v", err)
		}
		t.Skipf("needs the vectors of real hardware at %s", folder)
	}
	return folder
}

// Vector reads one file of the vectors.
func Vector(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(Folder(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Result gives the result of a check, empty if it was not made.
func Result(list evidence.Checks, name string) evidence.Result {
	for _, k := range list {
		if k.Name == name {
			return k.Result
		}
	}
	return ""
}

// Failed are the names of the checks that failed.
func Failed(list evidence.Checks) []string {
	var out []string
	for _, k := range list {
		if k.Result == evidence.Failed {
			out = append(out, k.Name)
		}
	}
	return out
}

// Mutants calls try with n different mutants of data: bits flipped, bytes
// replaced, runs removed, repeated or zeroed, ends cut and grown. They are the
// same in every run, and none equals data. try must not keep its argument.
//
// With -short and under the race detector, which sees nothing in one goroutine and
// takes five times as long, they are a twentieth: .ci/test tries them all without it.
func Mutants(data []byte, n int, try func(i int, mutant []byte)) {
	n /= share()
	s := state(0x9e3779b97f4a7c15)
	for i := 0; i < n; {
		m := append([]byte(nil), data...)
		for range 1 + s.below(3) {
			m = s.mutate(m)
		}
		if string(m) != string(data) {
			try(i, m)
			i++
		}
	}
}

// Cuts calls try with data cut at every byte, or at a twentieth of them where
// Mutants tries fewer, and not with data itself.
func Cuts(data []byte, try func(cut []byte)) {
	for i := 0; i < len(data); i += share() {
		try(data[:i])
	}
}

// share is the divisor of what is tried.
func share() int {
	if raced || testing.Short() {
		return 20
	}
	return 1
}

// state is xorshift64*, which is enough to choose mutants.
type state uint64

func (s *state) below(n int) int {
	if n <= 0 {
		return 0
	}
	*s ^= *s >> 12
	*s ^= *s << 25
	*s ^= *s >> 27
	return int((uint64(*s) * 0x2545f4914f6cdd1d >> 33) % uint64(n))
}

func (s *state) mutate(m []byte) []byte {
	if len(m) == 0 {
		return append(m, byte(s.below(256)))
	}
	at := s.below(len(m))
	run := min(1+s.below(16), len(m)-at)
	switch s.below(8) {
	case 0:
		m[at] = byte(s.below(256))
	case 1:
		return append(m[:at], m[at+run:]...)
	case 2:
		return append(m[:at+run:at+run], m[at:]...)
	case 3:
		clear(m[at : at+run])
	case 4:
		return m[:at]
	case 5:
		return append(m, byte(s.below(256)))
	default:
		m[at] ^= 1 << s.below(8)
	}
	return m
}
