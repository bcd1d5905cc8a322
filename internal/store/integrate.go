package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// Pace of the integrator: a record has its place within integrateEvery, or sooner
// when half of what one round takes are there. On PostgreSQL a round moves each
// record, and whoever writes waits for that. On SQLite it writes a head and tiles,
// which is little for any number; but nothing else is written until they are on the
// disk.
const (
	integrateEvery    = 100 * time.Millisecond
	integrateMost     = 4096
	integratePostgres = 1024
)

// Integrate gives committed records their places until the context ends. One
// node at a time does it, under a lease; the others watch that the head only
// grows. An error is final: a ledger that contradicts what was seen, or a store
// that failed. Call it once per store, after [Store.UseSigner].
func (s *Store) Integrate(ctx context.Context) error {
	if s.ledger.Load() == nil {
		return fault.Internalf("the integrator needs the ledger's key")
	}
	in := &integrator{s: s, lease: s.lease("integrator"), most: integrateMost}
	if s.postgres {
		in.most = integratePostgres
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		in.lease.release(last)
		if kept, ok := s.note.last(); ok {
			if err := s.note.keep(kept, true); err != nil {
				s.log.ErrorContext(last, "the last checkpoint was not kept", slog.Any("err", err))
			}
		}
	}()
	var told obs.Repeated
	for ctx.Err() == nil {
		err := in.turn(ctx)
		if err == nil {
			s.behind.Store(nil)
			continue
		}
		if s.barred.Load() != nil || final(err) {
			s.fail(err)
			return err
		}
		s.behind.Store(&err)
		if told.New(fault.Public(err), s.now()) {
			s.log.WarnContext(ctx, "the integrator will try again", slog.Any("err", err))
		}
		in.builder = nil
		pause(ctx, integrateEvery)
	}
	return nil
}

// final reports whether the ledger contradicts what was seen of it.
func final(err error) bool {
	var breach *audit.Inconsistent
	return errors.As(err, &breach)
}

// integrator is the state of [Store.Integrate].
type integrator struct {
	s       *Store
	lease   *lease
	builder *audit.Builder // nil when it must be restored
	epoch   int64
	most    int   // records of a round
	named   int64 // runs whose names are written
}

// turn does one round: integrate if this node holds the lease, or else watch.
func (in *integrator) turn(ctx context.Context) error {
	held, err := in.lease.hold(ctx)
	if err != nil {
		return err
	}
	if !held {
		in.builder = nil
		if err := in.watch(ctx); err != nil {
			return err
		}
		pause(ctx, integrateEvery)
		return in.s.note.settle()
	}
	n, err := in.integrate(ctx)
	if err != nil {
		return err
	}
	if err := in.s.note.settle(); err != nil {
		return err
	}
	if n < in.most {
		in.await(ctx)
	}
	return nil
}

// await waits until enough records are there, or it is time.
func (in *integrator) await(ctx context.Context) {
	timer := time.NewTimer(integrateEvery)
	defer timer.Stop()
	for in.s.waiting.Load() < int64(in.most/2) {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-in.s.arrived.wait():
		}
	}
}

// takenRows are the records of one round, in their order.
type takenRows struct {
	ids    []string // PostgreSQL only
	hashes []audit.Hash
	turns  []turn // among them
}

// turn is a record that replaces the key of the ledger.
type turn struct {
	at   int // index in the round
	leaf []byte
}

// cut leaves the records from an index on for a later round.
func (t *takenRows) cut(n int) {
	t.hashes = t.hashes[:n]
	if t.ids != nil {
		t.ids = t.ids[:n]
	}
}

// take gets what no head covers. On SQLite the order is that of commits, and
// most of it is still in memory; on
// PostgreSQL it is that of ids among what is committed now, and a transaction
// that commits later comes in a later round.
func (in *integrator) take(ctx context.Context, h headRow) (takenRows, error) {
	if hashes := in.s.tail.from(h.size, in.most); len(hashes) > 0 {
		return takenRows{hashes: hashes}, nil
	}
	text, args := "SELECT position, '', leaf FROM ledger WHERE position >= $2 ORDER BY position LIMIT $1", []any{int64(in.most), h.size}
	if in.s.postgres {
		text, args = "SELECT 0, id, leaf FROM pending ORDER BY id LIMIT $1", args[:1]
	}
	var t takenRows
	var leaf sql.RawBytes
	expected := h.size
	err := in.s.query(ctx, text, args, func(rows foundRow) error {
		var position int64
		var name string
		if err := rows.Scan(&position, &name, &leaf); err != nil {
			return err //nolint:wrapcheck // query's
		}
		if !in.s.postgres && position != expected {
			return fault.Internalf("the ledger has no record at position %d", expected)
		}
		expected++
		if in.s.postgres {
			t.ids = append(t.ids, name)
		}
		if audit.IsRotation(leaf) {
			t.turns = append(t.turns, turn{len(t.hashes), bytes.Clone(leaf)})
		}
		t.hashes = append(t.hashes, audit.HashLeaf(leaf))
		return nil
	})
	return t, fault.Wrap(err, "read pending records")
}

// integrate gives one run of pending records their places: positions, tiles,
// head and note in one transaction, which demands that head and lease are still
// what they were.
func (in *integrator) integrate(ctx context.Context) (int, error) {
	s := in.s
	s.waiting.Store(0)
	h, err := s.headRow(ctx)
	if err != nil {
		return 0, err
	}
	t, err := in.take(ctx, h)
	if err != nil {
		return 0, err
	}
	if len(t.hashes) == 0 && h.note != "" {
		return 0, nil
	}
	signer, err := s.signerOf(h, &t)
	if err != nil {
		return 0, err
	}
	if len(t.hashes) == 0 && h.note != "" {
		return 0, nil // the next record replaces the key by one that this node cannot use yet
	}
	if err := in.ready(ctx, h); err != nil {
		return 0, err
	}
	if err := in.builder.Append(t.hashes); err != nil {
		return 0, fault.Wrap(err, "extend tree")
	}
	next, err := signer.Sign(in.builder.Size(), in.builder.Root())
	if err != nil {
		return 0, fault.Wrap(err, "sign checkpoint")
	}
	j := s.own(in.steps(h, t, next)...)
	j.published = true
	// Whoever ends here must know whether the head moved: it is what is kept outside.
	err = s.submit(context.WithoutCancel(ctx), j)
	if err != nil {
		in.builder = nil
		if fault.Is(err, fault.Conflict) {
			return 0, nil // another node was faster
		}
		return 0, fault.Wrap(err, "commit head")
	}
	if err := s.note.keep(next, false); err != nil {
		return 0, err
	}
	size := h.size + int64(len(t.hashes))
	s.tail.drop(size)
	s.grown.ring()
	return len(t.hashes), in.nameRuns(ctx, size)
}

// signerOf says who signs the checkpoint over the records. A rotation among them
// makes the new key the one, also over the records ahead of it; if this node has
// not got it yet, the round ends before the record, and goes on when it has.
func (s *Store) signerOf(h headRow, t *takenRows) (*audit.Signer, error) {
	l := s.ledger.Load()
	signer, present := l.signers[0], l.signers[0].ID()
	if h.note != "" {
		head, err := s.checkpoint(h)
		if err != nil {
			return nil, err
		}
		signer, present = l.signer(head.Key), head.Key
	}
	for _, turn := range t.turns {
		next, ok, err := audit.ReadRotation(turn.leaf)
		if !ok || err != nil || next.OldID() != present {
			continue // it is no rotation of the present key, and verification says so
		}
		known := l.signer(next.NewID())
		if known == nil {
			t.cut(turn.at)
			break
		}
		signer, present = known, known.ID()
	}
	if signer == nil && len(t.hashes) > 0 {
		return nil, fault.Unavailablef("the ledger's key %s, which signed the last checkpoint, is not active any more: restore the keys table", present)
	}
	return signer, nil
}

// ready makes sure that the builder stands at the committed head and that the
// head extends what this node has seen.
func (in *integrator) ready(ctx context.Context, h headRow) error {
	if in.builder != nil && in.epoch == h.epoch && in.builder.Size() == uint64(h.size) && in.builder.Root() == h.root { //nolint:gosec // not negative
		return nil
	}
	if err := in.s.extends(ctx, h); err != nil {
		return err
	}
	tiles := audit.Needed(uint64(h.size)) //nolint:gosec // not negative
	for i := range tiles {
		data, err := in.s.Tile(ctx, tiles[i].Level, tiles[i].Index)
		if err != nil {
			return fault.Wrap(err, "read edge of tree")
		}
		tiles[i].Data = data
	}
	b, err := audit.Restore(uint64(h.size), h.root, tiles) //nolint:gosec // not negative
	if err != nil {
		return fault.Wrap(err, "restore tree")
	}
	in.builder, in.epoch = b, h.epoch
	in.named, err = in.s.runs(ctx)
	return fault.Wrap(err, "read names of records")
}

func (in *integrator) steps(h headRow, t takenRows, next audit.Checkpoint) []step {
	s, n := in.s, int64(len(t.hashes))
	steps := []step{
		in.lease.step(),
		s.do("heads.move", 1, h.size, h.epoch, h.size+n, next.Root.String(), next.Note, s.now().UnixMicro()),
	}
	if n > 0 && s.postgres {
		steps = append(steps, s.do("pending.move", n, h.size, t.ids), s.do("pending.delete", n, t.ids))
	}
	for _, tile := range in.builder.Changed() {
		steps = append(steps, s.do("tiles.write", 1, int64(tile.Level), int64(tile.Index), tile.Data)) //nolint:gosec // below 2^53
	}
	return steps
}

// watch looks at the head that another node has moved.
func (in *integrator) watch(ctx context.Context) error {
	h, err := in.s.headRow(ctx)
	if err != nil || h.note == "" {
		return err
	}
	kept, have := in.s.note.last()
	if have && kept.Note == h.note {
		return nil
	}
	if err := in.s.extends(ctx, h); err != nil {
		return err
	}
	in.s.grown.ring()
	return nil
}

// extends demands that a head continues what this node has kept, and keeps it.
func (s *Store) extends(ctx context.Context, h headRow) error {
	head, err := s.checkpoint(h)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	kept, have := s.note.last()
	if have && (kept.Size != head.Size || kept.Root != head.Root) {
		if err := audit.Consistent(ctx, s, kept, head); err != nil {
			return err //nolint:wrapcheck // names both ledgers
		}
	}
	return s.note.keep(head, false)
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
