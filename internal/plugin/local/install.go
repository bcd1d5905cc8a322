package local

import (
	"io"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Request says what is to be installed, and what the user has agreed to.
type Request struct {
	Digest         string // of the package that was shown; empty takes what comes
	AllowDowngrade bool
	Repository     string // where it comes from; empty for a file
	// Accept has a word on the verified package; nil accepts it.
	Accept func(plugin.Entry) error
	// Taken says what a command's name means already, empty if it is free: a
	// plugin shadows nothing.
	Taken func(command string) string
}

// Install verifies a package by the user's trust, unpacks what is for the command
// line, and adds its commands. Installing what is installed repairs its files and
// changes nothing else. Faults are those of [plugin.Store.Install] and
// [plugin.CheckUpgrade], and Conflict for a command whose name is taken.
func (h *Home) Install(pack io.Reader, r Request) (Tool, error) {
	store, err := h.store()
	if err != nil {
		return Tool{}, err
	}
	before, err := h.Read()
	if err != nil {
		return Tool{}, err
	}
	trust, err := h.trust(before)
	if err != nil {
		return Tool{}, err
	}
	e, err := store.Install(pack, trust)
	if err == nil && r.Digest != "" && r.Digest != e.Digest {
		err = plugin.Unlike(e, r.Digest)
	}
	if err == nil && r.Accept != nil {
		err = r.Accept(e)
	}
	if err != nil {
		return Tool{}, err
	}
	return h.put(store, e.Digest, r)
}

// Rollback puts a package in place that was installed before: the version named,
// else the newest that is older than the present one.
func (h *Home) Rollback(name, version string, taken func(string) string) (Tool, error) {
	s, err := h.Read()
	if err != nil {
		return Tool{}, err
	}
	row := s.find(name)
	if row == nil {
		return Tool{}, notInstalled(name)
	}
	before, err := plugin.Earlier(s.Installations, row.Installed, version)
	if err != nil {
		return Tool{}, err
	}
	store, err := h.store()
	if err != nil {
		return Tool{}, err
	}
	return h.put(store, before.Digest, Request{AllowDowngrade: true, Taken: taken})
}

// put makes a package of the store the installed one of its name. It is judged
// by what is trusted while nobody else changes that.
func (h *Home) put(store *plugin.Store, digest string, r Request) (Tool, error) {
	var out Tool
	err := h.change(func(s *State) error {
		trust, err := h.trust(*s)
		if err != nil {
			return err
		}
		e, err := store.Verify(digest, trust)
		if err != nil {
			return err
		}
		old, now := s.find(e.Manifest.Name), h.now().UTC()
		if old != nil && old.State == plugin.Active && old.Digest == digest {
			out = *old
			return nil
		}
		var was *plugin.Installed
		if old != nil {
			row := old.Installed
			if row.State == plugin.Removed {
				row.Publisher = "" // a command line keeps nothing of a plugin that another publisher must not have
			}
			was = &row
		}
		row, err := plugin.NewInstalled(e, was, author, now)
		if err != nil {
			return err
		}
		row.Asks = plugin.Asks(e.Manifest, manifest.ForCLI)
		out = Tool{Installed: row, Commands: e.Manifest.CommandList(), Capabilities: e.Manifest.Capabilities}
		if err := plugin.CheckUpgrade(was, row, r.AllowDowngrade); err != nil {
			return err
		}
		if err := s.free(out, r.Taken); err != nil {
			return err
		}
		if old != nil {
			*old = out
		} else {
			s.Tools = append(s.Tools, out)
		}
		s.remember(row, r.Repository)
		return s.secure(e, now)
	})
	return out, err
}

// free demands that nothing else has the names of a package's commands.
func (s *State) free(next Tool, taken func(string) string) error {
	for _, c := range next.Commands {
		if taken != nil {
			if by := taken(c.Name); by != "" {
				return plugin.Taken("plugin %s would shadow %s: its command %s cannot be installed", next.Name, by, c.Name)
			}
		}
		for _, t := range s.Active() {
			for _, o := range t.Commands {
				if t.Name != next.Name && o.Name == c.Name {
					return plugin.Taken("plugin %s and plugin %s both have a command %s; remove one of them", t.Name, next.Name, c.Name)
				}
			}
		}
	}
	return nil
}

func (s *State) remember(row plugin.Installed, repository string) {
	i := slices.IndexFunc(s.Installations, func(i plugin.Installation) bool { return i.Digest == row.Digest })
	if i < 0 {
		s.Installations = append(s.Installations, plugin.Remember(row, repository, nil))
		return
	}
	s.Installations[i] = plugin.Remember(row, repository, &s.Installations[i])
}

// secure raises the lowest version to what a package demands.
func (s *State) secure(e plugin.Entry, now time.Time) error {
	lowest := e.Manifest.MinSecureVersion
	if lowest == "" {
		return nil
	}
	_, err := s.raise(e.Manifest.Name, lowest, e.Digest, false, now)
	if fault.Is(err, fault.Conflict) { // as much is demanded already
		return nil
	}
	return err
}

// Remove takes a plugin out: its commands are gone at once. Its files stay for a
// rollback.
func (h *Home) Remove(name string) error {
	return h.change(func(s *State) error {
		row := s.find(name)
		if row == nil {
			return notInstalled(name)
		}
		next, err := row.Remove(author, h.now().UTC())
		if err == nil {
			row.Installed = next
		}
		return err
	})
}
