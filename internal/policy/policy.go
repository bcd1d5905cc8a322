// Package policy decides: it holds the operator's documents in Rego, compiles
// them into an immutable [Set], and answers for each verb whether it may happen
// and within which bounds (docs/policy.md).
//
// It imports no other noun. A caller hands in plain facts as maps and acts on a
// [Decision]; it never sees a type of the Rego engine. Three kinds of document
// exist: Sallyport's own, which answer data.sallyport.<verb>, and the resource
// and attestation policies of the Key Broker Service, which keep Trustee's entry
// points and run here unchanged.
//
// Everything fails closed: no opinion is a refusal, an answer of the wrong shape
// is a refusal, and an evaluation that breaks or runs out of time never allows.
// Documents run in a sandbox without network, keys, chance or the clock of the
// host (sandbox.go), and within [Limit].
package policy

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Limits of documents and of evaluations.
const (
	MaxSource    = 256 << 10              // bytes of one document's text
	MaxDocuments = 256                    // active documents of one set
	Limit        = 100 * time.Millisecond // for all documents of one request together
	TestLimit    = 10 * time.Second       // for one run of [Test], and its default
	MaxTTL       = 365 * 24 * time.Hour   // the longest life that a document may bound
)

// Kind says which entry point a document answers to.
type Kind string

// The kinds of document.
const (
	Sallyport      Kind = "sallyport"       // package sallyport, one rule per verb
	KBSResource    Kind = "kbs-resource"    // package policy, rule allow; one for each applies_to
	KBSAttestation Kind = "kbs-attestation" // package policy, rule trust_claims; chosen by name
)

// State says whether a stored document takes part in decisions.
type State string

// A removed document keeps its row, so that its versions go on counting and a
// record's name@version always means one text.
const (
	Active  State = "active"
	Removed State = "removed"
)

// verbs are the questions that a document of kind Sallyport may answer; the name
// of each is the name of its rule.
var verbs = [...]string{"admit", "release", "call", "observe", "respond", "administer"}

// Verbs lists the rules that a document of kind [Sallyport] may define.
func Verbs() []string { return append([]string(nil), verbs[:]...) }

func knownVerb(name string) bool {
	for _, v := range verbs {
		if v == name {
			return true
		}
	}
	return false
}

// Document is one version of one policy. Name is unique across all kinds.
type Document struct {
	Name    string
	Version int64 // from 1, grows by one with each change
	Kind    Kind
	Source  string // Rego v1
	Author  string // id of the subject that set it; empty for the system
	At      time.Time
	State   State // empty counts as Active
}

var _ unit.Row = Document{}

// Label is what records and decisions call this version: name@version.
func (d Document) Label() string { return d.Name + "@" + strconv.FormatInt(d.Version, 10) }

// Table is the table of current documents.
func (d Document) Table() string { return "policies" }

// Columns are id (the name), version, kind, source, author, at in microseconds,
// and state.
func (d Document) Columns() []any {
	return []any{d.Name, d.Version, string(d.Kind), d.Source, d.Author, d.At.UnixMicro(), string(d.state())}
}

func (d Document) state() State {
	if d.State == "" {
		return Active
	}
	return d.State
}

// Edition is a document as a row of the immutable history: it is inserted once
// with each change and never updated.
type Edition struct{ Document }

var _ unit.Row = Edition{}

// Table is the table of all versions.
func (e Edition) Table() string { return "policy_versions" }

// Columns are id (name@version), version (always 1, since the row never
// changes), kind, source, author, at in microseconds, and state.
func (e Edition) Columns() []any {
	return append([]any{e.Label(), int64(1)}, e.Document.Columns()[2:]...)
}

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$`)

// Validate checks everything about a document that can be checked without
// compiling it. The fault is Invalid.
func (d Document) Validate() error {
	switch {
	case !name.MatchString(d.Name):
		return fault.Invalidf("a policy name is 1 to 96 letters, digits, '_', '-' or '.', and begins with a letter or digit")
	case d.Version < 1:
		return fault.Invalidf("policy %s: the version must be at least 1", d.Name)
	case d.state() != Active && d.state() != Removed:
		return fault.Invalidf("policy %s: the state must be active or removed", d.Name)
	case len(d.Source) > MaxSource:
		return fault.Invalidf("policy %s: the text has %d bytes, at most %d are allowed", d.Name, len(d.Source), MaxSource)
	case !utf8.ValidString(d.Source):
		return fault.Invalidf("policy %s: the text is not UTF-8", d.Name)
	}
	if _, err := ParseKind(string(d.Kind)); err != nil {
		return fault.Wrap(err, "policy %s", d.Name)
	}
	return nil
}

// ParseKind reads a kind's name; anything else is Invalid.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case Sallyport, KBSResource, KBSAttestation:
		return k, nil
	}
	return "", fault.Invalidf("the kind of a policy is one of %s, %s, %s", Sallyport, KBSResource, KBSAttestation)
}

// Problem is one thing that is wrong in a document's text.
type Problem struct {
	Document string
	Line     int // from 1; 0 when it concerns the whole document
	Column   int
	Reason   string
}

// String is document:line:column: reason, as editors read it.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.Document, p.Line, p.Column, p.Reason)
}
