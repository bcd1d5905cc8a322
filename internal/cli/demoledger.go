package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// ledgerStep downloads the ledger and verifies it with the key that init
// printed. Then one byte of a record is flipped in a copy.
func (d *demo) ledgerStep(ctx context.Context, n *demoNotes) error {
	position, name, err := d.target(ctx)
	if err != nil {
		return err
	}
	options := keyOptions{keys: []string{d.ledgerKey}}
	var head audit.Checkpoint
	err = demoWait(ctx, 10*time.Second, "a checkpoint over the last record", func() (bool, error) {
		head, _, err = d.me.head(ctx, d.operator, options)
		return err == nil && head.Size > position, err
	})
	if err != nil {
		return err
	}
	good := d.at("ledger")
	if err := audit.Export(ctx, good, remote{d.operator, head.Size}, head, audit.ExportOptions{}); err != nil {
		return err
	}
	n.say("the ledger is downloaded (C2SP tlog-tiles): %d records of %s", head.Size, head.Origin)
	report, err := d.verify(ctx, good)
	if err != nil {
		return err
	}
	root, err := json.Marshal(report.Root)
	if err != nil {
		return fault.Wrap(err, "encode root")
	}
	n.say("verified offline, with the key that init printed: ok %t, %d records, root %s, in %s",
		report.OK, report.Records, bytes.Trim(root, `"`), report.Duration.Round(time.Microsecond))
	if report.OldSize != nil {
		n.say("it continues the checkpoint from the server's start, of %d records: nothing was taken back or rewritten", *report.OldSize)
	}
	if err := demoMust(report.OK && report.Records == head.Size, "the export does not verify: %v", report.Problems); err != nil {
		return err
	}
	return d.flip(ctx, n, good, position, name)
}

func (d *demo) verify(ctx context.Context, folder string) (audit.Report, error) {
	return audit.Verify(ctx, os.DirFS(folder), audit.VerifyOptions{Keys: []string{d.ledgerKey}, Old: d.firstNote, Now: d.s.Now})
}

// target is the record that somebody might want to change: the revocation, or
// whatever is newest.
func (d *demo) target(ctx context.Context) (position uint64, name string, err error) {
	q := sallyport.RecordQuery{Newest: true, Limit: 1}
	if len(d.response.Matches) > 0 {
		q.Grant, q.Type = d.cred.Grant, "grant.revoked"
	}
	var r sallyport.Record
	err = demoWait(ctx, 10*time.Second, "a record in its place", func() (bool, error) {
		page, err := d.operator.Records(ctx, q)
		if err == nil && len(page.Items) > 0 {
			r = page.Items[0]
		}
		return r.Record != nil, err
	})
	if err != nil {
		return 0, "", err
	}
	var rec struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(r.Record, &rec); err != nil {
		return 0, "", fault.Wrap(err, "read record")
	}
	return r.Position, rec.ID, nil
}

// flip changes one byte of a record in a copy, which must be found and named.
func (d *demo) flip(ctx context.Context, n *demoNotes, good string, position uint64, name string) error {
	bad := d.at("flipped")
	if err := os.CopyFS(bad, os.DirFS(good)); err != nil {
		return fault.Unavailablef("the export cannot be copied").Because(err)
	}
	file, at, err := demoFind(bad, []byte(`"id":"`+name+`"`))
	if err != nil {
		return err
	}
	path := filepath.Join(bad, file)
	text, err := os.ReadFile(path) //nolint:gosec // our own copy
	if err != nil {
		return fileFault(path, err)
	}
	start := max(at-40, 0)
	was := text[at-3]
	text[at-3] ^= 1 // shortly before the id, within the same record
	if err := replace(path, text, 0o644); err != nil {
		return err
	}
	n.say("in a copy, byte %d of %s becomes %q instead of %q: ...%s...", at-3, file, text[at-3], was, text[start:at])
	report, err := d.verify(ctx, bad)
	if err != nil {
		return err
	}
	caught := false
	for _, p := range report.Problems {
		where := ""
		if p.Position != nil {
			caught = caught || p.Kind == audit.BadRecord && *p.Position == position && p.Record == name
			where = " at position " + strconv.FormatUint(*p.Position, 10)
		}
		n.say("verified again: ok %t, %s%s, record %s: %s", report.OK, p.Kind, where, p.Record, p.Detail)
	}
	return demoMust(!report.OK && caught, "the flipped byte in record %s at position %d was not found as such", name, position)
}

// demoFind finds the bundle that has a text, and where.
func demoFind(folder string, text []byte) (file string, at int, err error) {
	at = -1
	root := os.DirFS(folder)
	err = fs.WalkDir(root, "tile/entries", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || at >= 0 {
			return err
		}
		data, err := fs.ReadFile(root, name)
		if i := bytes.Index(data, text); i >= 3 {
			file, at = name, i
		}
		return err
	})
	if err == nil && at < 0 {
		err = fault.Internalf("the record to be changed is not in the export")
	}
	return file, at, err
}
