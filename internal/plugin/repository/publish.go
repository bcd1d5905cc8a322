package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// change runs one change under the lock: edit prepares it, and what is complete
// is put in place.
func (d *Dir) change(ctx context.Context, keys Keys, edit func(c *content) (fresh bool, err error)) (Status, error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return Status{}, err
	}
	defer unlock()
	c, err := d.load()
	if err != nil {
		return Status{}, err
	}
	if d.unwatched {
		c.distrust(keys)
	}
	fresh, err := edit(c)
	if err == nil {
		err = c.begun()
	}
	if err != nil {
		return Status{}, err
	}
	if err := d.settle(c, keys, fresh); err != nil {
		return Status{}, err
	}
	return d.describe(c)
}

// begun refuses a folder in which init has not come to its end.
func (c *content) begun() error {
	if c.root == nil && c.staged == nil {
		return fault.Conflictf("making this repository was interrupted; remove the folder and make it again")
	}
	return nil
}

// Publish adds a package, signed by its publisher, to what role offers: targets,
// or a delegated role within its names. A version that is there already is a
// Conflict, unless it is the same file: versions do not change. Whether the
// package is trusted is for others to judge; that it is well-formed is checked.
func (d *Dir) Publish(ctx context.Context, pack, role string, keys Keys) (Status, plugin.Release, error) {
	var out plugin.Release
	s, err := d.change(ctx, keys, func(c *content) (bool, error) {
		r, err := describePackage(pack, role)
		if err != nil {
			return false, err
		}
		out = r
		if same, err := c.offered(r); err != nil || same {
			return false, err
		}
		m, err := d.draft(c, role)
		if err != nil {
			return false, err
		}
		target, err := targetOf(r)
		if err != nil {
			return false, err
		}
		path := targetPath(r.Name, r.Version)
		if !c.permits(role, path) {
			return false, fault.Deniedf("the repository does not give the name %s to role %s", r.Name, role)
		}
		m.Signed.Targets[path] = target
		if err := c.fits(); err != nil {
			return false, err
		}
		return false, d.place(TargetName(r), copyFile(pack))
	})
	return s, out, err
}

// roomForSignatures is what the signatures that a file still waits for may take.
const roomForSignatures = maxSignatures * 256

// fits demands that clients would read what is staged: they refuse a repository
// of too many packages, or a file that is too long, as a whole.
func (c *content) fits() error {
	paths := map[string]bool{}
	for _, role := range c.names() {
		m := c.newest(role)
		if m == nil {
			continue
		}
		for path := range m.Signed.Targets {
			paths[path] = true
		}
		if c.pending[role] == nil {
			continue
		}
		data, err := encode(m)
		if err != nil {
			return err
		}
		if len(data) > maxTargets-roomForSignatures {
			return fault.Conflictf("the file of role %s is full; begin another repository", role)
		}
	}
	if len(paths) > maxReleases {
		return fault.Conflictf("the repository has %d packages already, which is all that clients read; begin another one", maxReleases)
	}
	return nil
}

// offered reports whether exactly this package is offered already; another one
// under its name and version is a Conflict.
func (c *content) offered(r plugin.Release) (bool, error) {
	for _, role := range c.names() {
		m := c.newest(role)
		if m == nil {
			continue
		}
		there := m.Signed.Targets[targetPath(r.Name, r.Version)]
		switch {
		case there == nil:
		case hex.EncodeToString(there.Hashes["sha256"]) != r.SHA256:
			return false, fault.Conflictf("%s %s is in the repository with another content; a version never changes, choose the next one", r.Name, r.Version)
		default:
			return true, nil
		}
	}
	return false, nil
}

// permits reports whether a role may offer a path.
func (c *content) permits(role, path string) bool {
	if role == RoleTargets {
		return true
	}
	t := c.roles[RoleTargets]
	if t == nil || t.Signed.Delegations == nil {
		return false
	}
	for _, r := range t.Signed.Delegations.Roles {
		if ok, err := r.IsDelegatedPath(path); r.Name == role && err == nil && ok {
			return true
		}
	}
	return false
}

// describePackage reads a package file, and what a release says of it.
func describePackage(file, role string) (plugin.Release, error) {
	report, err := plugin.Inspect(file)
	if err != nil {
		return plugin.Release{}, err
	}
	m := report.Manifest
	if len(report.Signers) == 0 {
		return plugin.Release{}, fault.Invalidf("the package is not signed by its publisher yet; see: sallyport plugin sign")
	}
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return plugin.Release{}, fault.Wrap(err, "open package")
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	size, err := io.Copy(h, io.LimitReader(f, MaxPackage+1))
	if err != nil {
		return plugin.Release{}, fault.Wrap(err, "read package")
	}
	if size > MaxPackage {
		return plugin.Release{}, fault.Invalidf("the package is larger than %d bytes", MaxPackage)
	}
	return plugin.Release{
		Name: m.Name, Version: m.Version, Digest: report.Digest, Publisher: m.Publisher, Roles: m.Roles, Kinds: m.Kinds, Summary: m.Summary,
		MinSecureVersion: m.MinSecureVersion, Size: size, SHA256: hex.EncodeToString(h.Sum(nil)), Role: role,
	}, nil
}

func targetOf(r plugin.Release) (*metadata.TargetFiles, error) {
	raw, err := json.Marshal(custom{
		Name: r.Name, Version: r.Version, Digest: r.Digest, Publisher: r.Publisher, Roles: r.Roles, Kinds: append([]string{}, r.Kinds...), // no null: see form.go
		Summary: r.Summary, MinSecureVersion: r.MinSecureVersion, Yanked: r.Yanked,
	})
	if err != nil {
		return nil, fault.Internalf("encode release").Because(err)
	}
	sum, err := hex.DecodeString(r.SHA256)
	if err != nil {
		return nil, fault.Internalf("a release has no digest").Because(err)
	}
	message := json.RawMessage(raw)
	t := &metadata.TargetFiles{
		Length: r.Size, Hashes: metadata.Hashes{"sha256": sum}, Custom: &message, Path: targetPath(r.Name, r.Version),
	}
	if _, why := release(t.Path, t, r.Role); why != "" {
		return nil, fault.Invalidf("this package cannot be in a repository: %s", why)
	}
	return t, nil
}

// Yank withdraws a release: it stays readable, and clients install it no more.
// The targets role has the word also on what a delegated role offers. NotFound
// if there is none.
func (d *Dir) Yank(ctx context.Context, name, version, reason string, keys Keys) (Status, error) {
	if reason == "" || !plain(reason) {
		return Status{}, fault.Invalidf("say why, in at most 400 bytes of printable text: clients show it")
	}
	return d.change(ctx, keys, func(c *content) (bool, error) {
		path := targetPath(name, version)
		for _, role := range c.names() {
			m := c.newest(role)
			if m == nil || m.Signed.Targets[path] == nil {
				continue
			}
			r, why := release(path, m.Signed.Targets[path], RoleTargets)
			if why != "" {
				return false, malformed("the file of role "+role, why)
			}
			if r.Yanked == reason && role == RoleTargets {
				return false, nil
			}
			r.Yanked = reason
			target, err := targetOf(r)
			if err != nil {
				return false, err
			}
			top, err := d.draft(c, RoleTargets)
			if err != nil {
				return false, err
			}
			top.Signed.Targets[path] = target
			return false, c.fits()
		}
		return false, fault.NotFoundf("the repository has no %s %s", name, version)
	})
}

// Sign adds the signatures of the keys at hand to everything that waits for
// them.
func (d *Dir) Sign(ctx context.Context, keys Keys) (Status, error) {
	return d.change(ctx, keys, func(c *content) (bool, error) {
		if c.staged == nil && len(c.pending) == 0 {
			return false, fault.Conflictf("nothing waits for a signature")
		}
		return false, nil
	})
}

// Refresh makes a new snapshot and timestamp, so that clients know that nothing
// newer is hidden from them. With a life above zero this timestamp is good for
// so long, for a copy that is carried to where no network is. Metadata of the
// offline roles in the second half of its life is staged anew, so that it can be
// signed in time.
func (d *Dir) Refresh(ctx context.Context, keys Keys, life Lives) (Status, error) {
	return d.change(ctx, keys, func(c *content) (bool, error) {
		for _, o := range []struct{ from, to *int64 }{
			{(*int64)(&life.Timestamp), (*int64)(&c.lives.Timestamp)}, {(*int64)(&life.Snapshot), (*int64)(&c.lives.Snapshot)},
		} {
			if *o.from > 0 {
				*o.to = *o.from
			}
		}
		if err := c.lives.validate(); err != nil {
			return false, err
		}
		return true, d.renew(c)
	})
}

// renew stages what the offline keys must sign again.
func (d *Dir) renew(c *content) error {
	now := d.now()
	if c.root != nil && c.staged == nil && due(c.root.Signed.Expires, c.lives.Root, now) {
		if err := d.draftRoot(c); err != nil {
			return err
		}
	}
	for _, role := range c.names() {
		if m := c.roles[role]; m != nil && c.pending[role] == nil && due(m.Signed.Expires, c.lives.of(role), now) {
			if _, err := d.draft(c, role); err != nil {
				return err
			}
		}
	}
	return nil
}

// Get opens a served file for reading, with its size. What is no file of a
// repository is NotFound, and so is a link.
func (d *Dir) Get(name string) (*os.File, int64, error) {
	if !Served(name) {
		return nil, 0, fault.NotFoundf("a repository has no such file")
	}
	f, err := folder(d.path).Open(context.Background(), name)
	if err != nil {
		if fault.Is(err, fault.Denied) {
			return nil, 0, fault.NotFoundf("a repository has no such file").Because(err)
		}
		return nil, 0, err
	}
	file, ok := f.(*os.File)
	if !ok {
		return nil, 0, fault.Internalf("a file of the repository is none") // unreachable
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, 0, fault.Wrap(err, "look at a file of the repository")
	}
	return file, info.Size(), nil
}
