package repository

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Holders of keys sign what they are shown here. One of them may be a thief, or the
// folder may have been in a stranger's hands: so everything is shown that a
// signature would say, and of what cannot be shown that it is there.

const unknownChange = "something that this program cannot show: do not sign it"

// changes are what staged metadata of packages says otherwise than what is in place.
func (c *content) changes(role string, next *metadata.Metadata[metadata.TargetsType]) []string {
	now := c.roles[role]
	if now == nil {
		now = metadata.Targets(time.Time{})
	}
	before, err := releases(now, role, nil)
	if err != nil {
		return []string{"it cannot be compared with what is in place: do not sign it"}
	}
	after, err := releases(next, role, nil)
	if err != nil {
		return []string{"it cannot be read: do not sign it"}
	}
	old := map[string]plugin.Release{}
	for _, r := range before {
		old[targetPath(r.Name, r.Version)] = r
	}
	out := []string{}
	for _, r := range sorted(after) {
		path := targetPath(r.Name, r.Version)
		if was, there := old[path]; there {
			more := otherwise(was, r)
			if len(more) == 0 && !sameForm(now.Signed.Targets[path], next.Signed.Targets[path]) {
				more = []string{"describe " + r.Name + " " + r.Version + " otherwise"}
			}
			out = append(out, more...)
		} else {
			out = append(out, added(r)...)
		}
		delete(old, path)
	}
	for _, r := range sorted(before) {
		if path := targetPath(r.Name, r.Version); old[path].Name != "" {
			out = append(out, "leave out "+path)
		}
	}
	out = append(out, delegations(now.Signed.Delegations, next.Signed.Delegations)...)
	if len(out) == 0 && !sameForm(rest(now.Signed), rest(next.Signed)) {
		out = append(out, unknownChange)
	}
	return out
}

// added is a package that was not there.
func added(r plugin.Release) []string {
	out := []string{"add " + r.Name + " " + r.Version + " " + r.Digest}
	if r.Yanked != "" {
		out = []string{"withdraw " + r.Name + " " + r.Version + ": " + r.Yanked}
	}
	if r.MinSecureVersion != "" {
		out = append(out, r.Name+" "+r.Version+" calls "+r.MinSecureVersion+" the least secure version")
	}
	return out
}

// otherwise is what is said otherwise of a package that is there.
func otherwise(was, r plugin.Release) []string {
	name := r.Name + " " + r.Version
	var out []string
	if r.SHA256 != was.SHA256 || r.Digest != was.Digest || r.Size != was.Size {
		out = append(out, "REPLACE "+name+" by another content "+r.Digest)
	}
	switch {
	case r.Yanked != "" && r.Yanked != was.Yanked:
		out = append(out, "withdraw "+name+": "+r.Yanked)
	case r.Yanked == "" && was.Yanked != "":
		out = append(out, "OFFER AGAIN "+name+", which was withdrawn: "+was.Yanked)
	}
	if r.Publisher != was.Publisher {
		out = append(out, "say that "+name+" is of publisher "+r.Publisher+", not "+was.Publisher)
	}
	if r.MinSecureVersion != was.MinSecureVersion {
		out = append(out, name+" calls "+orNone(r.MinSecureVersion)+" the least secure version, not "+orNone(was.MinSecureVersion))
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// delegations are what is given to other roles, and taken from them.
func delegations(was, now *metadata.Delegations) []string {
	old, next := delegated(was), delegated(now)
	var out []string
	for _, name := range union(names(old), names(next)) {
		a, b := old[name], next[name]
		out = append(out, holders(name, a.KeyIDs, b.KeyIDs, a.Threshold, b.Threshold)...)
		for _, path := range missingFrom(a.Paths, b.Paths) {
			out = append(out, "give "+path+" to role "+name)
		}
		for _, path := range missingFrom(b.Paths, a.Paths) {
			out = append(out, "take "+path+" from role "+name)
		}
	}
	if len(out) == 0 && !sameForm(was, now) {
		out = append(out, unknownChange)
	}
	return out
}

func delegated(d *metadata.Delegations) map[string]metadata.DelegatedRole {
	out := map[string]metadata.DelegatedRole{}
	if d != nil {
		for _, r := range d.Roles {
			out[r.Name] = r
		}
	}
	return out
}

func names(roles map[string]metadata.DelegatedRole) []string {
	var out []string
	for name := range roles {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// holders are the changes of who has a role.
func holders(role string, was, now []string, before, after int) []string {
	var out []string
	for _, id := range missingFrom(was, now) {
		out = append(out, "give role "+role+" to key "+id)
	}
	for _, id := range missingFrom(now, was) {
		out = append(out, "take role "+role+" from key "+id)
	}
	if before != after {
		out = append(out, "role "+role+" needs "+strconv.Itoa(after)+" signatures, not "+strconv.Itoa(before))
	}
	return out
}

// missingFrom are those of a list that another one does not have.
func missingFrom(list, of []string) []string {
	return slices.DeleteFunc(slices.Clone(of), func(s string) bool { return slices.Contains(list, s) })
}

// rootChanges are what the next root says otherwise than the one in place.
func (c *content) rootChanges() []string {
	next := c.staged.Signed
	now := metadata.Root(time.Time{}).Signed
	if c.root != nil {
		now = c.root.Signed
	}
	out := []string{}
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		a, b := now.Roles[role], next.Roles[role]
		if c.root == nil {
			a = &metadata.Role{}
		}
		out = append(out, holders(role, a.KeyIDs, b.KeyIDs, a.Threshold, b.Threshold)...)
	}
	return append(out, "good until "+next.Expires.UTC().Format(time.RFC3339))
}

// rest is metadata of packages without what grows by itself.
func rest(s metadata.TargetsType) metadata.TargetsType {
	s.Version, s.Expires = 1, time.Time{}
	return s
}

// sameForm reports whether two values have the same canonical form, by which they
// are signed.
func sameForm(a, b any) bool {
	x, err := cjson.EncodeCanonical(a)
	y, wrong := cjson.EncodeCanonical(b)
	return err == nil && wrong == nil && bytes.Equal(x, y)
}

// distrust forgets what waits for signatures of the keys at hand and is neither
// signed by one of them already nor offers just what is offered now: nobody looks at
// it before a server signs, and whoever writes its folder does not have its keys.
func (c *content) distrust(keys Keys) {
	for _, role := range c.names()[1:] {
		m, now := c.pending[role], c.roles[role]
		if m == nil || signedBy(m, keys) || now == nil && len(m.Signed.Targets) == 0 || now != nil && sameForm(rest(m.Signed), rest(now.Signed)) {
			continue
		}
		delete(c.pending, role)
	}
}

// signedBy reports whether one of some keys has signed.
func signedBy(m *metadata.Metadata[metadata.TargetsType], keys Keys) bool {
	mine := m.Signatures
	again := &metadata.Metadata[metadata.TargetsType]{Signed: m.Signed}
	for id := range keys {
		if _, err := sign(again, keys, []string{id}); err != nil {
			return false
		}
		for _, s := range again.Signatures {
			if slices.ContainsFunc(mine, func(o metadata.Signature) bool {
				return o.KeyID == s.KeyID && hex.EncodeToString(o.Signature) == hex.EncodeToString(s.Signature)
			}) {
				return true
			}
		}
	}
	return false
}
