package store

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// noteName is the file that keeps the last checkpoint outside of the database.
const noteName = "last-checkpoint"

// maxNoteFile bounds what is read back.
const maxNoteFile = 64 << 10

// noteFile keeps the last checkpoint that this replica has seen.
type noteFile struct {
	dir string

	mu      sync.Mutex
	kept    audit.Checkpoint
	have    bool
	written string    // the note that is on the disk
	at      time.Time // when it was written
}

// load reads the kept checkpoint; false if there is none.
func (n *noteFile) load(keys audit.Keys) (bool, error) {
	data, err := os.ReadFile(filepath.Join(n.dir, noteName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || len(data) > maxNoteFile {
		return false, fault.Unavailablef("the kept checkpoint in %s cannot be read", n.dir).Because(err)
	}
	c, err := audit.ParseCheckpoint(string(data), keys)
	if err != nil {
		return false, fault.Unavailablef("the kept checkpoint in %s is not signed by the ledger's key: "+
			"it is damaged, belongs to another ledger, or is by a key that a restored database does not know", n.dir).Because(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept, n.have, n.written = c, true, c.Note
	return true, nil
}

// last is the checkpoint that everything new must extend.
func (n *noteFile) last() (audit.Checkpoint, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kept, n.have
}

// noteEvery bounds how often the file is written under load. Between the head
// and the file only the detection of a rollback by that little is lost, and a
// round of the integrator.
const noteEvery = 500 * time.Millisecond

// keep remembers a checkpoint and writes it if it is time, or if it must.
func (n *noteFile) keep(c audit.Checkpoint, must bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept, n.have = c, true
	return n.put(must)
}

// settle writes what came too soon after the one before, once it is time: nothing
// may follow for hours.
func (n *noteFile) settle() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.have {
		return nil
	}
	return n.put(false)
}

func (n *noteFile) put(must bool) error {
	if n.written == n.kept.Note || !must && time.Since(n.at) < noteEvery {
		return nil
	}
	if err := n.write(n.kept.Note); err != nil {
		return fault.Unavailablef("the checkpoint cannot be kept in %s", n.dir).Because(err)
	}
	n.written, n.at = n.kept.Note, time.Now()
	return nil
}

// write replaces the file so that it is always whole.
func (n *noteFile) write(note string) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return fault.Wrap(err, "make state directory")
	}
	name := filepath.Join(n.dir, noteName)
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // in the state directory
	if err != nil {
		return fault.Wrap(err, "write checkpoint")
	}
	_, err = f.WriteString(note)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fault.Wrap(err, "write checkpoint")
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fault.Wrap(err, "write checkpoint")
	}
	d, err := os.Open(n.dir)
	if err != nil {
		return fault.Wrap(err, "sync state directory")
	}
	return fault.Wrap(errors.Join(d.Sync(), d.Close()), "sync state directory")
}

// UseSigner hands over the ledger's key and holds the database against the last
// checkpoint that this replica has kept. A database that does not extend it, a
// restored backup for example, is Unavailable, and nothing is committed until
// [Store.DeclareRestore].
func (s *Store) UseSigner(ctx context.Context, signer *audit.Signer, keys audit.Keys) error {
	s.UseSigners([]*audit.Signer{signer}, keys)
	if err := s.guard(ctx); err != nil {
		public := fault.Unavailablef("the database does not continue the ledger that this node has seen: %s; "+
			"bring the newer database back, or declare the restore: sallyport restore --declare --reason TEXT", fault.Public(err))
		s.barred.Store(public.Because(err))
		return s.barred.Load()
	}
	return nil
}

// UseSigners replaces the keys that [Store.UseSigner] brought, with those of a
// rotation: every one that may have to sign, the oldest first. Which of them signs
// a checkpoint follows from the ledger alone: the one that signed the checkpoint
// before, until the record of a rotation has its place. So every checkpoint that
// covers the record is signed by the new key, on whatever replica.
func (s *Store) UseSigners(signers []*audit.Signer, keys audit.Keys) {
	s.ledger.Store(&ledgerKeys{signers, keys})
}

// guard compares what is kept outside with what the database holds.
func (s *Store) guard(ctx context.Context) error {
	have, err := s.note.load(s.ledger.Load().keys)
	if err != nil {
		return err
	}
	kept, _ := s.note.last()
	head, err := s.Head(ctx)
	if fault.Is(err, fault.NotFound) {
		if have && kept.Size > 0 {
			return fault.Unavailablef("the ledger is empty, but %d records were seen", kept.Size)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if have {
		if err := audit.Consistent(ctx, s, kept, head); err != nil {
			return err
		}
	} else if head.Size > 0 {
		s.log.WarnContext(ctx, "no checkpoint was kept on this node, the database is taken as it is", slog.Any("size", head.Size))
	}
	return s.note.keep(head, true)
}

// DeclareRestore accepts the database as it is after [Store.UseSigner] refused
// it. The declaration is a record of type ledger.restored with what was known
// before; from then on the epoch of the ledger is another one. A store that
// refuses nothing is a Conflict.
func (s *Store) DeclareRestore(ctx context.Context, actor audit.Actor, reason string) error {
	why := s.barred.Load()
	if why == nil || len(s.failed) > 0 {
		return fault.Conflictf("there is no restore to declare")
	}
	h, err := s.headRow(ctx)
	if err != nil {
		return err
	}
	kept, _ := s.note.last()
	j, err := s.prepare(unit.Unit{
		Writes: []unit.Write{unit.Do("heads.restore", 1, "the ledger has moved, read it again", h.size, h.epoch)},
		Record: audit.Record{
			Version: audit.Version, ID: id.New(), Type: "ledger.restored", At: s.now(), Outcome: audit.Done, Actor: actor,
			Reasons: []string{reason},
			Data: map[string]string{
				"seen_size": strconv.FormatUint(kept.Size, 10), "seen_root": kept.Root.String(),
				"size": strconv.FormatInt(h.size, 10), "root": h.root.String(), "epoch": strconv.FormatInt(h.epoch+1, 10),
			},
		},
	})
	if err != nil {
		return err
	}
	if head, err := s.checkpoint(h); err == nil {
		err = s.note.keep(head, true)
		if err != nil {
			return err
		}
	} else if !fault.Is(err, fault.NotFound) {
		return err
	} else if err := s.note.forget(); err != nil {
		return err
	}
	if !s.barred.CompareAndSwap(why, nil) {
		return fault.Conflictf("the store has failed meanwhile, start it again")
	}
	return s.submit(ctx, j)
}

// forget removes what is kept, for a ledger that begins anew.
func (n *noteFile) forget() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept, n.have, n.written = audit.Checkpoint{}, false, ""
	err := os.Remove(filepath.Join(n.dir, noteName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fault.Wrap(err, "remove kept checkpoint")
}
