package evidence

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Result says how a check came out.
type Result string

// The results. A check is skipped when it does not apply or cannot be made, and
// its reason says which; a verifier skips none that its page in docs/evidence.md
// calls mandatory.
const (
	Passed  Result = "pass"
	Failed  Result = "fail"
	Skipped Result = "skip"
)

// Check is one thing that a verifier looked at: what it had to be, what it was,
// and which specification says so. None of it is secret.
type Check struct {
	Name     string `json:"name"` // stable, for machines: report-signature
	Expected string `json:"expected,omitempty"`
	Seen     string `json:"seen,omitempty"`
	Result   Result `json:"result"`
	Reason   string `json:"reason,omitempty"` // of a failure or a skip: what to do
	Section  string `json:"section,omitempty"`
}

// Checks are the checks of one piece of evidence in the order in which they were
// made. The zero value is empty and ready; it is not safe for concurrent use.
type Checks []Check

// maxSeen bounds what a check shows of foreign text, in bytes.
const maxSeen = 160

// That adds a check that passed if ok, and says so.
func (c *Checks) That(ok bool, k Check) bool {
	k.Result = Failed
	if ok {
		k.Result, k.Reason = Passed, ""
	}
	k.Expected, k.Seen = short(k.Expected), short(k.Seen)
	*c = append(*c, k)
	return ok
}

// Skip adds a check that was not made, for its Reason.
func (c *Checks) Skip(k Check) {
	k.Result = Skipped
	k.Expected, k.Seen = short(k.Expected), short(k.Seen)
	*c = append(*c, k)
}

// Bound adds the check of one bound value, the report data or the init-data,
// and leaves it out, saying so, where nobody knows what it should be
// ([Binding.Unknown]).
func (c *Checks) Bound(b Binding, ok bool, k Check) bool {
	if b.Unknown {
		k.Reason = "nobody said what the evidence should be bound to"
		c.Skip(k)
		return true
	}
	return c.That(ok, k)
}

// Refused gives the first check that failed.
func (c Checks) Refused() (Check, bool) {
	for _, k := range c {
		if k.Result == Failed {
			return k, true
		}
	}
	return Check{}, false
}

// Err is nil if no check failed, and else a *RefusedError that is Denied.
func (c Checks) Err(tee TEE) error {
	k, failed := c.Refused()
	if !failed {
		return nil
	}
	text := "the " + string(tee) + " evidence is refused by the check " + k.Name
	if k.Reason != "" {
		text += ": " + k.Reason
	}
	return &RefusedError{TEE: tee, Checks: c, cause: fault.Deniedf("%s", text)}
}

// Malformed is a *RefusedError of kind Invalid for evidence whose form is wrong:
// it adds the failed check that says where.
func (c Checks) Malformed(tee TEE, section, format string, args ...any) error {
	reason := fmt.Sprintf(format, args...)
	c.That(false, Check{Name: "form", Reason: reason, Section: section})
	return &RefusedError{TEE: tee, Checks: c, cause: fault.Invalidf("the %s evidence is malformed: %s", tee, reason)}
}

// Missing is a *RefusedError of kind Unavailable for evidence that cannot be
// judged, because reference material for it is not here. If a check has failed
// already it is [Checks.Err]: nothing is looked for, let alone fetched, for evidence
// that is refused whatever would be found.
func (c Checks) Missing(tee TEE, w Want, k Check) error {
	if _, failed := c.Refused(); failed {
		c.Skip(k)
		return c.Err(tee)
	}
	c.That(false, k)
	return &RefusedError{TEE: tee, Checks: c, Want: w, cause: fault.Unavailablef("the %s evidence cannot be judged: %s", tee, k.Reason)}
}

// RefusedError is what a verifier answers for evidence that it does not accept,
// with the checks that it made. Its kind is that of the fault in it.
type RefusedError struct {
	TEE    TEE
	Checks Checks
	// Want is the endorsement without which the evidence cannot be judged; zero if
	// that is not what was wrong.
	Want  Want
	cause error
}

// Refuse is the refusal of evidence by somebody else's judgement: the cause is a
// fault of kind Invalid, Denied or Unavailable.
func Refuse(tee TEE, checks Checks, cause error) error {
	return &RefusedError{TEE: tee, Checks: checks, cause: cause}
}

// Error is the cause's text.
func (e *RefusedError) Error() string { return e.cause.Error() }

// Unwrap gives the cause, a fault.
func (e *RefusedError) Unwrap() error { return e.cause }

// Finding is what stands in the ledger about one device of a decision.
type Finding struct {
	Device string `json:"device,omitempty"` // cpu0; empty for evidence that was refused
	TEE    TEE    `json:"tee"`
	Checks Checks `json:"checks"`
}

// MaxFindings is the longest text of EncodeFindings, in bytes: a record of the
// ledger has to hold it beside other things.
const MaxFindings = 16 << 10

// EncodeFindings writes findings as JSON for a record. If they are too long,
// passed checks are shown by name alone, and if that does not help, only what
// did not pass is kept, up to what there is room for.
func EncodeFindings(list []Finding) string {
	for _, keep := range []func(Check) (Check, bool){
		func(k Check) (Check, bool) { return k, true },
		func(k Check) (Check, bool) {
			if k.Result == Passed {
				k.Expected, k.Seen, k.Section = "", "", ""
			}
			return k, true
		},
		func(k Check) (Check, bool) { return k, k.Result == Failed },
	} {
		out := make([]Finding, 0, len(list))
		for _, f := range list {
			kept := Checks{}
			for _, k := range f.Checks {
				if k, ok := keep(k); ok {
					kept = append(kept, k)
				}
			}
			out = append(out, Finding{f.Device, f.TEE, kept})
		}
		if text, err := json.Marshal(out); err == nil && len(text) <= MaxFindings {
			return string(text)
		}
	}
	return "[]"
}

// ParseFindings is the inverse of EncodeFindings.
func ParseFindings(text string) ([]Finding, error) {
	var list []Finding
	if err := canon.Strict([]byte(text), MaxFindings, 8, &list); err != nil {
		return nil, fault.Invalidf("the list of checks cannot be read").Because(err)
	}
	return list, nil
}

// short cuts foreign text and leaves out what no JSON can carry.
func short(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	if len(s) > maxSeen {
		return strings.ToValidUTF8(s[:maxSeen], "") + "..."
	}
	return s
}
