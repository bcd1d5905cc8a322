package audit

import (
	"slices"
	"sync"
	"time"
)

// Report is what [Verify] found. Its JSON form is a contract: member names stay.
type Report struct {
	OK         bool          `json:"ok"`                 // every record and tile is what the checkpoint says
	Origin     string        `json:"origin,omitempty"`   // of the verified checkpoint
	Size       uint64        `json:"size"`               // records under the checkpoint
	Root       *Hash         `json:"root,omitempty"`     // base64
	Key        string        `json:"key,omitempty"`      // id of the key that signed
	OldSize    *uint64       `json:"old_size,omitempty"` // of the old checkpoint, if one was given
	Records    uint64        `json:"records"`            // whose bytes were read and hashed
	Duration   time.Duration `json:"duration_ns"`
	Rotations  []Rotation    `json:"rotations,omitempty"`  // of the ledger's key, in their order
	Problems   []Problem     `json:"problems"`             // ordered by position and path
	Unreported int           `json:"unreported,omitempty"` // problems beyond the limit of the list
}

// Problem is one thing that is not as the checkpoint says.
type Problem struct {
	Kind     ProblemKind `json:"kind"`
	Position *uint64     `json:"position,omitempty"` // of the record, from 0
	Record   string      `json:"record,omitempty"`   // id in the damaged record, if it can still be read
	Tile     string      `json:"tile,omitempty"`     // path in the export
	Detail   string      `json:"detail"`
}

// ProblemKind is a code for machines.
type ProblemKind string

// The kinds of problems.
const (
	NoCheckpoint  ProblemKind = "checkpoint_missing"    // nothing can be verified
	BadCheckpoint ProblemKind = "checkpoint_unverified" // malformed, or not signed by a given key
	BadRoot       ProblemKind = "root_mismatch"         // the tree as a whole is not the signed one
	BadRecord     ProblemKind = "record_altered"        // its hash differs from its tile
	NoRecord      ProblemKind = "record_malformed"      // it is what was signed, but no canonical record
	BadTile       ProblemKind = "tile_altered"          // it does not hash to its place in the tree
	Missing       ProblemKind = "missing"               // a tile or bundle that the size demands
	Truncated     ProblemKind = "truncated"             // a tile or bundle ends early
	Malformed     ProblemKind = "malformed"             // a tile or bundle of a wrong shape
	Unreadable    ProblemKind = "unreadable"            // the file could not be read
	Extra         ProblemKind = "extra"                 // a file that the size does not call for
	BadRotation   ProblemKind = "rotation_invalid"      // a rotation of the key that does not count
	OldRollback   ProblemKind = "rollback"              // shorter than the old checkpoint
	OldFork       ProblemKind = "fork"                  // not an extension of the old checkpoint
	OldUnproven   ProblemKind = "old_unproven"          // damage keeps the old checkpoint from being compared
)

// findings collects problems from several goroutines.
type findings struct {
	mu   sync.Mutex
	max  int
	list []Problem
	more int
}

func (f *findings) add(p Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) < f.max {
		f.list = append(f.list, p)
	} else {
		f.more++
	}
}

func (f *findings) any() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.list)+f.more > 0
}

// sorted puts problems of the whole first, then those of records and tiles.
func (f *findings) sorted() []Problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := func(p Problem) int64 {
		if p.Position == nil {
			return -1
		}
		return int64(*p.Position) //nolint:gosec // at most MaxSize
	}
	slices.SortStableFunc(f.list, func(a, b Problem) int {
		if x, y := at(a), at(b); x != y {
			return int(min(max(x-y, -1), 1))
		}
		if a.Tile < b.Tile {
			return -1
		}
		if a.Tile > b.Tile {
			return 1
		}
		return 0
	})
	return append([]Problem{}, f.list...)
}
