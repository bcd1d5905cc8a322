package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// together sends BEGIN and the statements of the batch in one pipeline, checks the
// counts, sends the rows, and commits. Jobs are answered when it commits.
func (e *postgresEngine) together(c *pgx.Conn, batch []*job) error {
	plan := newPgPlan(batch)
	first := "BEGIN;"
	if len(plan.steps) > 0 {
		first = ""
		if err := e.begin(c, plan); err != nil {
			return e.rollback(c, err)
		}
	}
	if len(plan.tables) > 0 {
		if err := copyRows(c, first, plan.tables); err != nil {
			return e.rollback(c, err)
		}
	}
	if err := end(c); err != nil {
		return err
	}
	e.s.committed(batch)
	answer(batch, nil)
	return nil
}

// begin sends BEGIN and the steps that are no rows.
func (e *postgresEngine) begin(c *pgx.Conn, plan *pgPlan) error {
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	plan.queue(b)
	return e.results(c, b, func(r pgx.BatchResults) error {
		if _, err := r.Exec(); err != nil {
			return err //nolint:wrapcheck // classified by the caller
		}
		return plan.check(r)
	})
}

// apart runs the jobs one after the other, each in a savepoint, in one
// transaction; a job that fails fails alone. After a deadlock or a failed
// serialization every job gets a transaction of its own.
func (e *postgresEngine) apart(c *pgx.Conn, batch []*job) error {
	ctx := context.Background()
	if _, err := c.Exec(ctx, "BEGIN"); err != nil {
		return e.settle(batch, err, c)
	}
	var good []*job
	for _, j := range batch {
		err := e.alone(c, j)
		if err == nil {
			good = append(good, j)
			continue
		}
		if c.IsClosed() {
			return err
		}
		if s := sqlState(err); s == stateDeadlock || s == stateSerialization {
			if err := e.rollback(c, nil); err != nil {
				return err
			}
			return e.singly(c, batch)
		}
		j.answer(e.say(err))
		if _, err := c.Exec(ctx, "ROLLBACK TO SAVEPOINT job"); err != nil {
			return fmt.Errorf("undo a unit: %w", err)
		}
	}
	if err := end(c); err != nil {
		return e.settle(good, err, c)
	}
	e.s.committed(good)
	answer(good, nil)
	return nil
}

// singly gives every job that has no answer a transaction of its own.
func (e *postgresEngine) singly(c *pgx.Conn, batch []*job) error {
	for _, j := range batch {
		if j.answered {
			continue
		}
		for try := 0; ; try++ {
			err := e.one(c, j)
			s := sqlState(err)
			if (s == stateDeadlock || s == stateSerialization) && try < 5 {
				continue
			}
			if err != nil && (c.IsClosed() || isUnknown(err)) {
				return err
			}
			if err != nil {
				err = e.say(err)
			} else {
				e.s.committed([]*job{j})
			}
			j.answer(err)
			break
		}
	}
	return nil
}

// one runs one job in its own transaction.
func (e *postgresEngine) one(c *pgx.Conn, j *job) error {
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	queueSteps(b, j)
	records := e.queueRecords(b, []*job{j})
	err := e.results(c, b, func(r pgx.BatchResults) error {
		if _, err := r.Exec(); err != nil {
			return err //nolint:wrapcheck // classified by the caller
		}
		if err := checkSteps(r, j); err != nil {
			return err
		}
		return checkRecords(r, records)
	})
	if err != nil {
		return e.rollback(c, err)
	}
	return end(c)
}

// alone runs one job after a savepoint.
func (e *postgresEngine) alone(c *pgx.Conn, j *job) error {
	b := &pgx.Batch{}
	b.Queue("SAVEPOINT job")
	queueSteps(b, j)
	records := e.queueRecords(b, []*job{j})
	return e.results(c, b, func(r pgx.BatchResults) error {
		if _, err := r.Exec(); err != nil {
			return err //nolint:wrapcheck // classified by the caller
		}
		if err := checkSteps(r, j); err != nil {
			return err
		}
		return checkRecords(r, records)
	})
}

// settle answers jobs whose transaction did not begin or did not end.
func (e *postgresEngine) settle(batch []*job, err error, c *pgx.Conn) error {
	if isUnknown(err) || c.IsClosed() {
		return err
	}
	answer(batch, e.say(err))
	return nil
}

// results sends a batch and reads its answers. The context is never a caller's.
func (e *postgresEngine) results(c *pgx.Conn, b *pgx.Batch, read func(pgx.BatchResults) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := c.SendBatch(ctx, b)
	err := read(r)
	if closing := r.Close(); err == nil || sqlState(closing) != "" && sqlState(err) == "" && !fault.Is(err, fault.Conflict) {
		err = errors.Join(err, closing)
	}
	return err
}

func queueSteps(b *pgx.Batch, j *job) {
	for i := range j.steps {
		b.Queue(j.steps[i].stmt.sql, j.steps[i].args...)
	}
}

func checkSteps(r pgx.BatchResults, j *job) error {
	for i := range j.steps {
		if err := checkStep(r, &j.steps[i], j.steps[i].rows); err != nil {
			return err
		}
	}
	return nil
}

// queueRecords adds one statement with all records of the jobs.
func (e *postgresEngine) queueRecords(b *pgx.Batch, batch []*job) int64 {
	var ids, subjects, kinds, grants, leaves []string
	var at []int64
	for _, j := range batch {
		if r := j.record; r != nil {
			ids, subjects, kinds = append(ids, r.id), append(subjects, r.subject), append(kinds, r.kind)
			grants, at, leaves = append(grants, r.grant), append(at, r.at), append(leaves, r.leaf)
		}
	}
	if len(ids) > 0 {
		b.Queue(e.s.catalogue.statements["pending.insert"].sql, ids, subjects, kinds, grants, at, leaves)
	}
	return int64(len(ids))
}

func checkRecords(r pgx.BatchResults, n int64) error {
	if n == 0 {
		return nil
	}
	tag, err := r.Exec()
	switch {
	case sqlState(err) == stateUnique:
		return fault.Conflictf("a record with this id exists already").Because(err)
	case err != nil:
		return fmt.Errorf("insert records: %w", err)
	case tag.RowsAffected() != n:
		return fault.Internalf("%d records were stored instead of %d", tag.RowsAffected(), n)
	}
	return nil
}

// end commits. An error that the server answers is certain when it names one of
// the states in which it aborts; any other leaves doubt.
func end(c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tag, err := c.Exec(ctx, "COMMIT")
	switch s := sqlState(err); {
	case err == nil && tag.String() == "COMMIT":
		return nil
	case err == nil: // the server answers ROLLBACK to a failed transaction
		return &refusal{fmt.Errorf("commit was answered with %s", tag)}
	case s == stateDiskFull || s == stateDeadlock || s == stateSerialization || s == stateUnique:
		return &refusal{err}
	}
	return &unknown{err}
}

// rollback undoes the transaction and hands the error on; a connection on which
// that fails is closed, which undoes it too.
func (e *postgresEngine) rollback(c *pgx.Conn, err error) error {
	if c.IsClosed() {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, undo := c.Exec(ctx, "ROLLBACK"); undo != nil {
		_ = c.Close(ctx)
		return errors.Join(err, undo)
	}
	return err
}

func isUnknown(err error) bool {
	_, ok := errors.AsType[*unknown](err)
	return ok
}

// say turns an error of one job into its answer. PostgreSQL keeps no space for
// what takes something away: a disk that is full refuses everything.
func (e *postgresEngine) say(err error) error {
	if fault.Is(err, fault.Conflict) {
		return err
	}
	switch sqlState(err) {
	case stateDiskFull:
		err = fault.Unavailablef("the disk of PostgreSQL is full: nothing can be recorded, so nothing can be given or taken back until somebody frees space").Because(err).After(10 * time.Second)
		e.s.refusals.met(err, true)
		return err
	case stateReadOnly:
		err = fault.Unavailablef("PostgreSQL is read-only: nothing can be recorded, so nothing can be given or taken back").Because(err).After(10 * time.Second)
		e.s.refusals.met(err, true)
		return err
	case stateDeadlock, stateSerialization:
		return fault.Conflictf("too many changes at the same time, try again").Because(err)
	case stateUnique:
		return fault.Conflictf("this exists already").Because(err)
	}
	return fault.Internalf("a statement failed").Because(err)
}
