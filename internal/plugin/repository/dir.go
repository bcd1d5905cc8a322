package repository

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Dir is a repository that a publisher, or a server that takes packages in,
// writes. Its methods are safe for concurrent use, also by several processes on
// one machine: each change holds the folder's lock. Every change is in this
// order: packages, then the metadata that names them, the timestamp last; a
// crash in between leaves the repository as it was.
//
// A change of what offline keys sign is prepared in the folder staged, gets its
// signatures one after the other, wherever the keys are, and is put in place
// when there are enough.
type Dir struct {
	path string
	now  func() time.Time
	// unwatched says that nobody looks at what waits before it is signed.
	unwatched bool
	// before, in tests, ends a change before a file is moved or removed.
	before func(name string) error
}

// Lives says for how long metadata is good after it was signed.
type Lives struct {
	Root, Targets, Snapshot, Timestamp time.Duration
}

// DefaultLives are those of a plan that names none: who loses sight of a
// repository notices after a day.
var DefaultLives = Lives{Root: 365 * day, Targets: 90 * day, Snapshot: 7 * day, Timestamp: day}

const day = 24 * time.Hour

func (l Lives) of(role string) time.Duration {
	switch role {
	case RoleRoot:
		return l.Root
	case RoleSnapshot:
		return l.Snapshot
	case RoleTimestamp:
		return l.Timestamp
	}
	return l.Targets
}

func (l Lives) validate() error {
	for _, d := range []time.Duration{l.Root, l.Targets, l.Snapshot, l.Timestamp} {
		if d < time.Minute || d > 10*365*day {
			return fault.Invalidf("metadata is good for at least a minute and at most ten years")
		}
	}
	return nil
}

// settings is repository.json: what only the publisher needs. Its lives are
// written as [ParseLife] reads them.
type settings struct {
	Lives struct {
		Root      string `json:"root"`
		Targets   string `json:"targets"`
		Snapshot  string `json:"snapshot"`
		Timestamp string `json:"timestamp"`
	} `json:"lives"`
}

func (l Lives) settings() settings {
	var s settings
	s.Lives.Root, s.Lives.Targets, s.Lives.Snapshot, s.Lives.Timestamp = l.Root.String(), l.Targets.String(), l.Snapshot.String(), l.Timestamp.String()
	return s
}

func (s settings) read() (l Lives, err error) {
	for _, m := range []struct {
		text string
		to   *time.Duration
	}{{s.Lives.Root, &l.Root}, {s.Lives.Targets, &l.Targets}, {s.Lives.Snapshot, &l.Snapshot}, {s.Lives.Timestamp, &l.Timestamp}} {
		if *m.to, err = ParseLife(m.text); err != nil {
			return l, err
		}
	}
	return l, l.validate()
}

// ParseLife reads a number of days (90d), or a duration such as 12h or 90m.
func ParseLife(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 3650 {
			return time.Duration(n) * day, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	return 0, fault.Invalidf("%.20q is no span of time such as 90d, 12h or 90m", text)
}

// Holders are the keys of one role, and how many of them must sign.
type Holders struct {
	Keys      []ed25519.PublicKey
	Threshold int // 1 if zero
}

// Plan is what a new repository begins with. Uploads may have no keys: then no
// server takes packages in.
type Plan struct {
	Lives                              Lives // zero: [DefaultLives]
	Root, Targets, Snapshot, Timestamp Holders
	Uploads                            Holders
	UploadNames                        []string // patterns of package names that uploads may have, as path.Match
}

// Open opens a repository that exists; NotFound otherwise. now is the clock,
// nil for the wall clock.
func Open(path string, now func() time.Time) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fault.Wrap(err, "resolve repository folder")
	}
	if now == nil {
		now = time.Now
	}
	d := &Dir{path: abs, now: now}
	if _, err := os.Stat(filepath.Join(abs, settingsFile)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.NotFoundf("%s is no repository; make one with: sallyport plugin repository init", path)
		}
		return nil, fault.Unavailablef("the repository %s cannot be read", path).Because(err)
	}
	return d, nil
}

// content is the metadata of a repository, and what is staged.
type content struct {
	lives  Lives
	root   *metadata.Metadata[metadata.RootType] // the newest in place
	staged *metadata.Metadata[metadata.RootType] // the next one, if it is being made

	timestamp *metadata.Metadata[metadata.TimestampType] // nil before the first
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	roles     map[string]*metadata.Metadata[metadata.TargetsType] // in place
	pending   map[string]*metadata.Metadata[metadata.TargetsType] // staged
}

// newest is the metadata of a role as it will be.
func (c *content) newest(role string) *metadata.Metadata[metadata.TargetsType] {
	if m := c.pending[role]; m != nil {
		return m
	}
	return c.roles[role]
}

// names lists the roles that offer packages, the top level first.
func (c *content) names() []string {
	names := []string{RoleTargets}
	if t := c.newest(RoleTargets); t != nil && t.Signed.Delegations != nil {
		for _, r := range t.Signed.Delegations.Roles {
			names = append(names, r.Name)
		}
	}
	return names
}

// load reads what is there. Signatures are checked where something is built on
// them. What waits has none yet: its holders are shown what it says (changes.go), and
// a server signs none that a stranger put there.
func (d *Dir) load() (*content, error) {
	c := &content{
		roles:   map[string]*metadata.Metadata[metadata.TargetsType]{},
		pending: map[string]*metadata.Metadata[metadata.TargetsType]{},
	}
	data, err := d.read(settingsFile, maxTimestamp)
	if err != nil {
		return nil, err
	}
	var s settings
	if err := canon.Strict(data, maxTimestamp, 3, &s); err != nil {
		return nil, fault.Wrap(err, "read %s", settingsFile)
	}
	if c.lives, err = s.read(); err != nil {
		return nil, err
	}
	if err := d.loadRoot(c); err != nil {
		return nil, err
	}
	if c.root == nil {
		return c, d.loadStaged(c)
	}
	if err := d.loadOnline(c); err != nil {
		return nil, err
	}
	return c, d.loadStaged(c)
}

func (d *Dir) loadRoot(c *content) error {
	for version := int64(1); ; version++ {
		data, err := d.read(metadataName(RoleRoot, version), maxRoot)
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		next, err := parseRoot(data)
		if err != nil {
			return err
		}
		by := next
		if c.root != nil {
			by = c.root
		}
		if err := errors.Join(by.VerifyDelegate(RoleRoot, next), next.VerifyDelegate(RoleRoot, next)); err != nil || next.Signed.Version != version {
			return malformed("the root", "version and signatures do not follow from the one before")
		}
		c.root = next
	}
}

// loadOnline reads timestamp, snapshot and what that names.
func (d *Dir) loadOnline(c *content) error {
	data, err := d.read(metadataName(RoleTimestamp, 0), maxTimestamp)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err == nil {
		c.timestamp, err = parseTimestamp(data)
	}
	if err != nil {
		return err
	}
	of := c.timestamp.Signed.Meta[RoleSnapshot+".json"]
	if data, err = d.read(metadataName(RoleSnapshot, of.Version), of.Length); err == nil {
		c.snapshot, err = parseSnapshot(data)
	}
	if err != nil {
		return err
	}
	top, err := d.loadRole(c, RoleTargets)
	if err != nil {
		return err
	}
	if err := c.root.VerifyDelegate(RoleTargets, top); err != nil {
		return judged(err, "the file of role targets")
	}
	if top.Signed.Delegations == nil {
		return nil
	}
	for _, r := range top.Signed.Delegations.Roles {
		m, err := d.loadRole(c, r.Name)
		if err != nil {
			return err
		}
		if err := top.VerifyDelegate(r.Name, m); err != nil {
			return judged(err, "the file of role "+r.Name)
		}
	}
	return nil
}

func (d *Dir) loadRole(c *content, role string) (*metadata.Metadata[metadata.TargetsType], error) {
	of := c.snapshot.Signed.Meta[role+".json"]
	if of == nil {
		return nil, malformed("the snapshot", "it does not name role "+role)
	}
	data, err := d.read(metadataName(role, of.Version), of.Length)
	if err != nil {
		return nil, err
	}
	if err := of.VerifyLengthHashes(data); err != nil {
		return nil, judged(err, "the file of role "+role)
	}
	m, err := parseTargets(data, role)
	if err == nil {
		c.roles[role] = m
	}
	return m, err
}

// loadStaged reads what waits for signatures. What is in place already, because
// a crash came before it was cleared away, does not wait.
func (d *Dir) loadStaged(c *content) error {
	if data, err := d.read(staged(RoleRoot), maxRoot); err == nil {
		if c.staged, err = parseRoot(data); err != nil {
			return err
		}
		if c.root != nil && c.staged.Signed.Version <= c.root.Signed.Version {
			c.staged = nil
		}
	} else if !fault.Is(err, fault.NotFound) {
		return err
	}
	for i := 0; i < len(c.names()); i++ { // staged targets may delegate to more
		role := c.names()[i]
		data, err := d.read(staged(role), maxTargets)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		m, err := parseTargets(data, role)
		if err != nil {
			return err
		}
		if now := c.roles[role]; now == nil || m.Signed.Version > now.Signed.Version {
			c.pending[role] = m
		}
	}
	return nil
}

func staged(role string) string { return stagedDir + "/" + role + ".json" }

// draft is the next version of a role, to be changed and staged: the one that is
// staged already, or a copy of the one in place. Its signatures are of no use
// any more.
func (d *Dir) draft(c *content, role string) (*metadata.Metadata[metadata.TargetsType], error) {
	m := c.pending[role]
	if m == nil {
		now := c.roles[role]
		if now == nil {
			return nil, fault.Conflictf("the repository has no role %s yet; finish what is staged first, see: sallyport plugin repository status", role)
		}
		data, err := encode(now)
		if err != nil {
			return nil, err
		}
		if m, err = parseTargets(data, role); err != nil {
			return nil, err
		}
		m.Signed.Version++
	}
	m.Signatures = []metadata.Signature{}
	m.Signed.Expires = d.until(c.lives, role)
	c.pending[role] = m
	return m, nil
}

// until is when metadata of a role that is signed now expires, in whole seconds
// as TUF writes them.
func (d *Dir) until(l Lives, role string) time.Time {
	return d.now().UTC().Add(l.of(role)).Truncate(time.Second)
}

// stage keeps what waits.
func (d *Dir) stage(c *content) error {
	if c.staged != nil {
		data, err := encode(c.staged)
		if err == nil {
			err = d.write(staged(RoleRoot), data)
		}
		if err != nil {
			return err
		}
	}
	for _, role := range c.names() {
		m := c.pending[role]
		if m == nil {
			continue
		}
		data, err := encode(m)
		if err == nil {
			err = d.write(staged(role), data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// union of key ids, in order.
func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, id := range b {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}
