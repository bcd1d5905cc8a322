package plugin

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Lock is what a lock file holds: all that may run on a server, exactly.
type Lock struct {
	Schema  string   `json:"schema"`
	Plugins []Locked `json:"plugins"` // sorted by name
}

// Locked is one package of a lock.
type Locked struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Digest  string   `json:"digest"`
	KeyIDs  []string `json:"key_ids"` // who had signed, for people; the digest decides
}

// LockSchema names the format of a lock file.
const LockSchema = "sallyport.plugins.lock/v1"

const maxLock = 1 << 20

// LockOf is the lock of what is installed. Equal rows give an equal lock.
func LockOf(rows []Installed) Lock {
	l := Lock{Schema: LockSchema, Plugins: []Locked{}}
	for _, r := range rows {
		if r.State == Active {
			l.Plugins = append(l.Plugins, Locked{r.Name, r.Package, r.Digest, append([]string{}, r.KeyIDs...)})
		}
	}
	slices.SortFunc(l.Plugins, func(a, b Locked) int { return strings.Compare(a.Name, b.Name) })
	return l
}

// Bytes encodes a lock for its file.
func (l Lock) Bytes() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(l); err != nil {
		return nil, fault.Internalf("encode lock").Because(err)
	}
	return b.Bytes(), nil
}

// ParseLock reads a lock file strictly. Faults are Invalid.
func ParseLock(data []byte) (Lock, error) {
	var l Lock
	if err := canon.Strict(data, maxLock, 4, &l); err != nil {
		return Lock{}, fault.Wrap(err, "read lock file")
	}
	if l.Schema != LockSchema {
		return Lock{}, fault.Invalidf("the schema of a lock file must be %q; write one with: sallyport plugin lock", LockSchema)
	}
	seen := map[string]bool{}
	for _, p := range l.Plugins {
		if _, ok := hexDigest(p.Digest); !ok || !manifest.ValidName(p.Name) || !manifest.ValidVersion(p.Version) || seen[p.Name] {
			return Lock{}, fault.Invalidf("the lock file names %q twice, or with a version or digest that is none; write it anew with: sallyport plugin lock", clip(p.Name, 64))
		}
		seen[p.Name] = true
	}
	return l, nil
}

// Digests are what may run, by name, as [Trust.Locked].
func (l Lock) Digests() map[string]string {
	out := map[string]string{}
	for _, p := range l.Plugins {
		out[p.Name] = p.Digest
	}
	return out
}

// Drift reports in what the installed packages are not those of the lock, in
// either direction. The fault is Denied with [ReasonNotLocked], names all, and
// says what to do.
func (l Lock) Drift(rows []Installed) error {
	var found []string
	installed := map[string]Installed{}
	unread := map[string]bool{} // which run in no case, and are refused by name
	for _, r := range rows {
		if r.State == Active {
			installed[r.Name] = r
		}
		unread[r.Name] = r.State == Unread
	}
	for _, p := range l.Plugins {
		r, ok := installed[p.Name]
		delete(installed, p.Name)
		switch {
		case unread[p.Name]:
		case !ok:
			found = append(found, p.Name+" "+p.Version+" is locked and not installed")
		case r.Digest != p.Digest:
			found = append(found, p.Name+" is locked as "+p.Version+" ("+p.Digest+") and installed as "+r.Package+" ("+r.Digest+")")
		}
	}
	for _, r := range installed {
		found = append(found, r.Name+" "+r.Package+" is installed and not locked")
	}
	if len(found) == 0 {
		return nil
	}
	slices.Sort(found)
	return refuse(ReasonNotLocked, "the plugins are not those of the lock file: %s. Start without plugins.lock, mend it by installing or removing, "+
		"write the lock anew (sallyport plugin lock), and start with it again", strings.Join(found, "; "))
}
