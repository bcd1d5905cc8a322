package audit

import (
	"context"
	"fmt"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Breach says how a ledger contradicts what was seen of it before.
type Breach string

// The breaches.
const (
	Foreign    Breach = "foreign"    // another ledger altogether
	Rollback   Breach = "rollback"   // shorter than before, for example a restored backup
	Fork       Breach = "fork"       // not the same history
	Truncation Breach = "truncation" // tiles end before the checkpoint does
)

// Inconsistent is the cause of the fault that [Consistent] returns.
type Inconsistent struct {
	Breach        Breach
	Kept, Current uint64 // sizes
}

// Error describes the breach for logs.
func (i *Inconsistent) Error() string {
	return fmt.Sprintf("ledger %s: kept size %d, current size %d", i.Breach, i.Kept, i.Current)
}

// Consistent says whether current extends kept, and whether the tiles carry
// both. Each replica asks this with the last checkpoint that it has kept outside
// the database, before it signs or serves.
//
// A breach is Unavailable, because nothing safe can be answered, with an
// [Inconsistent] as its cause; an operator must look. A tile that could not be
// read for another reason than its absence keeps that fault. Both checkpoints
// must come from [ParseCheckpoint] or [Signer.Sign].
func Consistent(ctx context.Context, tiles Tiles, kept, current Checkpoint) error {
	breach := func(b Breach, text string, args ...any) error {
		return fault.Unavailablef(text, args...).Because(&Inconsistent{b, kept.Size, current.Size})
	}
	if kept.Origin != current.Origin {
		return breach(Foreign, "the database holds another ledger than the one this replica knows")
	}
	if current.Size < kept.Size {
		return breach(Rollback, "the ledger has %d records, but this replica has already seen %d; "+
			"if a backup was restored, an operator must declare it", current.Size, kept.Size)
	}
	root, err := RootAt(ctx, tiles, current.Size)
	if fault.Is(err, fault.NotFound) {
		return breach(Truncation, "the ledger's tiles end before its %d records do", current.Size)
	}
	if err != nil {
		return fault.Wrap(err, "read root of size %d", current.Size)
	}
	if root != current.Root {
		return breach(Fork, "the ledger's tiles do not give the root that was signed for its %d records", current.Size)
	}
	// Two roots read from the tiles would not do: they share too few nodes. The
	// proof binds one to the other.
	path, err := ConsistencyProof(ctx, tiles, kept.Size, current.Size)
	if fault.Is(err, fault.NotFound) {
		return breach(Truncation, "the ledger's tiles end before its %d records do", current.Size)
	}
	if err != nil {
		return fault.Wrap(err, "prove size %d from size %d", current.Size, kept.Size)
	}
	if VerifyConsistency(kept.Size, current.Size, path, kept.Root, current.Root) != nil {
		return breach(Fork, "the ledger's first %d records are not those that this replica has seen", kept.Size)
	}
	return nil
}
