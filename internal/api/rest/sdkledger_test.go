package rest

import (
	"context"
	"encoding/binary"
	"os"
	"testing"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/subject"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// remote reads a ledger over the API as package audit wants it.
type remote struct {
	c    *sallyport.Client
	size uint64
}

func (r remote) width(level int, index uint64) int {
	return int(min(r.size>>(8*level)-index*256, 256))
}

func (r remote) Tile(ctx context.Context, level int, index uint64) ([]byte, error) {
	return r.c.Tile(ctx, level, index, r.width(level, index))
}

func (r remote) Leaves(ctx context.Context, from uint64, n int) ([][]byte, error) {
	data, err := r.c.Entries(ctx, from/256, n)
	var out [][]byte
	for len(data) >= 2 {
		n := int(binary.BigEndian.Uint16(data))
		out = append(out, data[2:2+n])
		data = data[2+n:]
	}
	return out, err
}

func TestLedger_CanBeExportedAndVerifiedFromOutside(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.newcomer(t, subject.Operator)
	keys := h.gate.records.(*ledger).keys
	note, err := c.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head, err := audit.ParseCheckpoint(note, keys)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := audit.Export(t.Context(), dir, remote{c, head.Size}, head, audit.ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(t.Context(), os.DirFS(dir), audit.VerifyOptions{Keys: keys.Strings()})
	if err != nil || !report.OK {
		t.Errorf("%+v, %v", report, err)
	}
	for _, wrong := range []func() ([]byte, error){
		func() ([]byte, error) { return c.Tile(t.Context(), 0, 2, 256) }, // is partial
		func() ([]byte, error) { return c.Tile(t.Context(), 0, 3, 256) },
		func() ([]byte, error) { return c.Tile(t.Context(), 9, 0, 256) },
		func() ([]byte, error) { return c.Entries(t.Context(), 2, 256) },
		func() ([]byte, error) { return c.Entries(t.Context(), 1<<52, 256) },
	} {
		if _, err := wrong(); !sallyport.Is(err, sallyport.NotFound) {
			t.Errorf("a tile that is not there: %v", err)
		}
	}
}
