package sallyport

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
)

// Record is an entry of the ledger. Record is its exact canonical JSON, which
// is also the leaf of the tree.
type Record struct {
	Position uint64          `json:"position"`
	Record   json.RawMessage `json:"record"`
}

// RecordQuery selects records in the order of the ledger. Zero members do not
// restrict.
type RecordQuery struct {
	From    string // a position, or a page's Next
	Type    string // a whole type, or a noun with a dot: "grant."
	Subject string
	Grant   string
	Limit   int
	Newest  bool // the newest first
}

// Records reads the ledger.
func (c *Client) Records(ctx context.Context, q RecordQuery) (Page[Record], error) {
	r := get("/v1/records")
	r.query = set("from", q.From, "type", q.Type, "subject", q.Subject, "grant", q.Grant, "limit", number(q.Limit))
	if q.Newest {
		r.query.Set("newest", "true")
	}
	return list[Record](ctx, c, r)
}

// RecordProof gets the proof that a record stands in the ledger, to be checked
// offline with the ledger's key.
func (c *Client) RecordProof(ctx context.Context, id string) (json.RawMessage, error) {
	a, err := c.do(ctx, get(join("/v1/records/{}/proof", id)), nil)
	return a.body, err
}

// LedgerKey is by whom the ledger is signed. A key that comes with what it
// signs proves nothing: an auditor has it from elsewhere.
type LedgerKey struct {
	Keys   []string `json:"keys"` // verifier keys in the form of c2sp.org/signed-note
	Origin string   `json:"origin"`
}

// LedgerKey asks for the ledger's keys.
func (c *Client) LedgerKey(ctx context.Context) (LedgerKey, error) {
	var out LedgerKey
	r := get("/v1/ledger/key")
	r.auth = bare
	_, err := c.do(ctx, r, &out)
	return out, err
}

// Checkpoint gets the newest signed head of the ledger
// (c2sp.org/tlog-checkpoint).
func (c *Client) Checkpoint(ctx context.Context) (string, error) {
	a, err := c.do(ctx, get("/v1/ledger/checkpoint"), nil)
	return string(a.body), err
}

// Tile gets a tile of hashes of a level (c2sp.org/tlog-tiles); the width is 256
// for a full one.
func (c *Client) Tile(ctx context.Context, level int, index uint64, width int) ([]byte, error) {
	a, err := c.do(ctx, get("/v1/ledger/tile/"+strconv.Itoa(level)+"/"+tilePath(index, width)), nil)
	return a.body, err
}

// Entries gets a bundle of records (c2sp.org/tlog-tiles, log entries); the
// width is 256 for a full one.
func (c *Client) Entries(ctx context.Context, index uint64, width int) ([]byte, error) {
	r := get("/v1/ledger/tile/entries/" + tilePath(index, width))
	r.limit = maxBundle
	a, err := c.do(ctx, r, nil)
	return a.body, err
}

// tilePath writes an index in groups of three digits.
func tilePath(index uint64, width int) string {
	n := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		n = fmt.Sprintf("x%03d/%s", index%1000, n)
	}
	if width > 0 && width < 256 {
		n += ".p/" + strconv.Itoa(width)
	}
	return n
}

// SSHAuthority gets the keys that sign SSH user certificates, as lines of
// authorized_keys, for TrustedUserCAKeys of sshd.
func (c *Client) SSHAuthority(ctx context.Context) (string, error) {
	r := get("/v1/ssh/ca")
	r.auth = bare
	a, err := c.do(ctx, r, nil)
	return string(a.body), err
}

// SSHRevocations gets the list of revoked SSH certificates in OpenSSH's binary
// form (KRL), for RevokedKeys of sshd.
func (c *Client) SSHRevocations(ctx context.Context) ([]byte, error) {
	r := get("/v1/ssh/krl")
	r.auth, r.limit = bare, maxList
	a, err := c.do(ctx, r, nil)
	return a.body, err
}

// Authority gets the server's root certificate as PEM.
func (c *Client) Authority(ctx context.Context) (string, error) {
	r := get("/v1/ca")
	r.auth = bare
	a, err := c.do(ctx, r, nil)
	return string(a.body), err
}

// OpenAPI gets the description of the API.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	r := get("/openapi.json")
	r.auth, r.limit = bare, maxList
	a, err := c.do(ctx, r, nil)
	return a.body, err
}
