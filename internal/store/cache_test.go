package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/subject"
)

func committed(statements ...string) []*job {
	j := &job{}
	for _, s := range statements {
		j.steps = append(j.steps, step{stmt: &statement{name: s}, args: []any{"01", int64(2), "guest", "digest"}})
	}
	return []*job{j}
}

func (c *identities) recallCaller() (found bool, epoch uint64) {
	_, _, found, epoch = recallPair(c, "sessions", "01", func(s subject.Session) string { return s.Subject })
	return found, epoch
}

func (c *identities) callerKept() bool {
	found, _ := c.recallCaller()
	return found
}

func TestIdentities_KeepOnlyWhatIsCurrent(t *testing.T) {
	var c identities
	keep := func(epoch uint64) {
		c.remember(epoch, "sessions", 0, "01", subject.Session{ID: "01", Subject: "01"})
		c.remember(epoch, "subjects", 0, "01", subject.Subject{ID: "01"})
	}
	keep(0)
	if c.callerKept() {
		t.Fatal("kept a row although nothing may be kept")
	}
	c.keepIdentities()
	_, read := c.recallCaller()
	during := committed("subjects.update") // commits while the row is being read
	c.forget(during)
	c.changed(during, true)
	keep(read)
	if c.callerKept() {
		t.Fatal("remembered a row that may be older than a commit")
	}
	for _, statements := range [][]string{
		{"subjects.update"}, {"sessions.update"}, {"sessions.delete"}, {"sessions.purge"}, {"grants.insert", "subjects.update"},
	} {
		_, epoch := c.recallCaller()
		keep(epoch)
		if !c.callerKept() {
			t.Fatal("did not remember")
		}
		batch := committed(statements...)
		c.forget(batch)
		c.changed(batch, true)
		if c.callerKept() {
			t.Errorf("%v left the old pair", statements)
		}
	}
	_, epoch := c.recallCaller()
	keep(epoch)
	check := committed("subjects.check")
	check[0].steps[0].stmt.reads = true
	c.forget(check)
	c.forget(committed("grants.update"))
	if !c.callerKept() {
		t.Error("a batch that changed neither took them out")
	}
}

func TestIdentities_FindAttestationResultsByEachName(t *testing.T) {
	for statement, stays := range map[string]bool{
		"passports.insert": true, "passports.update": false, "passports.delete": false, "passports.expire": true, "passports.purge": false, "sessions.insert": true,
	} {
		var c identities
		c.keepIdentities()
		c.remember(0, "passports", 0, "01", subject.Passport{ID: "01"})
		c.remember(0, "passports", 3, "digest", subject.Passport{ID: "01"})
		c.remember(0, "passports", 3, "another", subject.Passport{ID: "02"})
		c.forget(committed(statement))
		for column, name := range map[int]string{0: "01", 3: "digest"} {
			if _, found, _ := recall[subject.Passport](&c, "passports", column, name); found != stays {
				t.Errorf("after %s it is there by column %d: %v", statement, column, found)
			}
		}
		if _, found, _ := recall[subject.Passport](&c, "passports", 3, "another"); found != (stays || statement == "passports.update") {
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
	known := func() (found bool, epoch uint64) {
		_, found, epoch = recall[subject.Certificate](&c, "certificates", 0, "01")
		return found, epoch
	}
	keep := func(epoch uint64) { c.remember(epoch, "certificates", 0, "01", subject.Certificate{ID: "01"}) }
	keep(0)
	batch := committed("subjects.update", "certificates.update")
	c.forget(batch)
	if found, _ := known(); found {
		t.Error("the old row is there when the new one can be seen")
	}
	_, during := known()
	keep(during)
	if found, _ := known(); found {
		t.Error("remembered a row while the batch commits")
	}
	c.changed(batch, true)
	keep(during)
	if found, _ := known(); found {
		t.Error("remembered a row that was read while the batch committed")
	}
	_, after := known()
	keep(after)
	if found, _ := known(); !found {
		t.Error("remembers nothing any more")
	}
}

// TestIdentities_TakeBoundedMemory: what was not met for long goes, large rows are
// not kept at all, and rows that are met stay.
func TestIdentities_TakeBoundedMemory(t *testing.T) {
	var c identities
	c.keepIdentities()
	result := func(n, size int) (string, subject.Passport) {
		id := fmt.Sprintf("%08d", n)
		return id, subject.Passport{ID: id, Token: strings.Repeat("x", size)}
	}
	for n := range 10 * mostYoung / heaviest {
		id, row := result(n, heaviest)
		c.remember(0, "passports", 0, id, row)
		if _, found, _ := recall[subject.Passport](&c, "passports", 0, "00000000"); !found {
			t.Fatalf("a row that is always met is gone after %d", n)
		}
	}
	total := 0
	for _, rows := range []map[string]kept{c.young, c.old} {
		for _, k := range rows {
			total += k.weight
		}
	}
	if total > 2*mostYoung || total < mostYoung {
		t.Errorf("%d bytes are kept", total)
	}
	id, row := result(-1, heaviest+1)
	c.remember(0, "passports", 0, id, row)
	if _, found, _ := recall[subject.Passport](&c, "passports", 0, id); found {
		t.Error("a large row is kept")
	}
}
