// Package grant is about what was given to whom, for how long, and how it is
// taken back: scopes and bounds, providers of credentials, the grant itself
// and its life.
//
// A grant is the record of a decision that has effect in time. It never holds
// the credential: at most a fingerprint by which a leaked value is recognised,
// and a sealed copy for kinds that cannot be revoked without it.
package grant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// State is where a grant stands in its life; see [Transitions].
type State string

// The states. Intent is a promise to mint at a remote provider; Manual waits
// for a person, because nobody can revoke the kind by program.
const (
	Intent   State = "intent"
	Active   State = "active"
	Revoking State = "revoking"
	Revoked  State = "revoked"
	Expired  State = "expired"
	Manual   State = "manual"
	Void     State = "void" // an intent that never became active
)

// Transitions is the whole life of a grant. What is not listed is refused.
var Transitions = map[State][]State{
	Intent:   {Active, Void},
	Active:   {Revoking, Revoked, Expired, Manual},
	Revoking: {Revoked, Manual, Expired},
	Manual:   {Revoked, Expired},
	Revoked:  nil,
	Expired:  nil,
	Void:     nil,
}

// Grant is one row of table grants.
type Grant struct {
	ID      string
	Version int64
	State   State
	Subject string // id of the holder
	Session string // id of the session that asked, may be empty
	Kind    string // credential kind, or "resource"
	Scope   Scope  // as granted
	Source  Source // who made it
	Handle  string // what the provider, or the host's own revoker, needs to take it back
	Sealed  []byte // the value under the envelope, only where revocation needs it
	// Fingerprints are what its values are recognised by when they leak: keyed
	// digests without a space in them. They leave the store for nobody.
	Fingerprints []string
	Policy       []string
	Tags         []string // for example detected_after_expiry
	Reason       string   // why it ended
	Attempts     int64    // revocations tried
	IssuedAt     time.Time
	ExpiresAt    time.Time // end of the lease
	EndedAt      time.Time // zero while live
	DueAt        time.Time // when the sweeper must look at it again
}

// Live reports whether the credential may still work at time t. An expired
// lease that the sweeper has not seen yet is not live.
func (g Grant) Live(t time.Time) bool {
	switch g.State {
	case Active, Revoking, Manual:
		return t.Before(g.ExpiresAt)
	default:
		return false
	}
}

// To returns the grant in its next version and state, due again at the given
// time. A transition that the life does not know is a fault of kind Conflict.
func (g Grant) To(next State, reason string, now time.Time) (Grant, error) {
	for _, s := range Transitions[g.State] {
		if s == next {
			g.State, g.Reason = next, reason
			g.Version++
			if len(Transitions[next]) == 0 {
				g.EndedAt, g.DueAt = now, time.Time{}
				g.Sealed = nil
			}
			return g, nil
		}
	}
	return Grant{}, fault.Conflictf("the grant is %s, it cannot become %s", g.State, next)
}

// Tagged returns the grant with a tag added once, in the same version.
func (g Grant) Tagged(tag string) Grant {
	for _, t := range g.Tags {
		if t == tag {
			return g
		}
	}
	g.Tags = append(append([]string(nil), g.Tags...), tag)
	return g
}

// Hash identifies the logical scope: two issuances of the same kind,
// parameters and duration share it, whenever they were made. It is lower-case
// hex of SHA-256 over {"kind","params","ttl_seconds"} in the form of RFC 8785;
// empty if the parameters are no JSON values.
func (s Scope) Hash() string {
	b, err := s.appendCanonical(make([]byte, 0, 512))
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (s Scope) appendCanonical(b []byte) ([]byte, error) {
	b, err := canon.AppendString(append(b, `{"kind":`...), s.Kind)
	if err != nil {
		return nil, fault.Wrap(err, "encode kind of scope")
	}
	if b, err = canon.AppendValue(append(b, `,"params":`...), s.Params); err != nil {
		return nil, fault.Wrap(err, "encode parameters of scope")
	}
	b = strconv.AppendInt(append(b, `,"ttl_seconds":`...), int64(s.TTL/time.Second), 10)
	return append(b, '}'), nil
}

// HostPrefix begins the names of parameters that the host alone sets.
const HostPrefix = "host."

// WithoutHost returns the scope without the host's own parameters: what the
// holder asked for and was given.
func (s Scope) WithoutHost() Scope {
	params := make(map[string]any, len(s.Params))
	for name, value := range s.Params {
		if !strings.HasPrefix(name, HostPrefix) {
			params[name] = value
		}
	}
	s.Params = params
	return s
}

// Table names the store's table.
func (Grant) Table() string { return "grants" }

// Columns gives the row in the order of the table's columns.
func (g Grant) Columns() []any {
	return []any{
		g.ID, g.Version, string(g.State), g.Subject, g.Session, g.Kind,
		g.document(), g.Handle, strings.Join(g.Fingerprints, " "), g.Sealed, g.Attempts,
		unit.Micros(g.IssuedAt), unit.Micros(g.ExpiresAt), unit.Micros(g.EndedAt), unit.Micros(g.DueAt),
	}
}

// document is what nobody searches for, in one JSON column.
type document struct {
	Kind    string         `json:"kind"`
	Params  map[string]any `json:"params,omitempty"`
	TTL     int64          `json:"ttl_seconds"`
	Issued  int64          `json:"issued"`
	Expires int64          `json:"expires"`
	Source  Source         `json:"source"`
	Policy  []string       `json:"policy,omitempty"`
	Tags    []string       `json:"tags,omitempty"`
	Reason  string         `json:"reason,omitempty"`
}

// document is written with every credential, and so without reflection where all
// texts and parameters are as JSON has them.
func (g Grant) document() string {
	w := writer{text: append(make([]byte, 0, 512), '{')}
	w.number("ttl_seconds", int64(g.Scope.TTL/time.Second))
	w.number("issued", unit.Micros(g.Scope.IssuedAt))
	w.number("expires", unit.Micros(g.Scope.ExpiresAt))
	w.value("kind", g.Scope.Kind)
	if len(g.Scope.Params) > 0 {
		w.value("params", g.Scope.Params)
	}
	w.name("source")
	w.text = append(w.text, '{')
	w.value("effects", string(g.Source.Effects))
	w.value("plugin", g.Source.Plugin)
	w.some("version", g.Source.Version)
	w.some("digest", g.Source.Digest)
	w.some("address", g.Source.Address)
	if g.Source.Revocable {
		w.value("revocable", true)
	}
	if g.Source.KeepValue {
		w.value("keep", true)
	}
	w.text = append(w.text, '}')
	w.list("policy", g.Policy)
	w.list("tags", g.Tags)
	w.some("reason", g.Reason)
	if w.err != nil {
		return g.anyDocument()
	}
	return string(append(w.text, '}'))
}

// anyDocument is the document of a grant with texts that are no UTF-8, of which
// what can be read is kept: without a document nothing could be taken back.
func (g Grant) anyDocument() string {
	b, err := json.Marshal(document{
		Kind: g.Scope.Kind, Params: g.Scope.Params, TTL: int64(g.Scope.TTL / time.Second),
		Issued: unit.Micros(g.Scope.IssuedAt), Expires: unit.Micros(g.Scope.ExpiresAt),
		Source: g.Source, Policy: g.Policy, Tags: g.Tags, Reason: g.Reason,
	})
	if err != nil {
		return "{}" // unreachable: parameters are JSON values by contract
	}
	return string(b)
}

// Scan fills the grant from columns in the order of [Grant.Columns].
func (g *Grant) Scan(scan unit.Scanner) error {
	var state, doc, prints string
	var issued, expires, ended, due int64
	err := scan(&g.ID, &g.Version, &state, &g.Subject, &g.Session, &g.Kind,
		&doc, &g.Handle, &prints, &g.Sealed, &g.Attempts, &issued, &expires, &ended, &due)
	if err != nil {
		return err
	}
	var d document
	if err := json.Unmarshal([]byte(doc), &d); err != nil {
		return fault.Internalf("grant %s has a broken document", g.ID).Because(err)
	}
	g.State = State(state)
	if prints != "" {
		g.Fingerprints = strings.Split(prints, " ")
	}
	g.Scope = Scope{Kind: d.Kind, Params: d.Params, TTL: time.Duration(d.TTL) * time.Second, IssuedAt: unit.Moment(d.Issued), ExpiresAt: unit.Moment(d.Expires)}
	g.Source, g.Policy, g.Tags, g.Reason = d.Source, d.Policy, d.Tags, d.Reason
	g.IssuedAt, g.ExpiresAt, g.EndedAt, g.DueAt = unit.Moment(issued), unit.Moment(expires), unit.Moment(ended), unit.Moment(due)
	return nil
}
