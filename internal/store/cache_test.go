package store

import (
	"testing"

	"github.com/sallyport-project/sallyport/internal/subject"
)

func committed(statements ...string) []*job {
	j := &job{}
	for _, s := range statements {
		j.steps = append(j.steps, step{stmt: &statement{name: s}, args: []any{"01"}})
	}
	return []*job{j}
}

func TestIdentities_KeepOnlyWhatIsCurrent(t *testing.T) {
	var c identities
	keep := func(epoch uint64) {
		c.remember(epoch, map[string]any{
			"sessions/01": subject.Session{ID: "01", Subject: "01"}, "subjects/01": subject.Subject{ID: "01"},
		})
	}
	keep(0)
	if _, _, found, _ := c.recallCaller("01"); found {
		t.Fatal("kept a row although nothing may be kept")
	}
	c.keepIdentities()
	_, _, _, read := c.recallCaller("01")
	c.forget(committed("subjects.update")) // commits while the row is being read
	keep(read)
	if _, _, found, _ := c.recallCaller("01"); found {
		t.Fatal("remembered a row that may be older than a commit")
	}
	for _, statements := range [][]string{
		{"subjects.update"}, {"sessions.update"}, {"sessions.delete"}, {"sessions.expire"}, {"grants.insert", "subjects.update"},
	} {
		_, _, _, epoch := c.recallCaller("01")
		keep(epoch)
		if _, _, found, _ := c.recallCaller("01"); !found {
			t.Fatal("did not remember")
		}
		c.forget(committed(statements...))
		if _, _, found, _ := c.recallCaller("01"); found {
			t.Errorf("%v left the old pair", statements)
		}
	}
	_, _, _, epoch := c.recallCaller("01")
	keep(epoch)
	check := committed("subjects.check")
	check[0].steps[0].stmt.reads = true
	c.forget(check)
	c.forget(committed("grants.update"))
	if _, _, found, _ := c.recallCaller("01"); !found {
		t.Error("a batch that changed neither took them out")
	}
}
