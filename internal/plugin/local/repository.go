package local

import (
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Pin adds a repository by its root, which the caller has judged.
func (h *Home) Pin(name, place string, root []byte) (plugin.Repository, error) {
	var row plugin.Repository
	err := h.change(func(s *State) error {
		var err error
		if row, err = plugin.NewRepository(name, place, root, author, h.now().UTC()); err != nil {
			return err
		}
		if s.Repository(name) != nil {
			return fault.Conflictf("there is a repository %s already; remove it first, or choose another name", name)
		}
		s.Repositories = append(s.Repositories, row)
		return nil
	})
	return row, err
}

// Unpin forgets a repository, and what was seen of it.
func (h *Home) Unpin(name string) error {
	return h.change(func(s *State) error {
		for i, r := range s.Repositories {
			if r.Name == name {
				s.Repositories = append(s.Repositories[:i], s.Repositories[i+1:]...)
				return nil
			}
		}
		return noRepository(name)
	})
}

// See lets walk judge a repository by what was seen of it before, and remembers
// what it sees now. Nobody else does so meanwhile.
func (h *Home) See(name string, walk func(plugin.Seen) (plugin.View, error)) (plugin.Repository, plugin.View, error) {
	var row plugin.Repository
	var view plugin.View
	err := h.change(func(s *State) error {
		r := s.Repository(name)
		if r == nil {
			return noRepository(name)
		}
		var err error
		if view, err = walk(r.Seen); err != nil {
			return err
		}
		*r = r.See(view.Seen, h.now().UTC())
		row = *r
		return nil
	})
	return row, view, err
}

// Repository is the pinned repository of a name, nil if there is none.
func (s *State) Repository(name string) *plugin.Repository {
	for i := range s.Repositories {
		if s.Repositories[i].Name == name {
			return &s.Repositories[i]
		}
	}
	return nil
}

func noRepository(name string) error {
	return fault.NotFoundf("there is no repository %s for the command line; see: sallyport plugin repository list --for cli", name)
}
