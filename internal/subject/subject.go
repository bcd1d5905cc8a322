// Package subject is about who is calling: workloads, machines, agents, operators
// and plugins, their life, their certificates and their sessions.
//
// A subject's role lives in its row and nowhere else, so that a change acts on
// the next request. Every act that takes something away from a subject (a lock,
// a new role, a revoked certificate or session) raises the version of its row:
// whoever decided on the older version finds out when the unit commits.
package subject

import (
	"encoding/json"
	"regexp"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Kind says what a subject is.
type Kind string

// The kinds.
const (
	Workload Kind = "workload" // a confidential guest, known by its TEE key
	Machine  Kind = "machine"  // known by its TPM
	Agent    Kind = "agent"    // an AI agent, known by its certificate
	Operator Kind = "operator" // a person or their tool
	Plugin   Kind = "plugin"   // known by the stream on which it calls the host
)

// Valid reports whether k is one of the kinds.
func (k Kind) Valid() bool {
	switch k {
	case Workload, Machine, Agent, Operator, Plugin:
		return true
	}
	return false
}

// Subject is one row of table subjects.
type Subject struct {
	ID         string
	Version    int64
	Kind       Kind
	State      State
	Role       string // what policy goes by; empty is refused everywhere
	Name       string // for people; unique per kind among those not revoked
	Team       string
	Attributes map[string]string
	Reason     string // of the last transition
	Created    time.Time
	Changed    time.Time
	// Recall is set while the subject's live credentials are still to be taken
	// back: when the sweeper must see to it. No other unit clears it.
	Recall time.Time
}

var (
	roleGrammar = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	nameGrammar = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$`)
)

// ValidRole reports whether a role is well-formed: 1 to 63 of a-z, 0-9 and
// dash, beginning with a letter. Whether it means anything is policy's matter.
func ValidRole(role string) bool { return roleGrammar.MatchString(role) }

// ValidName reports whether a name is well-formed: 1 to 128 letters, digits
// and . _ @ -, beginning with a letter or digit.
func ValidName(name string) bool { return nameGrammar.MatchString(name) }

// Validate refuses a subject that must not be stored. The fault is Invalid and
// says which member is wrong.
func (s Subject) Validate() error {
	switch {
	case !s.Kind.Valid():
		return fault.Invalidf("kind %q is unknown: use workload, machine, agent, operator or plugin", s.Kind)
	case !ValidRole(s.Role):
		return fault.Invalidf("role %q is not well-formed: 1 to 63 of a-z, 0-9 and dash, a letter first", s.Role)
	case !ValidName(s.Name):
		return fault.Invalidf("name %q is not well-formed: 1 to 128 letters, digits, dot, dash, underscore or @", s.Name)
	case s.Team != "" && !ValidName(s.Team):
		return fault.Invalidf("team %q is not well-formed", s.Team)
	case len(s.Attributes) > 64:
		return fault.Invalidf("%d attributes are too many: at most 64", len(s.Attributes))
	}
	for k, v := range s.Attributes {
		if len(k) > 64 || len(v) > 1024 {
			return fault.Invalidf("attribute %.64q is too long: names up to 64 bytes, values up to 1024", k)
		}
	}
	return nil
}

// Table names the store's table.
func (Subject) Table() string { return "subjects" }

// Columns gives the row in the order of the table's columns.
func (s Subject) Columns() []any {
	attributes, err := json.Marshal(s.Attributes)
	if err != nil || s.Attributes == nil {
		attributes = []byte("{}")
	}
	return []any{
		s.ID, s.Version, string(s.Kind), string(s.State), s.Role, s.Name, s.Team,
		string(attributes), s.Reason, unit.Micros(s.Created), unit.Micros(s.Changed), unit.Micros(s.Recall),
	}
}

// Scan fills the subject from columns in the order of [Subject.Columns].
func (s *Subject) Scan(scan unit.Scanner) error {
	var kind, state, attributes string
	var created, changed, recall int64
	err := scan(&s.ID, &s.Version, &kind, &state, &s.Role, &s.Name, &s.Team, &attributes, &s.Reason, &created, &changed, &recall)
	if err != nil {
		return err
	}
	s.Attributes = nil
	if attributes != "{}" {
		if err := json.Unmarshal([]byte(attributes), &s.Attributes); err != nil {
			return fault.Internalf("subject %s has broken attributes", s.ID).Because(err)
		}
	}
	s.Kind, s.State = Kind(kind), State(state)
	s.Created, s.Changed, s.Recall = unit.Moment(created), unit.Moment(changed), unit.Moment(recall)
	return nil
}

// Filter selects subjects. Zero members do not restrict; After is the id of
// the last subject of the page before.
type Filter struct {
	Kind  Kind
	State State
	After string
	Limit int
}
