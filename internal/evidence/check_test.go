package evidence

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestChecks_FirstFailureRefuses(t *testing.T) {
	var c Checks
	if c.Err(Snp) != nil {
		t.Fatal("no check refuses")
	}
	c.That(true, Check{Name: "a", Reason: "not shown"})
	c.Skip(Check{Name: "b", Reason: "nothing to see"})
	if c.Err(Snp) != nil || c[0].Reason != "" {
		t.Fatalf("checks that passed refuse: %+v", c)
	}
	c.That(false, Check{Name: "c", Expected: "1", Seen: "2", Reason: "wrong number"})
	c.That(false, Check{Name: "d"})
	err := c.Err(Snp)
	r, ok := err.(*RefusedError) //nolint:errorlint // exactly this
	if !ok || !fault.Is(err, fault.Denied) || len(r.Checks) != 4 || !strings.Contains(fault.Public(err), "check c: wrong number") {
		t.Fatalf("got %v", err)
	}
	if err := c.Malformed(Tdx, "", "too %s", "short"); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Public(err), "too short") {
		t.Fatalf("got %v", err)
	}
	want := Want{Kind: "k"}
	r, ok = c.Missing(Tdx, want, Check{Name: "x", Reason: "no collateral"}).(*RefusedError) //nolint:errorlint // exactly this
	if !ok || !fault.Is(r, fault.Denied) || r.Want != (Want{}) || r.Checks[len(r.Checks)-1].Result != Skipped {
		t.Fatalf("what is refused already wants something: %+v", r)
	}
	r, ok = Checks{}.Missing(Tdx, want, Check{Name: "x", Reason: "no collateral"}).(*RefusedError) //nolint:errorlint // exactly this
	if !ok || !fault.Is(r, fault.Unavailable) || r.Want != want {
		t.Fatalf("got %+v", r)
	}
}

// The zero binding, and one that is not said to be unknown, never pass a check
// that did not hold.
func TestChecks_LeaveOutTheBindingOnlyWhenAsked(t *testing.T) {
	var c Checks
	if c.Bound(Binding{}, false, Check{Name: "report-data"}) || c.Err(Snp) == nil {
		t.Fatal("the zero binding was accepted")
	}
	var d Checks
	if !d.Bound(Binding{Unknown: true}, false, Check{Name: "report-data"}) || d[0].Result != Skipped || d[0].Reason == "" {
		t.Fatalf("got %+v", d)
	}
}

func TestFindings_FitIntoARecordWhateverTheySay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []Finding
		for range rapid.IntRange(0, 17).Draw(t, "devices") {
			var c Checks
			for range rapid.IntRange(0, 40).Draw(t, "checks") {
				text := rapid.StringN(0, 300, 600).Draw(t, "text")
				c.That(rapid.Bool().Draw(t, "ok"), Check{Name: "a-check", Expected: text, Seen: text, Reason: "because", Section: "1.2"})
			}
			list = append(list, Finding{"cpu0", Snp, c})
		}
		text := EncodeFindings(list)
		back, err := ParseFindings(text)
		if err != nil || len(text) > MaxFindings {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
		if len(back) != len(list) && text != "[]" {
			t.Fatalf("%d of %d devices are left", len(back), len(list))
		}
	})
}

// What was refused stays visible when all cannot be kept.
func TestFindings_KeepFailuresBeforeTheRest(t *testing.T) {
	var c Checks
	for range 300 {
		c.That(true, Check{Name: strings.Repeat("n", 100), Seen: "x"})
	}
	c.That(false, Check{Name: "the-one", Seen: "seen", Expected: "wanted", Reason: "r"})
	back, err := ParseFindings(EncodeFindings([]Finding{{"", Snp, c}}))
	if err != nil || len(back) != 1 || len(back[0].Checks) != 1 || back[0].Checks[0].Seen != "seen" {
		t.Fatalf("%+v, %v", back, err)
	}
}
