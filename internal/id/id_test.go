package id_test

import (
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/id"
)

func TestNew_IncreasesAndNeverRepeats(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			last := ""
			for range 2000 {
				s := id.New()
				mu.Lock()
				double := seen[s]
				seen[s] = true
				mu.Unlock()
				if double || s <= last || !id.Valid(s) {
					t.Errorf("%s after %s", s, last)
					return
				}
				last = s
			}
		})
	}
	wg.Wait()
}

func TestAt_KeepsItsTime(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		ms := rapid.Int64Range(0, 1<<47).Draw(r, "ms")
		s := id.At(time.UnixMilli(ms))
		got, ok := id.Time(s)
		if !ok || got.UnixMilli() != ms || !id.Valid(s) || len(s) != 26 {
			r.Fatalf("%d became %s, %v", ms, s, got)
		}
		if next := id.At(time.UnixMilli(ms)); next <= s {
			r.Fatalf("%s follows %s", next, s)
		}
	})
}

func TestDerived_IsAlwaysTheSameForOneText(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		a, b := rapid.String().Draw(r, "a"), rapid.String().Draw(r, "b")
		once, again, other := id.Derived(a), id.Derived(a), id.Derived(b)
		if !id.Valid(once) || once != again || (a == b) != (once == other) {
			r.Fatalf("%q gave %s and %s, %q gave %s", a, once, again, b, other)
		}
	})
	if got := id.Derived("workload x"); got != "1KF2CM83H7EN3KPDS3DY93PC89" {
		t.Errorf("the id of a text has changed: %s", got) // workloads would lose their rows
	}
}

func FuzzValid(f *testing.F) {
	f.Add(id.New())
	f.Add("01arz3ndektsv4rrffq69g5fav")
	f.Add("81ARZ3NDEKTSV4RRFFQ69G5FAV")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if !id.Valid(s) {
			return
		}
		if len(s) != 26 || s[0] > '7' {
			t.Fatalf("took %q", s)
		}
		for i := range len(s) {
			if c := s[i]; !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z') || c == 'I' || c == 'L' || c == 'O' || c == 'U' {
				t.Fatalf("took %q", s)
			}
		}
	})
}
