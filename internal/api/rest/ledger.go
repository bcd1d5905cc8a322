package rest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
)

// LedgerKeys is by whom the ledger is signed.
type LedgerKeys struct {
	Keys   []string `json:"keys" nullable:"false" doc:"Verifier keys (c2sp.org/signed-note). An auditor has them from elsewhere."`
	Origin string   `json:"origin" doc:"Name of the ledger."`
}

type recordView struct {
	Position uint64          `json:"position"`
	Record   json.RawMessage `json:"record" doc:"The exact canonical JSON, which is the leaf of the tree."`
}

type proofView struct {
	Version    int      `json:"v" doc:"1"`
	Index      uint64   `json:"index"`
	Leaf       string   `json:"leaf"`
	Hashes     []string `json:"hashes" nullable:"false" doc:"RFC 6962, 2.1.1, from the leaf up, base64."`
	Checkpoint string   `json:"checkpoint" doc:"The signed note."`
}

const binaryKind = "application/octet-stream"

func (d *Door) ledger() []route {
	return []route{
		endpoint(route{
			id: "list-records", method: http.MethodGet, path: "/v1/records", tag: "ledger", summary: "Read the ledger",
			query: []param{
				{name: "from", about: "The first position; with newest, the last one plus one. A page's `next`.", integer: true},
				{name: "type", about: "A whole type, or a noun and a dot: `grant.`"},
				{name: "subject"},
				{name: "grant"},
				{name: "newest", about: "The newest first.", boolean: true},
				limitParam,
			},
		}, d.listRecords),
		endpoint(route{
			id: "prove-record", method: http.MethodGet, path: "/v1/records/{id}/proof", tag: "ledger",
			summary: "Prove that a record stands in the ledger",
		}, d.proveRecord),
		endpoint(route{
			id: "read-checkpoint", method: http.MethodGet, path: "/v1/ledger/checkpoint", tag: "ledger", kind: "text/plain; charset=utf-8",
			summary: "Read the newest signed head (c2sp.org/tlog-checkpoint)",
		}, d.checkpoint),
		endpoint(route{
			id: "read-tile", method: http.MethodGet, path: "/v1/ledger/tile/{level}/{index...}", tag: "ledger", kind: binaryKind,
			summary: "Read a tile of hashes (c2sp.org/tlog-tiles)",
		}, d.tile),
		endpoint(route{
			id: "read-entries", method: http.MethodGet, path: "/v1/ledger/tile/entries/{index...}", tag: "ledger", kind: binaryKind,
			summary: "Read a bundle of records (c2sp.org/tlog-tiles)", about: "Each is recorded as an export.",
		}, d.entries),
		endpoint(route{
			id: "read-ledger-keys", method: http.MethodGet, path: "/v1/ledger/key", tag: "ledger", open: true,
			summary: "Read by whom the ledger is signed",
		}, d.ledgerKeys),
	}
}

func (d *Door) ledgerKeys(ctx context.Context, _ *exchange, _ none) (LedgerKeys, error) {
	out, err := d.cfg.LedgerKeys(ctx)
	out.Keys = filled(out.Keys)
	return out, err
}

func (d *Door) listRecords(ctx context.Context, x *exchange, _ none) (page[recordView], error) {
	limit, err := x.page()
	if err != nil {
		return page[recordView]{}, err
	}
	f := audit.Filter{
		Type: x.query.Get("type"), Subject: x.query.Get("subject"), Grant: x.query.Get("grant"), Limit: limit,
	}
	switch x.query.Get("newest") {
	case "", "false":
	case "true":
		f.Newest = true
	default:
		return page[recordView]{}, fault.Invalidf("newest must be true or false")
	}
	if text := x.query.Get("from"); text != "" {
		if f.From, err = strconv.ParseUint(text, 10, 53); err != nil {
			return page[recordView]{}, fault.Invalidf("from must be a position of the ledger")
		}
	}
	records, err := d.cfg.Gate.Audit(ctx, x.caller, "list")
	if err != nil {
		return page[recordView]{}, err
	}
	rows, err := records.Records(ctx, f)
	if err != nil {
		return page[recordView]{}, err
	}
	out := page[recordView]{Items: make([]recordView, 0, len(rows))}
	for _, e := range rows {
		out.Items = append(out.Items, recordView{e.Position, e.Leaf})
	}
	if len(rows) < limit {
		return out, nil
	}
	switch last := rows[len(rows)-1].Position; {
	case !f.Newest:
		out.Next = strconv.FormatUint(last+1, 10)
	case last > 0:
		out.Next = strconv.FormatUint(last, 10)
	}
	return out, nil
}

func (d *Door) proveRecord(ctx context.Context, x *exchange, _ none) (proofView, error) {
	records, err := d.cfg.Gate.Audit(ctx, x.caller, "prove")
	if err != nil {
		return proofView{}, err
	}
	entry, err := records.RecordByID(ctx, x.value("id"))
	if err != nil {
		return proofView{}, err
	}
	head, err := records.Head(ctx)
	if err != nil {
		return proofView{}, err
	}
	if entry.Position >= head.Size {
		return proofView{}, fault.Unavailablef("the record is not below a checkpoint yet, try again")
	}
	p, err := audit.Prove(ctx, records, entry.Leaf, entry.Position, head)
	if err != nil {
		return proofView{}, err
	}
	out := proofView{Version: p.Version, Index: p.Index, Leaf: p.Leaf, Hashes: make([]string, 0, len(p.Hashes)), Checkpoint: p.Checkpoint}
	for _, h := range p.Hashes {
		out.Hashes = append(out.Hashes, h.String())
	}
	return out, nil
}

func (d *Door) checkpoint(ctx context.Context, x *exchange, _ none) (text, error) {
	records, err := d.cfg.Gate.Audit(ctx, x.caller, "get")
	if err != nil {
		return text{}, err
	}
	head, err := records.Head(ctx)
	return text{[]byte(head.Note)}, err
}

func (d *Door) tile(ctx context.Context, x *exchange, _ none) (text, error) {
	level, err := strconv.Atoi(x.value("level"))
	if err != nil || level < 0 || level > 7 || strconv.Itoa(level) != x.value("level") {
		return text{}, errTile()
	}
	index, width, err := parseTile(x.value("index"))
	if err != nil {
		return text{}, err
	}
	records, err := d.cfg.Gate.Audit(ctx, x.caller, "get")
	if err != nil {
		return text{}, err
	}
	data, err := records.Tile(ctx, level, index)
	if err != nil {
		return text{}, err
	}
	if len(data) < width*audit.HashSize {
		return text{}, errTile()
	}
	return text{data[:width*audit.HashSize]}, nil
}

func (d *Door) entries(ctx context.Context, x *exchange, _ none) (text, error) {
	index, width, err := parseTile(x.value("index"))
	if err != nil {
		return text{}, err
	}
	records, err := d.cfg.Gate.Audit(ctx, x.caller, "export")
	if err != nil {
		return text{}, err
	}
	return bundle(ctx, records, index*audit.TileWidth, width)
}

// bundle reads records that stand one after the other: 16 bits of length, big
// endian, and the leaf, each (c2sp.org/tlog-tiles, log entries).
func bundle(ctx context.Context, records flow.Records, first uint64, width int) (text, error) {
	leaves, err := records.Leaves(ctx, first, width)
	if err != nil {
		return text{}, err
	}
	if len(leaves) != width {
		return text{}, errTile()
	}
	var out []byte
	for _, leaf := range leaves {
		if len(leaf) > audit.MaxLeaf {
			return text{}, fault.Internalf("a record of the ledger is too large")
		}
		out = binary.BigEndian.AppendUint16(out, uint16(len(leaf))) //nolint:gosec // at most MaxLeaf
		out = append(out, leaf...)
	}
	return text{out}, nil
}

// parseTile reads the end of a tile's path: groups of three digits, all but the
// last with an x before them, and for a partial tile its width. There is one
// text for each tile.
func parseTile(path string) (index uint64, width int, err error) {
	width = audit.TileWidth
	number, partial, found := strings.Cut(path, ".p/")
	if found {
		if width, err = strconv.Atoi(partial); err != nil || width < 1 || width >= audit.TileWidth {
			return 0, 0, errTile()
		}
	}
	for _, group := range strings.Split(number, "/") {
		n, err := strconv.ParseUint(strings.TrimPrefix(group, "x"), 10, 16)
		if err != nil || n > 999 || index > audit.MaxSize/audit.TileWidth/1000 {
			return 0, 0, errTile()
		}
		index = index*1000 + n
	}
	if tilePath(index, width) != path {
		return 0, 0, errTile()
	}
	return index, width, nil
}

func tilePath(index uint64, width int) string {
	n := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		n = fmt.Sprintf("x%03d/%s", index%1000, n)
	}
	if width < audit.TileWidth {
		n += ".p/" + strconv.Itoa(width)
	}
	return n
}

func errTile() error { return fault.NotFoundf("the ledger has no such tile; see c2sp.org/tlog-tiles") }
