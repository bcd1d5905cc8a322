// Package local is the plugins of one user's command line: whom this user
// trusts, which packages of role cli are installed, and the store of their files.
//
// It makes the decisions that a server's operators make in a ledgered database,
// by the same functions of package plugin, for one user on one machine: the rows
// lie in one file that this user alone can write, and no record is kept. Whoever
// can write it is the user.
//
// Reading opens that file and nothing else; files of packages are opened by
// [Home.Tool] alone, and judged again each time.
package local

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Schema names the format of the file.
const Schema = "sallyport.plugins.local/v1"

const (
	stateFile = "plugins.json"
	lockFile  = "plugins.lock" // what alone may run, if it is there; see plugin.Lock
	storeDir  = "store"
	maxState  = 64 << 20
	depth     = 10
)

// Tool is an installed package, with what it adds to the command line.
type Tool struct {
	plugin.Installed
	Commands []manifest.Command `json:"commands"`
	// Capabilities are what the user accepted, as the manifest says it.
	Capabilities manifest.Capabilities `json:"capabilities"`
}

// State is everything that was decided.
type State struct {
	Schema        string                `json:"schema"`
	Publishers    []plugin.Publisher    `json:"publishers"`
	Keys          []plugin.Key          `json:"keys"`
	Floors        []plugin.Floor        `json:"floors"`
	Tools         []Tool                `json:"tools"`
	Installations []plugin.Installation `json:"installations"`
	Repositories  []plugin.Repository   `json:"repositories"`
}

// Home is the folder of a command line's plugins. Its methods may be called by
// several processes at a time.
type Home struct {
	dir string
	now func() time.Time
}

// At is the home in a folder, which need not exist: nothing is read or made.
func At(dir string, now func() time.Time) *Home { return &Home{dir: dir, now: now} }

// Read reads what was decided; nothing, if there is no file. A file that is
// damaged is Internal; one that others can write is Denied with
// [plugin.ReasonUnsafe].
func (h *Home) Read() (State, error) {
	path := filepath.Join(h.dir, stateFile)
	text, err := plugin.ReadPrivate(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Schema: Schema}, nil
	}
	if err != nil {
		return State{}, err
	}
	var s State
	if err := canon.Strict(text, maxState, depth, &s); err != nil || s.Schema != Schema {
		return State{}, fault.Internalf("%s is damaged: restore it, or remove it and install the CLI plugins again", path).Because(err)
	}
	return s, nil
}

// Change reads, lets do change, and writes, while no other process does. An error
// of do is returned as it is, and changes nothing.
func (h *Home) change(do func(*State) error) error {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return fault.Unavailablef("the folder of CLI plugins cannot be made").Because(err)
	}
	unlock, err := plugin.LockFolder(h.dir)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := h.Read()
	if err != nil {
		return err
	}
	if err := do(&s); err != nil {
		return err
	}
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return fault.Internalf("encode plugins").Because(err)
	}
	return plugin.WritePrivate(filepath.Join(h.dir, stateFile), append(text, '\n'))
}

func (h *Home) store() (*plugin.Store, error) {
	return plugin.OpenToolStore(filepath.Join(h.dir, storeDir))
}

// Trust is by what packages are judged here.
func (h *Home) trust(s State) (plugin.Trust, error) {
	t := plugin.Trust{Thresholds: map[string]int{}, Floors: map[string]string{}, Development: true, Now: h.now}
	for _, p := range s.Publishers {
		t.Thresholds[p.Name] = p.Threshold
	}
	for _, k := range s.Keys {
		if _, known := t.Thresholds[k.Publisher]; known || k.Use == plugin.UseDevelopment {
			t.Keys = append(t.Keys, k)
		}
	}
	for _, f := range s.Floors {
		t.Floors[f.Name] = f.Lowest
	}
	text, err := plugin.ReadPrivate(filepath.Join(h.dir, lockFile), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return plugin.Trust{}, err
	}
	lock, err := plugin.ParseLock(text)
	t.Locked = lock.Digests()
	return t, err
}

// LockPath is the file that, if it is there, says what alone may run.
func (h *Home) LockPath() string { return filepath.Join(h.dir, lockFile) }

// Active are the installed packages, by name.
func (s State) Active() []Tool {
	out := slices.DeleteFunc(slices.Clone(s.Tools), func(t Tool) bool { return t.State != plugin.Active })
	slices.SortFunc(out, func(a, b Tool) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// find is the row of a name in whatever state, nil if there is none.
func (s State) find(name string) *Tool {
	for i := range s.Tools {
		if s.Tools[i].Name == name {
			return &s.Tools[i]
		}
	}
	return nil
}

// Tool judges an installed package anew and makes its program ready to run.
func (h *Home) Tool(name string) (*plugin.Tool, Tool, error) {
	s, err := h.Read()
	if err != nil {
		return nil, Tool{}, err
	}
	row := s.find(name)
	if row == nil || row.State != plugin.Active {
		return nil, Tool{}, notInstalled(name)
	}
	trust, err := h.trust(s)
	if err != nil {
		return nil, *row, err
	}
	store, err := h.store()
	if err != nil {
		return nil, *row, err
	}
	t, err := store.Tool(row.Digest, trust)
	if err == nil && (t.Manifest.Name != row.Name || t.Manifest.Version != row.Package) {
		t.Close()
		return nil, *row, plugin.Refuse(plugin.ReasonIncompatible, "the record of plugin %s does not describe the package that it names", name)
	}
	return t, *row, err
}

func notInstalled(name string) error {
	return fault.NotFoundf("no plugin %q is installed for the command line; see: sallyport plugin list --for cli", name)
}
