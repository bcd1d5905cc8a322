package audit

import (
	"context"
	"encoding/json"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Proof shows, to somebody who has the ledger's public key and nothing else,
// that one record stands in the ledger.
type Proof struct {
	Version    int    `json:"v"`          // of this form, now 1
	Index      uint64 `json:"index"`      // position of the record, from 0
	Leaf       string `json:"leaf"`       // the record's exact canonical bytes
	Hashes     []Hash `json:"hashes"`     // RFC 6962 section 2.1.1, from the leaf up
	Checkpoint string `json:"checkpoint"` // signed note
}

// maxProof bounds a proof as JSON: a leaf whose every byte is escaped, a note,
// and 53 hashes.
const maxProof = 6*MaxLeaf + 2*maxNote + 8<<10

// Prove makes the proof for the leaf at a position under a checkpoint, and
// checks it: if the stored leaf is not what the tree has, the fault is
// Unavailable and nothing false is handed out.
func Prove(ctx context.Context, tiles Tiles, leaf []byte, index uint64, c Checkpoint) (Proof, error) {
	path, err := InclusionProof(ctx, tiles, index, c.Size)
	if err != nil {
		return Proof{}, err
	}
	if err := VerifyInclusion(HashLeaf(leaf), index, c.Size, path, c.Root); err != nil {
		return Proof{}, fault.Unavailablef("record %d is not what the ledger has at its place; run an audit", index).Because(err)
	}
	return Proof{1, index, string(leaf), path, c.Note}, nil
}

// JSON is the proof as a file.
func (p Proof) JSON() ([]byte, error) {
	out, err := json.MarshalIndent(p, "", "  ")
	return append(out, '\n'), fault.Wrap(err, "write proof")
}

// ParseProof reads the JSON form strictly; it verifies nothing.
func ParseProof(data []byte) (Proof, error) {
	var p Proof
	if err := canon.Strict(data, maxProof, 3, &p); err != nil {
		return Proof{}, err
	}
	if p.Version != 1 {
		return Proof{}, fault.Invalidf("the proof is of an unknown version")
	}
	return p, nil
}

// VerifyProof checks a proof offline and returns the record and the checkpoint
// under which it stands. Keys must come from somebody else than the proof. A
// proof that does not hold, or whose leaf is no record, is Invalid; a
// checkpoint that none of the keys signed is Denied.
func VerifyProof(p Proof, keys Keys) (Record, Checkpoint, error) {
	c, err := ParseCheckpoint(p.Checkpoint, keys)
	if err != nil {
		return Record{}, Checkpoint{}, err
	}
	if err := VerifyInclusion(HashLeaf([]byte(p.Leaf)), p.Index, c.Size, p.Hashes, c.Root); err != nil {
		return Record{}, Checkpoint{}, err
	}
	r, err := ParseLeaf([]byte(p.Leaf))
	if err != nil {
		return Record{}, Checkpoint{}, err
	}
	return r, c, nil
}
