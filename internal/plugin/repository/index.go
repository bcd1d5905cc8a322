package repository

import (
	"encoding/hex"
	"sort"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// releases reads what one role offers. A delegated role must stay within its
// paths: what lies outside is an attempt at something, and refused as a whole.
func releases(m *metadata.Metadata[metadata.TargetsType], role string, within *metadata.DelegatedRole) ([]plugin.Release, error) {
	what := "the file of role " + role
	out := make([]plugin.Release, 0, len(m.Signed.Targets))
	for path, t := range m.Signed.Targets {
		if within != nil {
			if ok, err := within.IsDelegatedPath(path); err != nil || !ok {
				return nil, plugin.Refuse(plugin.ReasonBadSignature, "role %s of the repository offers packages whose names it was not given", role)
			}
		}
		r, why := release(path, t, role)
		if why != "" {
			return nil, malformed(what, why)
		}
		out = append(out, r)
	}
	return out, nil
}

// release reads one target; why says what is wrong with it.
func release(path string, t *metadata.TargetFiles, role string) (r plugin.Release, why string) {
	name, version, ok := splitTarget(path)
	if !ok {
		return r, "it lists a path that is not NAME/VERSION.spk"
	}
	sum := t.Hashes["sha256"]
	if len(t.Hashes) != 1 || len(sum) != 32 || t.Length < 1 || t.Length > MaxPackage {
		return r, "a package must have a SHA-256, and a length of at most 256 MiB"
	}
	c, ok := parseCustom(t.Custom)
	switch {
	case !ok:
		return r, "a package has no description that can be read"
	case c.Name != name || c.Version != version:
		return r, "a package is described under another name or version than its path has"
	case !strings.HasPrefix(c.Digest, "sha256:") || !digestPattern.MatchString(strings.TrimPrefix(c.Digest, "sha256:")) || !manifest.ValidName(c.Publisher):
		return r, "a package is described without its digest or publisher"
	case c.MinSecureVersion != "" && !manifest.ValidVersion(c.MinSecureVersion):
		return r, "a package demands a version that is none"
	case !plain(c.Summary) || !plain(c.Yanked) || !plain(c.Roles...) || !plain(c.Kinds...) || len(c.Roles) > 64 || len(c.Kinds) > 64:
		return r, "a package is described by more than short printable text"
	}
	return plugin.Release{
		Name: c.Name, Version: c.Version, Digest: c.Digest, Publisher: c.Publisher, Roles: c.Roles, Kinds: c.Kinds, Summary: c.Summary,
		MinSecureVersion: c.MinSecureVersion, Yanked: c.Yanked, Size: t.Length, SHA256: hex.EncodeToString(sum), Role: role,
	}, ""
}

// plain reports whether texts can be shown on a terminal.
func plain(texts ...string) bool {
	for _, s := range texts {
		if len(s) > 400 || strings.ContainsFunc(s, func(r rune) bool {
			return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd || r == 0x2028 || r == 0x2029
		}) {
			return false
		}
	}
	return true
}

// merge adds what a role offers to what those before it offer: who comes first
// has the word on a name and version, as in TUF's search.
func merge(before, more []plugin.Release) []plugin.Release {
	seen := map[string]bool{}
	for _, r := range before {
		seen[targetPath(r.Name, r.Version)] = true
	}
	for _, r := range more {
		if !seen[targetPath(r.Name, r.Version)] {
			before = append(before, r)
		}
	}
	return before
}

// sorted orders releases by name, the newest first.
func sorted(list []plugin.Release) []plugin.Release {
	sort.Slice(list, func(i, j int) bool {
		if list[i].Name != list[j].Name {
			return list[i].Name < list[j].Name
		}
		if c := manifest.CompareVersions(list[i].Version, list[j].Version); c != 0 {
			return c > 0
		}
		return list[i].Version > list[j].Version
	})
	return list
}

// Find is the release of a name in a version, or without one the newest that
// may be installed and is no pre-release. It is NotFound if there is none, and
// Denied if there are some that must not be installed.
func Find(all []plugin.Release, name, version string) (plugin.Release, error) {
	var refused error
	for _, r := range sorted(append([]plugin.Release(nil), all...)) {
		if r.Name != name || version != "" && r.Version != version {
			continue
		}
		err := r.Installable(all)
		switch {
		case err != nil:
			refused = err
		case version != "" || !strings.Contains(r.Version, "-"):
			return r, nil
		}
	}
	if refused != nil {
		return plugin.Release{}, refused
	}
	return plugin.Release{}, notOffered(name, version)
}
