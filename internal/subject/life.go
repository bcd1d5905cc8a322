package subject

import (
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// State is where a subject stands in its life.
type State string

// The states, in RFC 9334's words where it has one.
const (
	Pending    State = "pending"    // asked to join, waits for approval
	Registered State = "registered" // known, has proved possession of its key
	Attested   State = "attested"   // evidence appraised and accepted
	Locked     State = "locked"     // may do nothing until unlocked
	Rejected   State = "rejected"   // refused at the door, final
	Revoked    State = "revoked"    // taken out, final
)

// Transition is one step of the life, by name of the act that causes it.
type Transition struct {
	Act      string // also the verb of the record's type: subject.<Act>
	From, To State
}

// Life is every step that a subject can take. What is not listed is refused;
// a property test walks the table.
var Life = []Transition{
	{"registered", Pending, Registered},
	{"rejected", Pending, Rejected},
	{"attested", Registered, Attested},
	{"attested", Attested, Attested},
	{"downgraded", Attested, Registered},
	{"locked", Registered, Locked},
	{"locked", Attested, Locked},
	{"unlocked", Locked, Registered},
	{"revoked", Pending, Revoked},
	{"revoked", Registered, Revoked},
	{"revoked", Attested, Revoked},
	{"revoked", Locked, Revoked},
	{"changed", Registered, Registered}, // role, team or attributes
	{"changed", Attested, Attested},
	{"changed", Locked, Locked},
	{"stripped", Registered, Registered}, // a certificate or session was taken away
	{"stripped", Attested, Attested},
	{"stripped", Locked, Locked},
}

// Births are the states in which a new subject may be stored.
var Births = map[Kind][]State{
	Workload: {Attested},
	Machine:  {Pending},
	Agent:    {Pending, Registered},
	Operator: {Registered},
	Plugin:   {Registered},
}

// Step returns the subject after the act, one version later. An act that the
// life does not allow from the present state is a fault of kind Conflict.
func (s Subject) Step(act, reason string, now time.Time) (Subject, error) {
	for _, t := range Life {
		if t.Act == act && t.From == s.State {
			s.State, s.Reason, s.Changed = t.To, reason, now
			s.Version++
			return s, nil
		}
	}
	return Subject{}, fault.Conflictf("the %s is %s, it cannot be %s", s.Kind, s.State, act)
}

// Active reports whether the subject may do anything at all.
func (s Subject) Active() bool { return s.State == Registered || s.State == Attested }
