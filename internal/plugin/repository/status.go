package repository

import (
	"context"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Status is how a repository does, for its publisher.
type Status struct {
	Roles    []RoleStatus     `json:"roles"`
	Staged   []StagedStatus   `json:"staged"` // what waits for signatures
	Releases []plugin.Release `json:"releases"`
	Reason   plugin.Reason    `json:"reason"` // OK, METADATA_STALE, or INCOMPATIBLE for one that is not complete yet
	// Due is when the first of its files expires; Refresh by then.
	Due time.Time `json:"due,omitzero"`
}

// RoleStatus is one role.
type RoleStatus struct {
	Role      string    `json:"role"`
	Version   int64     `json:"version"` // 0 before the first
	Expires   time.Time `json:"expires,omitzero"`
	Threshold int       `json:"threshold"`
	Keys      []string  `json:"keys"`
	Names     []string  `json:"names,omitempty"` // paths that a delegated role may use
}

// StagedStatus is metadata that waits.
type StagedStatus struct {
	Role    string   `json:"role"`
	Version int64    `json:"version"`
	Signed  []string `json:"signed"`  // keys whose signatures are there
	Missing []string `json:"missing"` // keys that may still sign
	Needed  int      `json:"needed"`  // how many more must
	Changes []string `json:"changes"` // what would be new
}

// Status reads how the repository does.
func (d *Dir) Status(ctx context.Context) (Status, error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return Status{}, err
	}
	defer unlock()
	c, err := d.load()
	if err == nil {
		err = c.begun()
	}
	if err != nil {
		return Status{}, err
	}
	return d.describe(c)
}

func (d *Dir) describe(c *content) (Status, error) {
	s := Status{Roles: []RoleStatus{}, Staged: []StagedStatus{}, Releases: []plugin.Release{}, Reason: plugin.ReasonIncompatible}
	root := c.root
	if root == nil {
		root = c.staged
	}
	add := func(role string, version int64, expires time.Time, ids []string, threshold int, names []string) {
		s.Roles = append(s.Roles, RoleStatus{Role: role, Version: version, Expires: expires, Threshold: threshold, Keys: ids, Names: names})
		if version > 0 && (s.Due.IsZero() || expires.Before(s.Due)) {
			s.Due = expires
		}
	}
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		var version int64
		var expires time.Time
		switch {
		case role == RoleRoot && c.root != nil:
			version, expires = c.root.Signed.Version, c.root.Signed.Expires
		case role == RoleTimestamp && c.timestamp != nil:
			version, expires = c.timestamp.Signed.Version, c.timestamp.Signed.Expires
		case role == RoleSnapshot && c.snapshot != nil:
			version, expires = c.snapshot.Signed.Version, c.snapshot.Signed.Expires
		case role == RoleTargets && c.roles[role] != nil:
			version, expires = c.roles[role].Signed.Version, c.roles[role].Signed.Expires
		}
		r := root.Signed.Roles[role]
		add(role, version, expires, r.KeyIDs, r.Threshold, nil)
	}
	if t := c.newest(RoleTargets); t != nil && t.Signed.Delegations != nil {
		for _, r := range t.Signed.Delegations.Roles {
			var version int64
			var expires time.Time
			if m := c.roles[r.Name]; m != nil {
				version, expires = m.Signed.Version, m.Signed.Expires
			}
			add(r.Name, version, expires, r.KeyIDs, r.Threshold, r.Paths)
		}
	}
	if err := c.describeReleases(&s); err != nil {
		return Status{}, err
	}
	c.describeStaged(&s)
	if c.timestamp != nil {
		if s.Reason = plugin.ReasonOK; !d.now().Before(s.Due) {
			s.Reason = plugin.ReasonStale
		}
	}
	return s, nil
}

func (c *content) describeReleases(s *Status) error {
	for _, role := range c.names() {
		if m := c.roles[role]; m != nil {
			more, err := releases(m, role, nil)
			if err != nil {
				return err
			}
			s.Releases = merge(s.Releases, more)
		}
	}
	s.Releases = sorted(s.Releases)
	return nil
}

func (c *content) describeStaged(s *Status) {
	if n := c.staged; n != nil {
		ids := n.Signed.Roles[RoleRoot].KeyIDs
		need := missingSignatures(n.Signatures, ids, n.Signed.Roles[RoleRoot].Threshold)
		if c.root != nil {
			old := c.root.Signed.Roles[RoleRoot]
			need = max(need, missingSignatures(n.Signatures, old.KeyIDs, old.Threshold))
			ids = union(ids, old.KeyIDs)
		}
		signed, missing := split(n.Signatures, ids)
		s.Staged = append(s.Staged, StagedStatus{
			Role: RoleRoot, Version: n.Signed.Version, Signed: signed, Missing: missing, Needed: need, Changes: c.rootChanges(),
		})
	}
	for _, role := range c.names() {
		m := c.pending[role]
		if m == nil {
			continue
		}
		ids, threshold := c.keysOf(role)
		signed, missing := split(m.Signatures, ids)
		s.Staged = append(s.Staged, StagedStatus{
			Role: role, Version: m.Signed.Version, Signed: signed, Missing: missing,
			Needed: missingSignatures(m.Signatures, ids, threshold), Changes: c.changes(role, m),
		})
	}
}

func split(have []metadata.Signature, ids []string) (signed, missing []string) {
	signed, missing = []string{}, []string{}
	for _, id := range ids {
		if contains(have, id) {
			signed = append(signed, id)
		} else {
			missing = append(missing, id)
		}
	}
	return signed, missing
}

func contains(have []metadata.Signature, id string) bool {
	for _, s := range have {
		if s.KeyID == id {
			return true
		}
	}
	return false
}

func missingSignatures(have []metadata.Signature, ids []string, threshold int) int {
	for _, id := range ids {
		if contains(have, id) {
			threshold--
		}
	}
	return max(threshold, 0)
}
