package store

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// job is a unit on its way: everything that can be computed beforehand was,
// in the goroutine of its caller.
type job struct {
	steps     []step
	record    *pendingRow // nil for what the store does on its own account
	urgent    bool
	internal  bool // of the store itself; goes first and never refused for load
	published bool // others are shown what it writes: durable before it can be seen
	done      chan error
	answered  bool               // the writer's alone
	committed func(audit.Record) // hears of the record when it is durable; nil for nobody
	told      audit.Record
}

// step is one statement of a job.
type step struct {
	stmt     *statement
	args     []any
	rows     int64
	conflict string
	kept     kept // the row that is written, to be remembered
}

// pendingRow is a record before it has a position.
type pendingRow struct {
	id, subject, kind, grant string
	at                       int64
	leaf                     string
	hash                     audit.Hash // of the leaf
	turns                    bool       // it may replace the ledger's key
	names                    []nameMark // what it is found by
}

// miss is the fault of a step that did not find what it demanded.
func (s *step) miss() *fault.Error {
	if s.conflict == "" {
		return fault.Conflictf("the state has changed, read it again")
	}
	return fault.Conflictf("%s", s.conflict)
}

// Commit executes a unit as a whole or not at all, and returns when it is
// durable. A precondition that does not hold, and a key that exists, are
// Conflict with the text of the write; a unit that this store does not know how
// to execute is Internal. A full queue is Exhausted, a full disk Unavailable;
// both mean that nothing happened.
//
// The context bounds the waiting alone. If it ends first the fault is
// Unavailable and the outcome unknown: the unit still happens whole, or not at
// all. The same holds for whoever waits when a commit fails (docs/decisions/0002).
func (s *Store) Commit(ctx context.Context, u unit.Unit) error {
	j, err := s.prepare(u)
	if err != nil {
		return err
	}
	return s.submit(ctx, j)
}

// submit queues a job and waits for its answer.
func (s *Store) submit(ctx context.Context, j *job) error {
	if why := s.barred.Load(); why != nil {
		return why
	}
	if err := s.queue.put(j); err != nil {
		return err
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		select {
		case err := <-j.done:
			return err
		default:
		}
		return fault.Unavailablef("nobody waited for the answer, the outcome is unknown").Because(ctx.Err())
	}
}

// prepare checks a unit against the catalogue and computes record and MACs.
func (s *Store) prepare(u unit.Unit) (*job, error) {
	j := &job{steps: make([]step, 0, len(u.Writes)), urgent: u.Urgent, done: make(chan error, 1)}
	quiet := true
	for i := range u.Writes {
		st, err := s.step(&u.Writes[i])
		if err != nil {
			return nil, err
		}
		if err := named(&st, u); err != nil {
			return nil, err
		}
		quiet = quiet && st.stmt.quiet
		j.steps = append(j.steps, st)
	}
	if u.Record.ID == "" && u.Record.Type == "" && quiet && len(j.steps) > 0 {
		return j, nil
	}
	leaf, err := u.Record.Leaf()
	if err != nil {
		return nil, fault.Internalf("the record of a unit cannot be written").Because(err)
	}
	if f := s.observer.Load(); f != nil {
		j.committed, j.told = *f, u.Record
	}
	j.record = &pendingRow{
		id: u.Record.ID, subject: u.Record.Subject, kind: u.Record.Type, grant: u.Record.Grant,
		at: unit.Micros(u.Record.At), leaf: string(leaf), hash: audit.HashLeaf(leaf), turns: audit.IsRotation(leaf),
	}
	if !s.postgres { // where a record's place is not known when it commits
		j.record.names = namesIn(j)
	}
	return j, nil
}

// named demands that the record of a new grant names it and its subject, and
// that of a grant which becomes active the grant. Grants and their fingerprints
// are found through the ledger (docs/decisions/0011), so what no record names
// would be out of reach.
func named(st *step, u unit.Unit) error {
	const idColumn, stateColumn, subjectColumn = 0, 2, 3
	switch st.stmt.name {
	case "grants.insert":
		if st.args[idColumn] != any(u.Record.Grant) || st.args[subjectColumn] != any(u.Record.Subject) {
			return fault.Internalf("the record of a new grant does not name it and its subject")
		}
	case "grants.update":
		if st.args[stateColumn] == any(string(grant.Active)) && st.args[idColumn] != any(u.Record.Grant) {
			return fault.Internalf("the record of a grant that becomes active does not name it")
		}
	}
	return nil
}

func (s *Store) step(w *unit.Write) (step, error) {
	stmt := s.catalogue.statements[w.Statement]
	if stmt == nil {
		return step{}, fault.Internalf("there is no statement %q", w.Statement)
	}
	if len(w.Args) != stmt.args {
		return step{}, fault.Internalf("statement %s takes %d arguments, not %d", stmt.name, stmt.args, len(w.Args))
	}
	args := w.Args
	if t := stmt.table; t != nil {
		var err error
		if args, err = s.seal(t, w.Args); err != nil {
			return step{}, err
		}
	} else if err := plain(stmt, args); err != nil {
		return step{}, err
	}
	st := step{stmt: stmt, args: args, rows: w.Rows, conflict: w.Conflict}
	st.kept = s.keep(&st)
	return st, nil
}

// plain admits the types that both engines store alike.
func plain(stmt *statement, args []any) error {
	for i, a := range args {
		switch v := a.(type) {
		case string:
			if !storable(v) {
				return fault.Invalidf("a text must be UTF-8 without zero bytes")
			}
		case int64, []byte:
		default:
			return fault.Internalf("statement %s: argument %d is a %T", stmt.name, i+1, a)
		}
	}
	return nil
}

// own makes a job of the store itself from catalogue statements.
func (s *Store) own(steps ...step) *job {
	return &job{steps: steps, internal: true, done: make(chan error, 1)}
}

func (s *Store) do(name string, rows int64, args ...any) step {
	return step{stmt: s.catalogue.statements[name], args: args, rows: rows}
}

// write takes batches from the queue until it is closed and empty.
func (s *Store) write() {
	batch := make([]*job, 0, s.cfg.Batch+1)
	for {
		runtime.Gosched() // lets those who were just answered come back into this batch
		batch = s.queue.take(batch[:0], s.cfg.Batch)
		if len(batch) == 0 {
			break
		}
		if why := s.barred.Load(); why != nil {
			answer(batch, why)
			continue
		}
		if raise := s.clock.raise(s); raise != nil {
			batch = append(batch, raise)
		}
		if err := s.engine.commit(batch); err != nil {
			s.fail(err)
			answer(batch, s.barred.Load())
		}
	}
	s.engine.finish()
}

// committed tells the integrator what is there.
func (s *Store) committed(batch []*job) {
	s.refusals.succeeded(batch)
	s.waiting.Add(records(batch))
	s.arrived.ring()
}

// records counts the jobs that carry a record.
func records(batch []*job) int64 {
	n := int64(0)
	for _, j := range batch {
		if j.record != nil {
			n++
		}
	}
	return n
}

// answer gives one error to all jobs that have none yet.
func answer(batch []*job, err error) {
	for _, j := range batch {
		j.answer(err)
	}
}

// answer tells the caller once; later answers are dropped.
func (j *job) answer(err error) {
	if !j.answered {
		j.answered = true
		if err == nil && j.committed != nil {
			j.committed(j.told)
		}
		j.done <- err
	}
}

// queue is where jobs wait. Urgent jobs and those of the store itself have
// lanes of their own, so that load cannot keep a revocation out.
type queue struct {
	mu     sync.Mutex
	some   *sync.Cond // for the writer
	down   *sync.Cond // for those who wait until a batch has landed
	lanes  [3][]*job
	most   int
	closed bool
	flying bool // a committed batch is on its way to the disk (SQLite)
	flight int  // which one
}

const (
	ownLane = iota
	urgentLane
	usualLane
)

func newQueue(most int) *queue {
	q := &queue{most: most}
	q.some, q.down = sync.NewCond(&q.mu), sync.NewCond(&q.mu)
	return q
}

func (q *queue) put(j *job) error {
	lane := usualLane
	if j.urgent {
		lane = urgentLane
	}
	if j.internal {
		lane = ownLane
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return fault.Unavailablef("the store is closing").After(time.Second)
	}
	if len(q.lanes[lane]) >= q.most {
		return fault.Exhaustedf("too many requests wait for the store, try again").After(time.Second)
	}
	q.lanes[lane] = append(q.lanes[lane], j)
	q.some.Signal()
	return nil
}

// take moves up to n jobs into batch. It waits for the first one, and returns
// none when the queue is closed and empty.
func (q *queue) take(batch []*job, n int) []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.lanes[ownLane])+len(q.lanes[urgentLane])+len(q.lanes[usualLane]) == 0 {
		if q.closed {
			return batch
		}
		q.some.Wait()
	}
	return q.move(batch, n, ownLane, urgentLane, usualLane)
}

// move takes jobs out of the lanes, in their order, until batch has n.
func (q *queue) move(batch []*job, n int, lanes ...int) []*job {
	for _, lane := range lanes {
		k := min(n-len(batch), len(q.lanes[lane]))
		batch = append(batch, q.lanes[lane][:k]...)
		rest := copy(q.lanes[lane], q.lanes[lane][k:])
		clear(q.lanes[lane][rest:])
		q.lanes[lane] = q.lanes[lane][:rest]
	}
	return batch
}

// join returns up to n more jobs of callers while a committed batch is on its way
// to the disk, as soon as a piece of them is there; none when that has landed. Jobs
// of the store itself do not join: some need a transaction of another kind.
func (q *queue) join(n int) []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.flying && (n < joinPiece || len(q.lanes[urgentLane])+len(q.lanes[usualLane]) < joinPiece) {
		q.some.Wait()
	}
	if !q.flying {
		return nil
	}
	return q.move(nil, n, urgentLane, usualLane)
}

// joinPiece is how many jobs join together, so that their rows share statements.
const joinPiece = 8

// more returns up to n jobs of callers that are there now.
func (q *queue) more(n int) []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.move(nil, n, urgentLane, usualLane)
}

// landed waits until no batch is on its way to the disk.
func (q *queue) landed() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.flying {
		q.some.Wait()
	}
}

// fly says whether a batch is on its way to the disk.
func (q *queue) fly(on bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.flying = on
	if on {
		q.flight++
		return
	}
	q.some.Broadcast()
	q.down.Broadcast()
}

// settle waits until what can be read now is on the disk.
func (q *queue) settle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for now := q.flight; q.flying && q.flight == now; {
		q.down.Wait()
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Broadcast()
}
