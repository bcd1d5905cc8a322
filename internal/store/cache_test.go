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
	c.changed()
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
		c.changed()
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

func TestIdentities_FindAttestationResultsByTheirDigest(t *testing.T) {
	for statement, stays := range map[string]bool{
		"passports.insert": true, "passports.update": false, "passports.delete": false, "passports.expire": false, "sessions.insert": true,
	} {
		var c identities
		c.keepIdentities()
		c.remember(0, map[string]any{"passports/digest": subject.Passport{ID: "01"}, "passports/another": subject.Passport{ID: "02"}})
		batch := committed(statement)
		batch[0].steps[0].args = []any{"01", int64(2), "guest", "digest"}
		c.forget(batch)
		if _, found, _ := recall[subject.Passport](&c, "passports/digest"); found != stays {
			t.Errorf("after %s it is there: %v", statement, found)
		}
		if _, found, _ := recall[subject.Passport](&c, "passports/another"); found != (stays || statement == "passports.update") {
			t.Errorf("after %s another is there: %v", statement, found)
		}
	}
}

// TestIdentities_RememberNothingWhileABatchCommits: a row that is read while
// nobody knows whether the batch can be seen may be the old one, beside a new one
// of another table.
func TestIdentities_RememberNothingWhileABatchCommits(t *testing.T) {
	var c identities
	c.keepIdentities()
	c.remember(0, map[string]any{"certificates/01": subject.Certificate{ID: "01"}})
	c.forget(committed("subjects.update", "certificates.update"))
	if _, found, _ := recall[subject.Certificate](&c, "certificates/01"); found {
		t.Error("the old row is there when the new one can be seen")
	}
	_, _, during := recall[subject.Certificate](&c, "certificates/01")
	c.remember(during, map[string]any{"certificates/01": subject.Certificate{ID: "01"}})
	if _, found, _ := recall[subject.Certificate](&c, "certificates/01"); found {
		t.Error("remembered a row while the batch commits")
	}
	c.changed()
	c.remember(during, map[string]any{"certificates/01": subject.Certificate{ID: "01"}})
	if _, found, _ := recall[subject.Certificate](&c, "certificates/01"); found {
		t.Error("remembered a row that was read while the batch committed")
	}
	_, _, after := recall[subject.Certificate](&c, "certificates/01")
	c.remember(after, map[string]any{"certificates/01": subject.Certificate{ID: "01"}})
	if _, found, _ := recall[subject.Certificate](&c, "certificates/01"); !found {
		t.Error("remembers nothing any more")
	}
}
