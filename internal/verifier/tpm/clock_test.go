package tpm

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
)

func since(now, last Clock) []string {
	var c evidence.Checks
	now.Since(&c, last)
	return evidencetest.Failed(c)
}

func TestClock_NeverGoesBack(t *testing.T) {
	const hours = 10 * 3_600_000
	last := Clock{Milliseconds: hours, Resets: 7, Restarts: 2, Safe: true}
	for name, tt := range map[string]struct {
		now  Clock
		want []string
	}{
		"the same moment":                         {last, nil},
		"a moment later":                          {Clock{hours + 1, 7, 2, true}, nil},
		"woken up":                                {Clock{hours + 1, 7, 3, true}, nil},
		"rebooted":                                {Clock{hours + 1, 8, 0, true}, nil},
		"rebooted after a loss of power":          {Clock{hours - mostLost, 8, 0, false}, nil},
		"a moment earlier":                        {Clock{hours - 1, 7, 2, true}, []string{"clock"}},
		"earlier, and it says so":                 {Clock{hours - 1, 7, 2, false}, []string{"clock"}},
		"earlier after a reboot in order":         {Clock{hours - 1, 8, 0, true}, []string{"clock"}},
		"lost more than can be lost":              {Clock{hours - mostLost - 1, 8, 0, false}, []string{"clock"}},
		"fewer restarts":                          {Clock{hours + 1, 7, 1, true}, []string{"clock-counters"}},
		"fewer resets":                            {Clock{hours + 1, 6, 9, true}, []string{"clock-counters"}},
		"cleared":                                 {Clock{0, 0, 0, true}, []string{"clock-counters", "clock"}},
		"cleared, and made to count on and forth": {Clock{5000, 8, 0, true}, []string{"clock"}},
	} {
		if got := since(tt.now, last); !slices.Equal(got, tt.want) {
			t.Errorf("%s: failed %v, want %v", name, got, tt.want)
		}
	}
	if got := since(Clock{Resets: 1}, Clock{Milliseconds: 5}); len(got) > 0 { // no number below zero
		t.Errorf("soon after the first start: failed %v", got)
	}
}

// Whoever passes is not before: of two different clocks in order at most one
// order passes, but for what a loss of power takes.
func TestClock_OrdersQuotes(t *testing.T) {
	draw := rapid.Custom(func(t *rapid.T) Clock {
		return Clock{rapid.Uint64Range(0, 1<<24).Draw(t, "ms"), rapid.Uint32Range(0, 3).Draw(t, "resets"), rapid.Uint32Range(0, 3).Draw(t, "restarts"), true}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		if a != b && len(since(a, b)) == 0 && len(since(b, a)) == 0 {
			t.Fatalf("%+v and %+v come after each other", a, b)
		}
	})
}
