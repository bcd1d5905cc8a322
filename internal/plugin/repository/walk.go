package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Getter brings one file of a repository by its name, such as
// metadata/3.root.json. It must not read more than limit bytes: a longer file
// is a fault. A file that is not there is NotFound.
type Getter func(ctx context.Context, name string, limit int64) ([]byte, error)

// View is a repository as it is now, verified, and the metadata that was used,
// in order.
type View struct {
	plugin.View
	Files []File
}

// File is one file of metadata.
type File struct {
	Name string
	Data []byte
}

// Pin checks a root that an operator hands in, by itself: form, and signatures
// by its own keys. It returns the root's version. That it is the right one only
// the operator can know.
func Pin(root []byte) (int64, error) {
	m, err := parseRoot(root)
	if err != nil {
		return 0, err
	}
	if _, err := trustedmetadata.New(root); err != nil {
		return 0, judged(err, "the root")
	}
	return m.Signed.Version, nil
}

// walk is one way from what was seen to what is there.
type walk struct {
	get  Getter
	tm   *trustedmetadata.TrustedMetadata
	view View
}

// Walk goes the client's way (TUF 5.3 to 5.6) from what was seen before to what
// is there now. Faults are Denied with a reason for everything that a sound and
// present repository does not do: METADATA_STALE for what has expired, ROLLBACK
// for what is older than what was seen, BAD_SIGNATURE, DIGEST_MISMATCH,
// INCOMPATIBLE; and those of get. After a fault what was seen stays what it was.
func Walk(ctx context.Context, seen plugin.Seen, get Getter, now time.Time) (View, error) {
	w := &walk{get: get, view: View{View: plugin.View{Versions: map[string]int64{}}}}
	root, err := parseRoot(seen.Root)
	if err != nil {
		return View{}, err
	}
	if w.tm, err = trustedmetadata.New(seen.Root); err != nil {
		return View{}, judged(err, "the root")
	}
	w.tm.RefTime = now.UTC()
	w.view.Seen = seen
	for _, step := range []func(context.Context) error{w.roots(root), w.timestamp, w.snapshot, w.targets} {
		if err := step(ctx); err != nil {
			return View{}, err
		}
	}
	w.view.Releases = sorted(w.view.Releases)
	return w.view, nil
}

// roots follows the root from version to version (5.3). If the keys of
// timestamp or snapshot have changed on the way, or more of them must sign, what
// these said before counts no more (5.3.11): that is how a publisher recovers
// from versions that a thief drove up.
func (w *walk) roots(first *metadata.Metadata[metadata.RootType]) func(context.Context) error {
	return func(ctx context.Context) error {
		for range maxRotations {
			name := metadataName(RoleRoot, w.tm.Root.Signed.Version+1)
			data, err := w.get(ctx, name, maxRoot)
			if fault.Is(err, fault.NotFound) {
				break
			}
			if err != nil {
				return err
			}
			if _, err := parseRoot(data); err != nil {
				return err
			}
			if _, err := w.tm.UpdateRoot(data); err != nil {
				return judged(err, "the root")
			}
			w.view.Seen.Root = data
			w.use(name, data)
		}
		now := w.tm.Root.Signed
		w.view.Versions[RoleRoot] = now.Version
		w.expires(now.Expires)
		if !sameKeys(first.Signed.Roles, now.Roles, RoleTimestamp) || !sameKeys(first.Signed.Roles, now.Roles, RoleSnapshot) {
			w.view.Seen.Timestamp, w.view.Seen.Snapshot = nil, nil
		}
		if now.IsExpired(w.tm.RefTime) {
			return judged(&metadata.ErrExpiredMetadata{}, "the root")
		}
		return nil
	}
}

// sameKeys reports whether what a role said before is still judged alike. If
// more signatures are demanded now, it bears too few of them.
func sameKeys(a, b map[string]*metadata.Role, role string) bool {
	if a[role].Threshold < b[role].Threshold {
		return false
	}
	x, y := slices.Clone(a[role].KeyIDs), slices.Clone(b[role].KeyIDs)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// timestamp (5.4). One of the same version is the one that was seen, whatever
// it says.
func (w *walk) timestamp(ctx context.Context) error {
	const what = "the timestamp"
	if old := w.view.Seen.Timestamp; old != nil {
		if _, err := parseTimestamp(old); err != nil {
			return err
		}
		if _, err := w.tm.UpdateTimestamp(old); err != nil && !expiredOnly(err) {
			return judged(err, what)
		}
	}
	name := metadataName(RoleTimestamp, 0)
	data, err := w.get(ctx, name, maxTimestamp)
	if err != nil {
		return err
	}
	if _, err := parseTimestamp(data); err != nil {
		return err
	}
	_, err = w.tm.UpdateTimestamp(data)
	var equal *metadata.ErrEqualVersionNumber
	switch {
	case errors.As(err, &equal):
		data = w.view.Seen.Timestamp
		if w.tm.Timestamp.Signed.IsExpired(w.tm.RefTime) {
			return judged(&metadata.ErrExpiredMetadata{}, what)
		}
	case err != nil:
		return judged(err, what)
	}
	w.view.Seen.Timestamp = data
	w.use(name, data)
	w.view.Versions[RoleTimestamp] = w.tm.Timestamp.Signed.Version
	w.expires(w.tm.Timestamp.Signed.Expires)
	return nil
}

// expiredOnly reports whether trusted metadata was loaded although it is not
// good any more: it still says which versions were there.
func expiredOnly(err error) bool {
	var expired *metadata.ErrExpiredMetadata
	var version *metadata.ErrBadVersionNumber // a snapshot that is not the timestamp's any more
	return errors.As(err, &expired) || errors.As(err, &version)
}

// snapshot (5.5).
func (w *walk) snapshot(ctx context.Context) error {
	const what = "the snapshot"
	d := w.tm.Timestamp.Signed.Meta[RoleSnapshot+".json"]
	old := w.view.Seen.Snapshot
	if old != nil {
		if _, err := parseSnapshot(old); err != nil {
			return err
		}
		if _, err := w.tm.UpdateSnapshot(old, true); err != nil && !expiredOnly(err) {
			return judged(err, what)
		}
	}
	name := metadataName(RoleSnapshot, d.Version)
	data := old
	if sum := sha256.Sum256(old); old == nil || !bytes.Equal(sum[:], d.Hashes["sha256"]) {
		var err error
		if data, err = w.get(ctx, name, d.Length); err != nil {
			return err
		}
	}
	if err := d.VerifyLengthHashes(data); err != nil {
		return judged(err, what)
	}
	if _, err := parseSnapshot(data); err != nil {
		return err
	}
	if _, err := w.tm.UpdateSnapshot(data, false); err != nil {
		var gone *metadata.ErrRepository
		if errors.As(err, &gone) {
			return plugin.Refuse(plugin.ReasonRollback, "%s of the repository leaves out files that it had before", what)
		}
		return judged(err, what)
	}
	w.view.Seen.Snapshot = data
	w.use(name, data)
	w.view.Versions[RoleSnapshot] = w.tm.Snapshot.Signed.Version
	w.expires(w.tm.Snapshot.Signed.Expires)
	return nil
}

// targets reads what is offered (5.6): the top level first, then the delegated
// roles in their order.
func (w *walk) targets(ctx context.Context) error {
	top, err := w.role(ctx, RoleTargets, RoleRoot, nil)
	if err != nil || top.Signed.Delegations == nil {
		return err
	}
	for _, r := range top.Signed.Delegations.Roles {
		if _, err := w.role(ctx, r.Name, RoleTargets, &r); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) role(ctx context.Context, role, delegator string, within *metadata.DelegatedRole) (*metadata.Metadata[metadata.TargetsType], error) {
	what := "the file of role " + role
	d := w.tm.Snapshot.Signed.Meta[role+".json"]
	if d == nil {
		return nil, plugin.Refuse(plugin.ReasonRollback, "the snapshot of the repository does not name role %s", role)
	}
	name := metadataName(role, d.Version)
	data, err := w.get(ctx, name, d.Length)
	if err != nil {
		return nil, err
	}
	if err := d.VerifyLengthHashes(data); err != nil {
		return nil, judged(err, what)
	}
	if _, err := parseTargets(data, role); err != nil {
		return nil, err
	}
	m, err := w.tm.UpdateDelegatedTargets(data, role, delegator)
	if err != nil {
		return nil, judged(err, what)
	}
	more, err := releases(m, role, within)
	if err != nil {
		return nil, err
	}
	if w.view.Releases = merge(w.view.Releases, more); len(w.view.Releases) > maxReleases {
		return nil, malformed(what, "the repository lists too many packages")
	}
	w.use(name, data)
	w.view.Versions[role] = m.Signed.Version
	w.expires(m.Signed.Expires)
	return m, nil
}

func (w *walk) use(name string, data []byte) { w.view.Files = append(w.view.Files, File{name, data}) }

func (w *walk) expires(at time.Time) {
	if w.view.Expires.IsZero() || at.Before(w.view.Expires) {
		w.view.Expires = at.UTC()
	}
}

func notOffered(name, version string) error {
	if version != "" {
		return fault.NotFoundf("no repository offers %s in version %s; see: sallyport plugin search %s", name, version, name)
	}
	return fault.NotFoundf("no repository offers a package %s; see: sallyport plugin search", name)
}
