package local

import (
	"crypto/ed25519"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// author is whose decisions these are.
const author = "you"

// Key is a key that the user decides to trust.
type Key struct {
	Publisher string
	Public    ed25519.PublicKey
	Names     []string   // patterns of package names; none means all
	Use       plugin.Use // empty: packages
	NotBefore time.Time
	Expires   time.Time // zero: never
}

// Trust lets a publisher's key sign packages, or trusts one that is known on
// other terms. The first key makes the publisher known.
func (h *Home) Trust(k Key) (plugin.Key, error) {
	if k.Use == "" {
		k.Use = plugin.UsePackage
	}
	if k.Use == plugin.UseAgentKMS {
		return plugin.Key{}, fault.Invalidf("executables that AgentKMS has signed are plugins of a server: --for server")
	}
	var row plugin.Key
	err := h.change(func(s *State) error {
		now := h.now().UTC()
		var err error
		if row, err = plugin.NewKey(k.Public, k.Publisher, k.Names, author, now); err != nil {
			return err
		}
		if row, err = row.Limited(k.Use, k.NotBefore, k.Expires); err != nil {
			return err
		}
		if _, err := s.publisher(k.Publisher); err != nil && k.Use != plugin.UseDevelopment {
			p, err := plugin.NewPublisher(k.Publisher, author, now)
			if err != nil {
				return err
			}
			s.Publishers = append(s.Publishers, p)
		}
		old := s.key(row.ID)
		if old == nil {
			s.Keys = append(s.Keys, row)
			return nil
		}
		row, err = old.Again(row)
		if err == nil {
			*old = row
		}
		return err
	})
	return row, err
}

// Distrust takes a key out of trust.
func (h *Home) Distrust(id string) error {
	return h.endKey(id, func(k plugin.Key, now time.Time) (plugin.Key, error) { return k.Remove(author, now) })
}

// Retire lets a key sign nothing new.
func (h *Home) Retire(id string) error {
	return h.endKey(id, func(k plugin.Key, now time.Time) (plugin.Key, error) { return k.Retire(author, now) })
}

// Revoke ends a key for ever.
func (h *Home) Revoke(id, reason string) error {
	return h.endKey(id, func(k plugin.Key, now time.Time) (plugin.Key, error) { return k.Revoke(reason, author, now) })
}

func (h *Home) endKey(id string, end func(plugin.Key, time.Time) (plugin.Key, error)) error {
	return h.change(func(s *State) error {
		k := s.key(id)
		if k == nil {
			return fault.NotFoundf("there is no trusted key %s; see: sallyport plugin trust list --for cli", id)
		}
		next, err := end(*k, h.now().UTC())
		if err == nil {
			*k = next
		}
		return err
	})
}

// Demand sets how many distinct keys of a publisher must have signed.
func (h *Home) Demand(publisher string, threshold int) error {
	return h.change(func(s *State) error {
		p, err := s.publisher(publisher)
		if err != nil {
			return err
		}
		next, err := p.Demand(threshold, s.Keys, author, h.now().UTC())
		if err == nil {
			*p = next
		}
		return err
	})
}

// Rotate applies a publisher's own statement which keys are its own.
func (h *Home) Rotate(statement []byte) (plugin.Rotated, error) {
	r, _, err := plugin.ReadRotation(statement)
	if err != nil {
		return plugin.Rotated{}, err
	}
	var out plugin.Rotated
	err = h.change(func(s *State) error {
		p, err := s.publisher(r.Publisher)
		if err != nil {
			return err
		}
		if out, err = p.Rotate(statement, s.Keys, author, h.now().UTC()); err != nil {
			return err
		}
		*p = out.Publisher
		for _, k := range out.Ended {
			*s.key(k.ID) = k
		}
		s.Keys = append(s.Keys, out.Added...)
		return nil
	})
	return out, err
}

// SetFloor demands a lowest version of a package; with lower it may go down.
func (h *Home) SetFloor(name, lowest string, lower bool) (plugin.Floor, error) {
	var row plugin.Floor
	err := h.change(func(s *State) error {
		var err error
		row, err = s.raise(name, lowest, plugin.ByOperator, lower, h.now().UTC())
		return err
	})
	return row, err
}

func (s *State) raise(name, lowest, origin string, lower bool, now time.Time) (plugin.Floor, error) {
	i := slices.IndexFunc(s.Floors, func(f plugin.Floor) bool { return f.Name == name })
	var old *plugin.Floor
	if i >= 0 {
		old = &s.Floors[i]
	}
	row, err := plugin.RaiseFloor(old, name, lowest, origin, lower, author, now)
	switch {
	case err != nil:
	case old != nil:
		*old = row
	default:
		s.Floors = append(s.Floors, row)
	}
	return row, err
}

func (s *State) publisher(name string) (*plugin.Publisher, error) {
	for i := range s.Publishers {
		if s.Publishers[i].Name == name {
			return &s.Publishers[i], nil
		}
	}
	return nil, fault.NotFoundf("no publisher %s is trusted for the command line; see: sallyport plugin trust list --for cli", name)
}

func (s *State) key(id string) *plugin.Key {
	for i := range s.Keys {
		if s.Keys[i].ID == id {
			return &s.Keys[i]
		}
	}
	return nil
}
