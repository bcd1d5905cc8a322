package cli

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func auditExport(s *shell) *cobra.Command {
	var keys keyOptions
	c := &cobra.Command{
		Use: "export DIR", Short: "Download the ledger", Args: cobra.ExactArgs(1),
		Long: `Download the ledger into a folder, as C2SP tlog-tiles with entries. Run again, it goes
on where it stopped, or brings the folder up to date. An export judges nothing:
verify it with a key that you have from elsewhere. Reading the records is itself
recorded.`,
		Example: "  sallyport audit export ledger/\n  sallyport audit verify ledger/ --key-file ledger.pub",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			checkpoint, vkey, err := s.head(c.Context(), client, keys)
			if err != nil {
				return err
			}
			show, stop := s.progress("records")
			err = audit.Export(c.Context(), args[0], remote{client, checkpoint.Size}, checkpoint, audit.ExportOptions{VerifierKey: vkey, Progress: show})
			stop()
			if err != nil {
				return err
			}
			out := map[string]any{"directory": args[0], "size": checkpoint.Size, "root": checkpoint.Root, "origin": checkpoint.Origin}
			return s.print(out, func() error {
				return s.line("%d records of %s are in %s; verify them with: sallyport audit verify %s --key KEY", checkpoint.Size, checkpoint.Origin, args[0], args[0])
			})
		},
	}
	keys.flags(c)
	return c
}

// head gets the newest checkpoint, checked by the given keys and those that they
// vouch for, or, for want of any, by those that the server names.
func (s *shell) head(ctx context.Context, client *sallyport.Client, given keyOptions) (audit.Checkpoint, string, error) {
	trusted, err := s.keys(given)
	if err != nil {
		return audit.Checkpoint{}, "", err
	}
	if len(trusted) == 0 {
		answer, err := client.LedgerKey(ctx)
		if err != nil {
			return audit.Checkpoint{}, "", err
		}
		trusted = answer.Keys
	}
	keys, err := audit.NewKeys(trusted...)
	if err != nil {
		return audit.Checkpoint{}, "", err
	}
	note, err := client.Checkpoint(ctx)
	if err != nil {
		return audit.Checkpoint{}, "", err
	}
	c, err := audit.ParseCheckpoint(note, keys)
	if fault.Is(err, fault.Denied) && len(given.keys)+len(given.files) > 0 {
		if keys, err = s.followed(ctx, client, keys); err != nil {
			return c, "", err
		}
		c, err = audit.ParseCheckpoint(note, keys)
	}
	return c, keys.Strings()[len(keys.Strings())-1], err
}

// followed extends keys by those that they vouch for in the server's ledger.
func (s *shell) followed(ctx context.Context, client *sallyport.Client, keys audit.Keys) (audit.Keys, error) {
	var leaves [][]byte
	for from := ""; ; {
		page, err := client.Records(ctx, sallyport.RecordQuery{Type: audit.KeyRotated, From: from, Limit: 1000})
		if err != nil {
			return keys, err
		}
		for _, r := range page.Items {
			leaves = append(leaves, r.Record)
		}
		if from = page.Next; from == "" {
			return audit.Follow(keys, leaves), nil
		}
	}
}

// remote is a server's ledger as of a checkpoint.
type remote struct {
	client *sallyport.Client
	size   uint64
}

var _ audit.Source = remote{}

// width is how many hashes a tile of the checkpoint has.
func (r remote) width(level int, index uint64) (int, error) {
	have := r.size >> (8 * level)
	if have <= index*audit.TileWidth {
		return 0, fault.NotFoundf("the ledger has no tile %d of level %d", index, level)
	}
	return int(min(have-index*audit.TileWidth, audit.TileWidth)), nil
}

// Tile downloads one tile.
func (r remote) Tile(ctx context.Context, level int, index uint64) ([]byte, error) {
	width, err := r.width(level, index)
	if err != nil {
		return nil, err
	}
	return r.client.Tile(ctx, level, index, width)
}

// Leaves downloads the bundle that holds the records.
func (r remote) Leaves(ctx context.Context, from uint64, n int) ([][]byte, error) {
	index := from / audit.TileWidth
	width, err := r.width(0, index)
	if err != nil {
		return nil, err
	}
	bundle, err := r.client.Entries(ctx, index, width)
	if err != nil {
		return nil, err
	}
	leaves := split(bundle)
	skip := int(from % audit.TileWidth)
	if len(leaves) != width || skip+n > width {
		return nil, fault.Unavailablef("the server's bundle of records %d is damaged", index)
	}
	return leaves[skip : skip+n], nil
}

// split takes a bundle apart: 16 bits of length, big endian, and the record
// (c2sp.org/tlog-tiles, log entries). It gives nothing if anything is left over.
func split(bundle []byte) [][]byte {
	var leaves [][]byte
	for len(bundle) > 0 {
		if len(bundle) < 2 {
			return nil
		}
		length := int(binary.BigEndian.Uint16(bundle))
		if len(bundle)-2 < length {
			return nil
		}
		leaves = append(leaves, bundle[2:2+length])
		bundle = bundle[2+length:]
	}
	return leaves
}

// progress shows, on a terminal, how far something is that takes longer than a
// second.
func (s *shell) progress(what string) (show func(done, total uint64), stop func()) {
	if !terminal(s.err) {
		return nil, func() {}
	}
	began, last, shown := time.Now(), time.Time{}, false
	return func(done, total uint64) {
			now := time.Now()
			if now.Sub(began) < time.Second || now.Sub(last) < 100*time.Millisecond {
				return
			}
			last, shown = now, true
			_, _ = fmt.Fprintf(s.err, "\r\x1b[K%d of %d %s", done, total, what)
		}, func() {
			if shown {
				_, _ = fmt.Fprint(s.err, "\r\x1b[K")
			}
		}
}
