package repository

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// settle signs everything that waits with the keys at hand, and puts in place
// what is complete. What is not complete stays staged, with the signatures it
// has. fresh makes a new snapshot and timestamp in any case.
func (d *Dir) settle(c *content, keys Keys, fresh bool) error {
	rotated, err := d.settleRoot(c, keys)
	if err != nil {
		return err
	}
	ready, err := d.settleRoles(c, keys)
	if err != nil {
		return err
	}
	if err := d.stage(c); err != nil {
		return err
	}
	switch {
	case c.root == nil:
		return nil
	case len(ready) == 0 && !rotated && !fresh:
		return nil
	case c.snapshot == nil && !slices.Contains(ready, RoleTargets):
		return nil // there is nothing to take a snapshot of
	}
	if !c.held(keys, RoleSnapshot) || !c.held(keys, RoleTimestamp) {
		if fresh {
			return fault.Invalidf("the keys of %s are not at hand: name them with --keys FOLDER or --key FILE", c.missing(keys, RoleSnapshot, RoleTimestamp))
		}
		return nil
	}
	return d.publish(c, keys, ready)
}

// settleRoot puts the next root in place if both the present and the next
// holders agree (TUF 6.1).
func (d *Dir) settleRoot(c *content, keys Keys) (rotated bool, err error) {
	next := c.staged
	if next == nil {
		return false, nil
	}
	ids := next.Signed.Roles[RoleRoot].KeyIDs
	if c.root != nil {
		ids = union(ids, c.root.Signed.Roles[RoleRoot].KeyIDs)
	}
	if _, err := sign(next, keys, ids); err != nil {
		return false, err
	}
	if next.VerifyDelegate(RoleRoot, next) != nil || c.root != nil && c.root.VerifyDelegate(RoleRoot, next) != nil {
		return false, nil //nolint:nilerr // waits for more signatures
	}
	data, err := encode(next)
	if err == nil {
		err = d.write(metadataName(RoleRoot, next.Signed.Version), data)
	}
	if err == nil {
		err = d.remove(staged(RoleRoot))
	}
	if err != nil {
		return false, err
	}
	c.root, c.staged = next, nil
	return true, nil
}

// settleRoles signs what offers packages, and lists what is complete. New
// targets wait for their holders, and meanwhile delegated roles go on under
// those in place; they also wait until what they delegate to is signed by the
// keys that they name.
func (d *Dir) settleRoles(c *content, keys Keys) (ready []string, err error) {
	top := c.roles[RoleTargets]
	if next := c.pending[RoleTargets]; next != nil {
		ids, _ := c.keysOf(RoleTargets)
		if _, err := sign(next, keys, ids); err != nil {
			return nil, err
		}
		if c.root != nil && c.root.VerifyDelegate(RoleTargets, next) == nil {
			top, ready = next, []string{RoleTargets}
		}
	}
	whole := true
	for _, role := range c.names()[1:] {
		m := c.pending[role]
		if m != nil {
			if _, err := sign(m, keys, union(delegatedTo(c.newest(RoleTargets), role), delegatedTo(top, role))); err != nil {
				return nil, err
			}
			if top != nil && top.VerifyDelegate(role, m) == nil {
				ready = append(ready, role)
				continue
			}
		}
		whole = whole && c.roles[role] != nil && top != nil && top.VerifyDelegate(role, c.roles[role]) == nil
	}
	if c.root == nil || !whole && slices.Contains(ready, RoleTargets) {
		return nil, nil
	}
	return ready, nil
}

func delegatedTo(m *metadata.Metadata[metadata.TargetsType], role string) []string {
	if m != nil && m.Signed.Delegations != nil {
		for _, r := range m.Signed.Delegations.Roles {
			if r.Name == role {
				return r.KeyIDs
			}
		}
	}
	return nil
}

// held reports whether the keys at hand are enough for a role.
func (c *content) held(keys Keys, role string) bool {
	ids, threshold := c.keysOf(role)
	n := 0
	for _, id := range ids {
		if keys[id] != nil {
			n++
		}
	}
	return threshold > 0 && n >= threshold
}

// publish writes what is complete, then a snapshot of it, then the timestamp,
// with which it begins to count.
func (d *Dir) publish(c *content, keys Keys, ready []string) error {
	meta := map[string]*metadata.MetaFiles{}
	version := int64(1)
	if c.snapshot != nil {
		version = c.snapshot.Signed.Version + 1
		for file, of := range c.snapshot.Signed.Meta {
			meta[file] = of
		}
	}
	for _, role := range ready {
		m := c.pending[role]
		data, err := encode(m)
		if err == nil {
			err = d.write(metadataName(role, m.Signed.Version), data)
		}
		if err != nil {
			return err
		}
		meta[role+".json"] = describe(m.Signed.Version, data)
		c.roles[role] = m
	}
	snapshot := metadata.Snapshot(d.until(c.lives, RoleSnapshot))
	snapshot.Signed.Version, snapshot.Signed.Meta = version, meta
	data, err := d.online(c, keys, RoleSnapshot, snapshot)
	if err != nil {
		return err
	}
	return d.stamp(c, keys, snapshot, data, ready)
}

// stamp writes the timestamp, and clears away what waited.
func (d *Dir) stamp(c *content, keys Keys, snapshot *metadata.Metadata[metadata.SnapshotType], data []byte, ready []string) error {
	timestamp := metadata.Timestamp(d.until(c.lives, RoleTimestamp))
	if c.timestamp != nil {
		timestamp.Signed.Version = c.timestamp.Signed.Version + 1
	}
	timestamp.Signed.Meta = map[string]*metadata.MetaFiles{RoleSnapshot + ".json": describe(snapshot.Signed.Version, data)}
	ids, _ := c.keysOf(RoleTimestamp)
	if _, err := sign(timestamp, keys, ids); err != nil {
		return err
	}
	out, err := encode(timestamp)
	if err == nil {
		err = d.write(metadataName(RoleTimestamp, 0), out)
	}
	if err != nil {
		return err
	}
	c.snapshot, c.timestamp = snapshot, timestamp
	for _, role := range ready {
		delete(c.pending, role)
		if err := d.remove(staged(role)); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) online(c *content, keys Keys, role string, m *metadata.Metadata[metadata.SnapshotType]) ([]byte, error) {
	ids, _ := c.keysOf(role)
	if _, err := sign(m, keys, ids); err != nil {
		return nil, err
	}
	data, err := encode(m)
	if err == nil {
		err = d.write(metadataName(role, m.Signed.Version), data)
	}
	return data, err
}

func describe(version int64, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	m := metadata.MetaFile(version)
	m.Length, m.Hashes = int64(len(data)), metadata.Hashes{"sha256": sum[:]}
	return m
}

// missing names those of the roles whose keys are not at hand.
func (c *content) missing(keys Keys, roles ...string) string {
	return strings.Join(slices.DeleteFunc(roles, func(role string) bool { return c.held(keys, role) }), " and ")
}

// due reports whether metadata is in the second half of its life.
func due(expires time.Time, life time.Duration, now time.Time) bool {
	return expires.Sub(now) < life/2
}
