package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// incomingDir has packages that are being received.
const incomingDir = "incoming"

// Depot is a repository that a server keeps: it takes packages in under the
// delegated role uploads, and refreshes snapshot and timestamp, with the three
// online keys. What the offline keys sign it cannot change. It writes only while
// it leads: see [Depot.Lead].
type Depot struct {
	id     string
	dir    *Dir
	keys   Keys
	leads  atomic.Bool
	within time.Duration // how long a change may wait for another writer
}

// OpenDepot opens a repository and checks that the keys at hand are those of the
// online roles.
func OpenDepot(ctx context.Context, folder string, keys Keys, now func() time.Time) (*Depot, error) {
	d, err := Open(folder, now)
	if err != nil {
		return nil, err
	}
	c, err := d.load()
	if err == nil {
		err = c.begun()
	}
	if err != nil {
		return nil, err
	}
	if c.root == nil || c.timestamp == nil {
		return nil, fault.Conflictf("the repository %s is not complete yet; see: sallyport plugin repository status", folder)
	}
	if without := c.missing(keys, RoleSnapshot, RoleTimestamp, RoleUploads); without != "" {
		return nil, fault.Invalidf("the keys of %s for the repository %s are not at hand: the server needs snapshot.key, timestamp.key and uploads.key, "+
			"and the repository names for uploads (plugin repository key --role uploads)", without, folder)
	}
	first, err := d.read(metadataName(RoleRoot, 1), maxRoot)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(first)
	d.unwatched = true
	return &Depot{id: hex.EncodeToString(sum[:]), dir: d, keys: keys, within: 30 * time.Second}, ctx.Err()
}

// ID names the repository for ever: the SHA-256 of its first root, in lower-case
// hex. Later roots do not change it.
func (d *Depot) ID() string { return d.id }

// Lead keeps the repository fresh, and lets uploads in, until ctx ends. One
// replica at a time leads; the folder's lock keeps writers on one machine apart
// besides. failed hears of what went wrong, which is tried again.
func (d *Depot) Lead(ctx context.Context, failed func(error)) {
	d.leads.Store(true)
	defer d.leads.Store(false)
	for {
		if err := d.refresh(ctx); err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute):
		}
	}
}

// refresh signs again what is in the second half of its life.
func (d *Depot) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	_, err := d.dir.change(ctx, d.keys, func(c *content) (bool, error) {
		now := d.dir.now()
		if m := c.roles[RoleUploads]; m != nil && c.pending[RoleUploads] == nil && due(m.Signed.Expires, c.lives.Targets, now) {
			if _, err := d.dir.draft(c, RoleUploads); err != nil {
				return false, err
			}
		}
		return c.timestamp == nil || due(c.timestamp.Signed.Expires, c.lives.Timestamp, now) || due(c.snapshot.Signed.Expires, c.lives.Snapshot, now), nil
	})
	return err
}

// Parcel is a package that was received and verified.
type Parcel struct {
	depot *Depot
	file  string
	entry plugin.Entry
}

// Receive takes a package onto the disk, at most [MaxPackage] bytes, and judges
// it by trust. Unavailable if another replica leads.
func (d *Depot) Receive(_ context.Context, pack io.Reader, trust plugin.Trust) (*Parcel, error) {
	if !d.leads.Load() {
		return nil, fault.Unavailablef("another replica takes packages in; try again, or send it there").After(5 * time.Second)
	}
	dir := filepath.Join(d.dir.path, incomingDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unwritable(err, d.dir.path)
	}
	sweep(dir, d.dir.now())
	p := &Parcel{depot: d, file: filepath.Join(dir, id.New()+".spk")}
	if err := receive(p.file, pack); err != nil {
		p.Close()
		return nil, err
	}
	report, err := plugin.Verify(p.file, trust)
	if err != nil {
		p.Close()
		return nil, err
	}
	p.entry = plugin.Entry{Digest: report.Digest, Manifest: report.Manifest, KeyIDs: report.Verified, Reason: report.Reason}
	return p, nil
}

func receive(file string, pack io.Reader) error {
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // made above
	if err != nil {
		return unwritable(err, filepath.Dir(file))
	}
	n, err := io.Copy(out, io.LimitReader(pack, MaxPackage+1))
	if closed := out.Close(); err == nil && closed != nil {
		err = unwritable(closed, filepath.Dir(file))
	}
	if err == nil && n > MaxPackage {
		err = fault.Invalidf("the package is larger than the %d bytes allowed here", MaxPackage)
	}
	return err //nolint:wrapcheck // the reader's faults are for the caller
}

// sweep removes what uploads left that died long ago.
func sweep(dir string, now time.Time) {
	list, _ := os.ReadDir(dir) // an upload does not fail for it
	for _, e := range list {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".spk") && now.Sub(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// Entry is what was verified.
func (p *Parcel) Entry() plugin.Entry { return p.entry }

// Publish puts the package into the repository.
func (p *Parcel) Publish(ctx context.Context) (plugin.Release, error) {
	ctx, cancel := context.WithTimeout(ctx, p.depot.within)
	defer cancel()
	if !p.depot.leads.Load() {
		return plugin.Release{}, fault.Unavailablef("another replica takes packages in now; try again").After(5 * time.Second)
	}
	s, r, err := p.depot.dir.Publish(ctx, p.file, RoleUploads, p.depot.keys)
	if err != nil {
		return plugin.Release{}, err
	}
	for _, w := range s.Staged {
		if w.Role == RoleUploads {
			return plugin.Release{}, fault.Unavailablef("the package waits in the repository: the role of uploads cannot be signed with the keys of this server")
		}
	}
	return r, nil
}

// Close removes the received file.
func (p *Parcel) Close() { _ = os.Remove(p.file) }

// File opens a file of the repository.
func (d *Depot) File(name string) (io.ReadCloser, int64, error) { return d.dir.Get(name) }
