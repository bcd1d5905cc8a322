package subject_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

var (
	states = []subject.State{subject.Pending, subject.Registered, subject.Attested, subject.Locked, subject.Rejected, subject.Revoked}
	kinds  = []subject.Kind{subject.Workload, subject.Machine, subject.Agent, subject.Operator}
)

func acts() []string {
	var all []string
	for _, s := range subject.Life {
		all = append(all, s.Act)
	}
	slices.Sort(all)
	return append(slices.Compact(all), "", "born", "REVOKED", "subject.revoked")
}

// TestLife_TakesOnlyListedSteps walks lives of any length from any birth.
func TestLife_TakesOnlyListedSteps(t *testing.T) {
	all := acts()
	rapid.Check(t, func(r *rapid.T) {
		kind := rapid.SampledFrom(kinds).Draw(r, "kind")
		s := subject.Subject{Kind: kind, State: rapid.SampledFrom(subject.Births[kind]).Draw(r, "birth"), Version: 1}
		now := time.Unix(1_700_000_000, 0).UTC()
		for i := range rapid.IntRange(0, 30).Draw(r, "steps") {
			act := rapid.SampledFrom(all).Draw(r, "act")
			now = now.Add(time.Second)
			next, err := s.Step(act, "because", now)
			at := slices.IndexFunc(subject.Life, func(x subject.Transition) bool { return x.Act == act && x.From == s.State })
			if at < 0 {
				if !fault.Is(err, fault.Conflict) || next.Version != 0 {
					r.Fatalf("step %d: %s from %s gave %+v, %v", i, act, s.State, next, err)
				}
				continue
			}
			if err != nil || next.State != subject.Life[at].To || next.Version != s.Version+1 || next.Reason != "because" || !next.Changed.Equal(now) {
				r.Fatalf("step %d: %s from %s gave %+v, %v", i, act, s.State, next, err)
			}
			if next.Active() != (next.State == subject.Registered || next.State == subject.Attested) {
				r.Fatalf("active in %s: %v", next.State, next.Active())
			}
			s = next
		}
	})
}

func TestLife_IsAsItIsMeant(t *testing.T) {
	exits := map[subject.State]int{}
	seen := map[[2]string]bool{}
	for _, s := range subject.Life {
		exits[s.From]++
		if !slices.Contains(states, s.From) || !slices.Contains(states, s.To) {
			t.Errorf("%+v has an unknown state", s)
		}
		if key := [2]string{s.Act, string(s.From)}; seen[key] {
			t.Errorf("%s from %s stands there twice", s.Act, s.From)
		} else {
			seen[key] = true
		}
		if s.To == subject.Attested && s.Act != "attested" && s.From != subject.Attested {
			t.Errorf("%+v makes attested without evidence", s)
		}
		if s.From == subject.Locked && s.To != subject.Locked && s.Act != "unlocked" && s.Act != "revoked" {
			t.Errorf("%+v leads out of a lock", s)
		}
	}
	for _, final := range []subject.State{subject.Rejected, subject.Revoked} {
		if exits[final] > 0 {
			t.Errorf("%s has an exit", final)
		}
	}
	for _, s := range states {
		if s != subject.Rejected && !seen[[2]string{"revoked", string(s)}] && s != subject.Revoked {
			t.Errorf("nobody can revoke a subject that is %s", s)
		}
	}
	for _, kind := range kinds {
		if len(subject.Births[kind]) == 0 {
			t.Errorf("no %s can be born", kind)
		}
	}
}

func TestSubject_ValidateSaysWhatIsWrong(t *testing.T) {
	good := subject.Subject{Kind: subject.Agent, Role: "deployer", Name: "ci.runner-1@example", Team: "platform"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	many := map[string]string{}
	for i := range 65 {
		many[strings.Repeat("a", i+1)] = ""
	}
	for name, spoil := range map[string]func(*subject.Subject){
		"kind":            func(s *subject.Subject) { s.Kind = "person" },
		"no kind":         func(s *subject.Subject) { s.Kind = "" },
		"no role":         func(s *subject.Subject) { s.Role = "" },
		"upper case role": func(s *subject.Subject) { s.Role = "Admin" },
		"long role":       func(s *subject.Subject) { s.Role = strings.Repeat("r", 64) },
		"no name":         func(s *subject.Subject) { s.Name = "" },
		"line in name":    func(s *subject.Subject) { s.Name = "a\nb" },
		"line after name": func(s *subject.Subject) { s.Name = "a\n" },
		"long name":       func(s *subject.Subject) { s.Name = strings.Repeat("n", 129) },
		"slash in name":   func(s *subject.Subject) { s.Name = "a/b" },
		"team":            func(s *subject.Subject) { s.Team = " " },
		"attributes":      func(s *subject.Subject) { s.Attributes = many },
		"long attribute":  func(s *subject.Subject) { s.Attributes = map[string]string{"a": strings.Repeat("v", 1025)} },
		"long key":        func(s *subject.Subject) { s.Attributes = map[string]string{strings.Repeat("k", 65): ""} },
	} {
		s := good
		spoil(&s)
		if err := s.Validate(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// scan is a Scanner over columns.
func scan(columns []any) unit.Scanner {
	return func(dest ...any) error {
		if len(dest) != len(columns) {
			return fault.Internalf("%d columns, %d wanted", len(columns), len(dest))
		}
		for i, d := range dest {
			switch d := d.(type) {
			case *string:
				*d = columns[i].(string)
			case *int64:
				*d = columns[i].(int64)
			case *[]byte:
				*d, _ = columns[i].([]byte)
			}
		}
		return nil
	}
}

func TestRows_ComeBackAsTheyWere(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_123_456).UTC()
	s := subject.Subject{ID: "1", Version: 3, Kind: subject.Agent, State: subject.Locked, Role: "r", Name: "n", Team: "t", Attributes: map[string]string{"a": "b"}, Reason: "x", Created: now, Changed: now, Recall: now}
	var s2 subject.Subject
	c := subject.Certificate{ID: "1", Version: 2, Subject: "s", Serial: "0a", Issuer: "CN=x", NotAfter: now, Revoked: now, Reason: "r"}
	var c2 subject.Certificate
	e := subject.Session{ID: "1", Version: 2, Subject: "s", Parent: "p", Certificate: "1", Expires: now, Reason: "r"}
	var e2 subject.Session
	i := subject.Invitation{ID: "1", Version: 2, Kind: subject.Agent, Role: "r", Team: "t", Name: "n", Author: "a", Expires: now, By: "b"}
	var i2 subject.Invitation
	p := subject.Passport{ID: "1", Version: 2, Subject: "s", Digest: "d", Token: "t", Expires: now, Reason: "r"}
	var p2 subject.Passport
	for _, err := range []error{s2.Scan(scan(s.Columns())), c2.Scan(scan(c.Columns())), e2.Scan(scan(e.Columns())), i2.Scan(scan(i.Columns())), p2.Scan(scan(p.Columns()))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]any{s, c, e, i, p}, []any{s2, c2, e2, i2, p2}); d != "" {
		t.Fatal(d)
	}
	broken := s.Columns()
	broken[7] = "{"
	if err := s2.Scan(scan(broken)); !fault.Is(err, fault.Internal) {
		t.Fatalf("got %v", err)
	}
}

func TestGood_EndsAtTheMomentAndWithTheRevocation(t *testing.T) {
	end := time.Unix(1_700_000_000, 0)
	before := end.Add(-time.Microsecond)
	for name, good := range map[string]func(revoked bool, at time.Time) bool{
		"certificate": func(r bool, at time.Time) bool {
			c := subject.Certificate{NotAfter: end}
			if r {
				c.Revoked = before
			}
			return c.Good(at)
		},
		"session": func(r bool, at time.Time) bool {
			s := subject.Session{Expires: end, Version: 1}
			if r {
				if s = s.End("x", before); s.Version != 2 || s.Reason != "x" {
					t.Errorf("ended as %+v", s)
				}
			}
			return s.Good(at)
		},
		"passport": func(r bool, at time.Time) bool {
			p := subject.Passport{Expires: end}
			if r {
				p.Revoked = before
			}
			return p.Good(at)
		},
	} {
		if !good(false, before) || good(false, end) || good(true, before) {
			t.Errorf("%s: good at the wrong time", name)
		}
	}
}
