package plugin

import (
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Repository is a plugin repository that an operator pinned, and what was last
// seen of it: a row of table repositories. What was seen is kept here, where no
// plugin can write, so that an older state is refused also after a restart and
// on another replica.
type Repository struct {
	Name    string `json:"name"` // the row's id
	Version int64  `json:"-"`    // of the row
	// URL is where a client fetches: https, http on loopback, or the path of a
	// folder on the client's machine. The server never fetches.
	URL string `json:"url"`
	// Seen is the trusted metadata (TUF).
	Seen   Seen      `json:"seen"`
	State  RowState  `json:"state"`
	At     time.Time `json:"at"`
	Author string    `json:"author"`
}

// Seen is the metadata by which the next one is judged: the root, which an
// operator pinned and which may have been rotated since, and the last timestamp
// and snapshot, which are absent until the first use.
type Seen struct {
	Root      []byte `json:"root"`
	Timestamp []byte `json:"timestamp,omitempty"`
	Snapshot  []byte `json:"snapshot,omitempty"`
}

// View is a repository at one moment, verified.
type View struct {
	Seen     Seen
	Releases []Release        // by name, the newest first
	Versions map[string]int64 // of the roles
	Expires  time.Time        // when the first of its files expires
}

// Release is one package that a repository offers.
type Release struct {
	Name             string   `json:"name"`
	Version          string   `json:"version"`
	Digest           string   `json:"digest"` // of the package, as [Digest]
	Publisher        string   `json:"publisher"`
	Roles            []string `json:"roles"`
	Kinds            []string `json:"kinds"`
	Summary          string   `json:"summary,omitempty"`
	MinSecureVersion string   `json:"min_secure_version,omitempty"`
	Yanked           string   `json:"yanked,omitempty"` // why it must not be installed any more
	Size             int64    `json:"size"`             // of the file
	SHA256           string   `json:"sha256"`           // of the file, lower-case hex
	Role             string   `json:"role"`             // which role of the repository vouches for it
}

// NewRepository makes the row for a repository that an operator pins. A name or
// place that is not well-formed is Invalid. The root is the caller's to judge.
func NewRepository(name, place string, root []byte, author string, now time.Time) (Repository, error) {
	if !manifest.ValidName(name) {
		return Repository{}, fault.Invalidf("a repository's name must be lower-case letters, digits and inner hyphens, at most 64")
	}
	if !filepath.IsAbs(place) || strings.ContainsFunc(place, func(r rune) bool { return r < ' ' }) {
		if err := ValidRepositoryURL(place); err != nil {
			return Repository{}, err
		}
	}
	if len(place) > 1024 {
		return Repository{}, fault.Invalidf("the address of a repository must have at most 1024 bytes")
	}
	return Repository{
		Name: name, Version: 1, URL: place, Seen: Seen{Root: root}, State: Active, At: now, Author: author,
	}, nil
}

// ValidRepositoryURL refuses what is not an https URL without user, query and
// fragment. http is for loopback alone: metadata protects itself, but who reads
// along learns what runs here.
func ValidRepositoryURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return fault.Invalidf("a repository is an https URL without user, query and fragment, or the absolute path of a folder")
	}
	switch host := u.Hostname(); {
	case u.Scheme == "https", host == "localhost", host == "::1", strings.HasPrefix(host, "127.") && strings.Trim(host, "0123456789.") == "":
		return nil
	}
	return fault.Invalidf("a repository is read by https; http is for loopback alone")
}

// See is the row in its next version, with what was seen now.
func (r Repository) See(s Seen, now time.Time) Repository {
	r.Version, r.Seen, r.At = r.Version+1, s, now
	return r
}

// Remove is the row in its next version, no longer used. One that was removed
// already is a Conflict.
func (r Repository) Remove(author string, now time.Time) (Repository, error) {
	if r.State != Active {
		return Repository{}, fault.Conflictf("the repository %s was removed already", r.Name)
	}
	r.Version, r.State, r.At, r.Author = r.Version+1, Removed, now, author
	return r, nil
}

// Table names the store's table.
func (Repository) Table() string { return "repositories" }

// Columns gives the row: id (name), version, url, root, timestamp, snapshot,
// state, at (microseconds), author.
func (r Repository) Columns() []any {
	return []any{
		r.Name, r.Version, r.URL, string(r.Seen.Root), string(r.Seen.Timestamp), string(r.Seen.Snapshot),
		string(r.State), unit.Micros(r.At), r.Author,
	}
}

// Scan fills the row from columns in the order of [Repository.Columns].
func (r *Repository) Scan(scan unit.Scanner) error {
	var root, timestamp, snapshot, state string
	var at int64
	if err := scan(&r.Name, &r.Version, &r.URL, &root, &timestamp, &snapshot, &state, &at, &r.Author); err != nil {
		return err
	}
	r.Seen = Seen{Root: raw(root), Timestamp: raw(timestamp), Snapshot: raw(snapshot)}
	r.State, r.At = RowState(state), unit.Moment(at)
	return nil
}

func raw(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

// Offers demands that a package is the one that a release describes. The fault
// is Denied, with a reason.
func (r Release) Offers(e Entry) error {
	m := e.Manifest
	switch {
	case m.Name != r.Name || m.Version != r.Version || m.Publisher != r.Publisher:
		return refuse(ReasonDigest, "the repository offers %s %s of %s, and the package says that it is %s %s of %s",
			r.Name, r.Version, r.Publisher, m.Name, m.Version, m.Publisher)
	case e.Digest != r.Digest:
		return refuse(ReasonDigest, "the repository offers another content of %s %s than the package has", r.Name, r.Version)
	}
	return nil
}

// Installable refuses a release that was withdrawn, or that another release of
// the same name declares insecure. all is everything that the repository offers.
func (r Release) Installable(all []Release) error {
	if r.Yanked != "" {
		return refuse(ReasonRevoked, "%s %s was withdrawn by the repository: %s", r.Name, r.Version, r.Yanked)
	}
	if floor := SecureVersion(all, r.Name); floor != "" && manifest.CompareVersions(r.Version, floor) < 0 {
		return refuse(ReasonRollback, "%s %s is older than %s, the least version that its publisher calls secure", r.Name, r.Version, floor)
	}
	return nil
}

// SecureVersion is the least version of a name that its releases call secure,
// empty if none says so. What a release demands goes on when it is withdrawn.
func SecureVersion(all []Release, name string) string {
	floor := ""
	for _, o := range all {
		if o.Name == name && o.MinSecureVersion != "" && (floor == "" || manifest.CompareVersions(o.MinSecureVersion, floor) > 0) {
			floor = o.MinSecureVersion
		}
	}
	return floor
}
