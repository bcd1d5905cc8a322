package tpm

import (
	"strconv"

	"github.com/sallyport-project/sallyport/internal/evidence"
)

// mostLost is how far, in milliseconds, a TPM's clock may go back when it loses
// its power without warning: it writes the time down at least so often (TPM 2.0
// Library part 1, 36.3.2; 2^22 ms is the longest interval that is allowed).
const mostLost = 1 << 22

// Since checks that a quote was made after another one of the same key, by the
// same TPM that nobody has cleared: neither its clock nor its counters go back,
// but for what an unexpected loss of power takes from the clock, and then the
// clock says itself that it may tell a time for the second time. A clock and
// counters that have not moved at all pass: that it is not the same quote again
// is for the nonce.
//
// A TPM that was cleared on purpose fails: whoever clears it must say so, and
// forget the clock that was last seen.
func (k Clock) Since(c *evidence.Checks, last Clock) {
	const section = "TPM 2.0 Library part 1, 36; part 2, 10.11.1"
	rebooted := k.Resets > last.Resets
	c.That(rebooted || k.Resets == last.Resets && k.Restarts >= last.Restarts, evidence.Check{
		Name: "clock-counters", Expected: "at least " + last.counters(), Seen: k.counters(),
		Reason: "the TPM's counters have gone back: it was cleared, or it is another one", Section: section,
	})
	least := last.Milliseconds
	if rebooted && !k.Safe {
		least -= min(least, mostLost)
	}
	c.That(k.Milliseconds >= least, evidence.Check{
		Name: "clock", Expected: "at least " + strconv.FormatUint(least, 10) + " ms", Seen: strconv.FormatUint(k.Milliseconds, 10) + " ms",
		Reason: "the TPM's clock has gone back: it was cleared, or it is another one", Section: section,
	})
}

func (k Clock) counters() string {
	return strconv.FormatUint(uint64(k.Resets), 10) + " resets and " + strconv.FormatUint(uint64(k.Restarts), 10) + " restarts"
}
