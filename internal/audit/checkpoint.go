package audit

import (
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Checkpoint is a signed head of the tree (c2sp.org/tlog-checkpoint).
type Checkpoint struct {
	Origin string // name of the ledger
	Size   uint64 // number of leaves
	Root   Hash
	Key    string // id of the key whose signature was made or verified: <origin>+<8 hex digits>
	Note   string // the signed note, exactly
}

// Sign makes the checkpoint of a tree. The caller must have made sure, with
// [Consistent], that it extends every checkpoint signed before.
func (s *Signer) Sign(size uint64, root Hash) (Checkpoint, error) {
	if size > MaxSize {
		return Checkpoint{}, fault.Invalidf("the ledger is too large")
	}
	text := s.origin + "\n" + strconv.FormatUint(size, 10) + "\n" + root.String() + "\n"
	signed, err := s.sign(text)
	if err != nil {
		return Checkpoint{}, err
	}
	return Checkpoint{s.origin, size, root, keyID(s.origin, s.id), signed}, nil
}

// ParseCheckpoint verifies a signed note and reads it. A note that none of the
// keys signed in the name of its own origin is Denied; a malformed one, or one
// with extension lines, which this ledger never writes, is Invalid.
func ParseCheckpoint(signed string, keys Keys) (Checkpoint, error) {
	c := Checkpoint{Note: signed}
	_, id, err := keys.open(signed, func(text string) (string, error) {
		err := c.read(text)
		return c.Origin, err
	})
	if err != nil {
		return Checkpoint{}, err
	}
	c.Key = id
	return c, nil
}

// read takes the body of a checkpoint.
func (c *Checkpoint) read(text string) error {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" || checkOrigin(lines[0]) != nil {
		return fault.Invalidf("the note is not a checkpoint of three lines")
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil || size > MaxSize || strconv.FormatUint(size, 10) != lines[1] {
		return fault.Invalidf("the checkpoint's size is malformed")
	}
	if err := c.Root.UnmarshalText([]byte(lines[2])); err != nil {
		return fault.Invalidf("the checkpoint's root is malformed")
	}
	if size == 0 && c.Root != EmptyRoot() {
		return fault.Invalidf("the checkpoint's root is not that of an empty ledger")
	}
	c.Origin, c.Size = lines[0], size
	return nil
}
