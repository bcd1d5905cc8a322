// Package event is about what has happened, as others are told of it: extensions by
// their hooks, later webhooks and message buses.
//
// An event is a record of the ledger that has its position, so that there is one
// order, nothing is told that did not happen, and nothing is forgotten. It is told
// at least once; who is told twice knows it by the ID. It never holds a secret,
// because the ledger holds none.
package event

import (
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
)

// Event is one thing that has happened.
type Event struct {
	ID       string // of the record; the same in every repetition
	Position uint64 // in the ledger
	Type     string // noun.verb-past: grant.issued
	Subject  string // id of the subject that it concerns; may be empty
	At       time.Time
	// Facts are what the type tells: grant, target, actor, actor_kind, serial, and
	// the record's data.
	Facts map[string]string
}

// nouns are what events are about. Records about other things, such as policies and
// keys, are the auditors'.
var nouns = [...]string{"subject.", "session.", "certificate.", "grant.", "leak.", "plugin.", "extension.", "workload."}

// Public reports whether records of a type are events.
func Public(recordType string) bool {
	for _, n := range nouns {
		if strings.HasPrefix(recordType, n) {
			return true
		}
	}
	return false
}

// Matches reports whether one of the patterns is for a type: the type itself, all
// of a noun (grant.*), or * for everything.
func Matches(patterns []string, eventType string) bool {
	for _, p := range patterns {
		front, star := strings.CutSuffix(p, "*")
		if p == eventType || star && strings.HasPrefix(eventType, front) {
			return true
		}
	}
	return false
}

// Data is the facts as a JSON object with sorted members.
func (e Event) Data() []byte {
	facts := make(map[string]any, len(e.Facts))
	for k, v := range e.Facts {
		facts[k] = strings.ToValidUTF8(v, "�")
	}
	data, err := canon.AppendValue(nil, facts)
	if err != nil {
		return []byte("{}") // unreachable: strings always encode
	}
	return data
}
