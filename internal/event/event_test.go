package event

import "testing"

func TestMatches_Patterns(t *testing.T) {
	for _, c := range []struct {
		pattern, event string
		want           bool
	}{
		{"grant.issued", "grant.issued", true},
		{"grant.issued", "grant.issued.twice", false},
		{"grant.*", "grant.issued", true},
		{"grant.*", "grants.issued", false},
		{"plugin.tags.*", "plugin.tags.added", true},
		{"plugin.tags.*", "plugin.tagsother.added", false},
		{"*", "subject.locked", true},
		{"", "subject.locked", false},
	} {
		if got := Matches([]string{"x.y", c.pattern}, c.event); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.event, got)
		}
	}
}

func TestPublic_KeepsTheAuditorsRecords(t *testing.T) {
	for name, want := range map[string]bool{"grant.issued": true, "subject.locked": true, "key.rotated": false, "policy.set": false, "grantx": false, "resource.stored": false} {
		if Public(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

func TestEvent_Data(t *testing.T) {
	e := Event{Facts: map[string]string{"b": "\xff", "a": "\"x\""}}
	if got := string(e.Data()); got != `{"a":"\"x\"","b":"�"}` {
		t.Error(got)
	}
}
