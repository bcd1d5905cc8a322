package flow

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Every verb ends here: state and record in ONE transaction, or nothing.
//
// The one exception so far is an outside provider, which cannot join a
// transaction: release commits an intent, calls the provider, and activates the
// grant in a second unit; the sweeper revokes intents that never became active.

// tries is how often a verb decides again after somebody changed what it had
// read. Beyond it the caller is told to repeat.
const tries = 4

// decide runs attempt, which reads, decides and says what to write, until its
// unit commits. A Conflict means that something it relied upon has changed in
// between, so it reads and decides anew: policies are fetched again, and the
// caller, if there is one, is recognised again. Whose session or certificate was
// revoked meanwhile gets nothing. Every unit that gives something to a subject
// must carry [Gate.still]. A call under a key is made once ([Gate.underKey]).
func (g *Gate) decide(ctx context.Context, c *Caller, attempt func() (unit.Unit, error)) error {
	if c != nil {
		attempt = g.underKey(ctx, c.call, attempt)
	}
	var err error
	for range tries {
		var u unit.Unit
		u, err = attempt()
		early, missed := errors.AsType[*missedError](err)
		switch {
		case missed:
			err = early.conflict
		case err != nil:
			return err
		default:
			if err = g.commit(ctx, u); !fault.Is(err, fault.Conflict) {
				return err
			}
		}
		if fresh := g.Reload(ctx); fresh != nil {
			return fresh
		}
		if c == nil {
			continue
		}
		now, gone := g.again(ctx, *c)
		if gone != nil {
			return gone
		}
		*c = now
	}
	return err
}

// missedError is what an attempt returns when a unit that it had to commit
// first has missed its check: it is decided anew like any other.
type missedError struct{ conflict error }

func (e *missedError) Error() string { return e.conflict.Error() }
func (e *missedError) Unwrap() error { return e.conflict }

// commit completes the record and writes the unit.
func (g *Gate) commit(ctx context.Context, u unit.Unit) error {
	if u.Record.ID == "" {
		u.Record.ID = id.New()
	}
	u.Record.Version = 1
	u.Record.At = g.Now().UTC().Truncate(time.Microsecond)
	if u.Record.Outcome == "" {
		u.Record.Outcome = audit.Done
	}
	return g.Ledger.Commit(ctx, u)
}

// still are the writes by which a unit demands that the caller and the policies
// are what they were when it was decided: no grant commits after a revocation,
// on any replica.
func (g *Gate) still(c Caller, p loaded) []unit.Write {
	writes := append(c.once(), unit.Do("generations.check", 1, "the policies have changed, try again", "policy", p.generation))
	if c.plugin != "" {
		return writes // no subject acts
	}
	if c.upload != nil {
		writes = append(writes, unit.Check(c.upload.Table(), c.upload.ID, c.upload.Version))
	}
	return append(writes, unit.Check("subjects", c.Subject.ID, c.Subject.Version))
}

// refuse records that an authenticated caller was denied, and returns the
// denial. If it cannot be recorded the answer is Unavailable: a denial is no
// way to make the ledger miss something.
func (g *Gate) refuse(ctx context.Context, r audit.Record, public string) error {
	r.Outcome = audit.Denied
	r.ID = id.New()
	if err := g.commit(ctx, unit.Unit{Record: r}); err != nil {
		return fault.Unavailablef("the refusal of this request could not be recorded, try again").Because(err)
	}
	return fault.Deniedf("%s (record %s)", public, r.ID)
}
