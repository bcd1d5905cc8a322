package repository

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Init makes a repository in a folder that must be empty or absent. Its root and
// targets are staged, are signed with the keys at hand, and are put in place if
// that is enough. A plan that cannot work is Invalid.
func Init(ctx context.Context, folder string, p Plan, keys Keys, now func() time.Time) (*Dir, Status, error) {
	if p.Lives == (Lives{}) {
		p.Lives = DefaultLives
	}
	if err := p.Lives.validate(); err != nil {
		return nil, Status{}, err
	}
	abs, err := filepath.Abs(folder)
	if err != nil {
		return nil, Status{}, fault.Wrap(err, "resolve repository folder")
	}
	if err := os.MkdirAll(abs, 0o755); err != nil { //nolint:gosec // a repository is public
		return nil, Status{}, unwritable(err, abs)
	}
	if list, err := os.ReadDir(abs); err != nil || len(list) > 0 {
		return nil, Status{}, fault.Conflictf("the folder %s is not empty; choose another one", folder)
	}
	if now == nil {
		now = time.Now
	}
	d := &Dir{path: abs, now: now}
	root, targets, err := d.first(p)
	if err != nil {
		return nil, Status{}, err
	}
	for _, sub := range []string{tempDir, metadataDir, targetsDir, stagedDir} {
		if err := os.Mkdir(filepath.Join(abs, sub), 0o755); err != nil { //nolint:gosec // a repository is public
			return nil, Status{}, unwritable(err, abs)
		}
	}
	data, err := json.Marshal(p.Lives.settings())
	if err == nil {
		err = d.write(settingsFile, append(data, '\n'))
	}
	if err != nil {
		return nil, Status{}, err
	}
	s, err := d.change(ctx, keys, func(c *content) (bool, error) {
		c.staged, c.pending[RoleTargets] = root, targets
		if len(p.Uploads.Keys) > 0 {
			c.pending[RoleUploads] = metadata.Targets(d.until(p.Lives, RoleUploads))
		}
		return false, nil
	})
	return d, s, err
}

// first makes the first root and targets of a plan, and checks them by the rules
// of the reader.
func (d *Dir) first(p Plan) (*metadata.Metadata[metadata.RootType], *metadata.Metadata[metadata.TargetsType], error) {
	root := metadata.Root(d.until(p.Lives, RoleRoot))
	for role, h := range map[string]Holders{
		RoleRoot: p.Root, RoleTargets: p.Targets, RoleSnapshot: p.Snapshot, RoleTimestamp: p.Timestamp,
	} {
		for _, pub := range h.Keys {
			k, err := metadata.KeyFromPublicKey(pub)
			if err == nil {
				err = root.Signed.AddKey(k, role)
			}
			if err != nil {
				return nil, nil, fault.Invalidf("a key of role %s is not usable", role).Because(err)
			}
		}
		root.Signed.Roles[role].Threshold = max(h.Threshold, 1)
	}
	targets := metadata.Targets(d.until(p.Lives, RoleTargets))
	if len(p.Uploads.Keys) > 0 {
		if err := delegate(targets, p.Uploads, p.UploadNames); err != nil {
			return nil, nil, err
		}
	}
	return root, targets, errors2(checked(root, func(b []byte) error { _, err := parseRoot(b); return err }),
		checked(targets, func(b []byte) error { _, err := parseTargets(b, RoleTargets); return err }))
}

// checked runs the reader's rules over what was made.
func checked[T metadata.Roles](m *metadata.Metadata[T], parse func([]byte) error) error {
	data, err := encode(m)
	if err == nil {
		err = parse(data)
	}
	if err != nil {
		return fault.Invalidf("%s", fault.Public(err)).Because(err)
	}
	return nil
}

func errors2(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// delegate gives names to the role of uploads.
func delegate(m *metadata.Metadata[metadata.TargetsType], h Holders, names []string) error {
	if len(names) == 0 {
		names = []string{"*"}
	}
	r := metadata.DelegatedRole{Name: RoleUploads, Threshold: max(h.Threshold, 1), Terminating: true, KeyIDs: []string{}}
	for _, n := range names {
		if _, err := path.Match(n, "x"); err != nil || n == "" || len(n) > 64 || strings.Contains(n, "/") {
			return fault.Invalidf("the name pattern %q is not well-formed; use for example acme-*", n)
		}
		r.Paths = append(r.Paths, n+"/*.spk")
	}
	known := map[string]*metadata.Key{}
	for _, pub := range h.Keys {
		k, err := metadata.KeyFromPublicKey(pub)
		if err != nil {
			return fault.Invalidf("a key of role %s is not usable", RoleUploads).Because(err)
		}
		id := KeyID(pub)
		known[id] = k
		r.KeyIDs = union(r.KeyIDs, []string{id})
	}
	m.Signed.Delegations = &metadata.Delegations{Keys: known, Roles: []metadata.DelegatedRole{r}}
	return nil
}

// Rekey is a change of who holds a role.
type Rekey struct {
	Role      string
	Add       []ed25519.PublicKey
	Remove    []string // ids, or beginnings of one that name it
	Threshold int      // 0 leaves it
	Names     []string // of uploads; none leaves them
}

// Rekey stages another root, or for uploads other targets, in which a role has
// other keys. The present holders of the root and the new ones must sign. If
// the keys of snapshot or timestamp change, clients forget which versions they
// saw: so a publisher recovers from a thief who drove them up.
func (d *Dir) Rekey(ctx context.Context, r Rekey, keys Keys) (Status, error) {
	return d.change(ctx, keys, func(c *content) (bool, error) {
		if r.Role == RoleUploads {
			return false, d.rekeyUploads(c, r)
		}
		if !topLevel(r.Role) {
			return false, fault.Invalidf("the roles are root, targets, snapshot, timestamp and uploads")
		}
		if err := d.draftRoot(c); err != nil {
			return false, err
		}
		s := &c.staged.Signed
		for _, pub := range r.Add {
			k, err := metadata.KeyFromPublicKey(pub)
			if err == nil {
				err = s.AddKey(k, r.Role)
			}
			if err != nil {
				return false, fault.Invalidf("the key is not usable").Because(err)
			}
		}
		for _, id := range r.Remove {
			full, err := named(s.Roles[r.Role].KeyIDs, id)
			if err != nil {
				return false, err
			}
			if err := s.RevokeKey(full, r.Role); err != nil {
				return false, fault.NotFoundf("role %s has no key %s", r.Role, id).Because(err)
			}
		}
		if r.Threshold > 0 {
			s.Roles[r.Role].Threshold = r.Threshold
		}
		if err := checked(c.staged, func(b []byte) error { _, err := parseRoot(b); return err }); err != nil {
			return false, err
		}
		return false, d.resign(c, r.Role)
	})
}

// resign stages the targets anew if their holders change: what the old ones
// signed does not count any more.
func (d *Dir) resign(c *content, role string) error {
	if role != RoleTargets || c.roles[RoleTargets] == nil {
		return nil
	}
	_, err := d.draft(c, RoleTargets)
	return err
}

func (d *Dir) rekeyUploads(c *content, r Rekey) error {
	m, err := d.draft(c, RoleTargets)
	if err != nil {
		return err
	}
	if m.Signed.Delegations == nil {
		if err := delegate(m, Holders{Keys: r.Add, Threshold: r.Threshold}, r.Names); err != nil {
			return err
		}
		c.pending[RoleUploads] = metadata.Targets(d.until(c.lives, RoleUploads))
		return checked(m, func(b []byte) error { _, err := parseTargets(b, RoleTargets); return err })
	}
	var have []ed25519.PublicKey
	role := m.Signed.Delegations.Roles[0]
	drop := map[string]bool{}
	for _, id := range r.Remove {
		full, err := named(role.KeyIDs, id)
		if err != nil {
			return err
		}
		drop[full] = true
	}
	for _, id := range role.KeyIDs {
		pub, err := m.Signed.Delegations.Keys[id].ToPublicKey()
		if raw, ok := pub.(ed25519.PublicKey); err == nil && ok && !drop[id] {
			have = append(have, raw)
		}
	}
	names := r.Names
	for _, p := range role.Paths {
		if len(r.Names) == 0 {
			names = append(names, strings.TrimSuffix(p, "/*.spk"))
		}
	}
	threshold := role.Threshold
	if r.Threshold > 0 {
		threshold = r.Threshold
	}
	if err := delegate(m, Holders{Keys: append(have, r.Add...), Threshold: threshold}, names); err != nil {
		return err
	}
	if err := checked(m, func(b []byte) error { _, err := parseTargets(b, RoleTargets); return err }); err != nil {
		return err
	}
	_, err = d.draft(c, RoleUploads)
	return err
}

// named is the one id that begins so.
func named(ids []string, begin string) (string, error) {
	found := ""
	for _, id := range ids {
		if strings.HasPrefix(id, begin) && len(begin) >= 8 {
			if found != "" {
				return "", fault.Invalidf("two keys begin with %s; give more of the id", begin)
			}
			found = id
		}
	}
	if found == "" {
		return "", fault.NotFoundf("the role has no key %s; see: sallyport plugin repository status", begin)
	}
	return found, nil
}

// draftRoot is the next root, to be changed and staged.
func (d *Dir) draftRoot(c *content) error {
	if c.root == nil && c.staged == nil {
		return fault.Internalf("the repository has no root")
	}
	if c.staged == nil {
		data, err := encode(c.root)
		if err != nil {
			return err
		}
		if c.staged, err = parseRoot(data); err != nil {
			return err
		}
		c.staged.Signed.Version++
	}
	c.staged.Signatures = []metadata.Signature{}
	c.staged.Signed.Expires = d.until(c.lives, RoleRoot)
	return nil
}
