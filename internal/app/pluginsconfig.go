package app

import (
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Plugins says how this server runs its plugins.
type Plugins struct {
	// Scale is how wide plugins run on this node, by their names; those that are
	// not named run by the defaults.
	Scale map[string]Scale `yaml:"scale"`
}

// Scale is how wide one plugin runs. A member that is not given, or 0, is the
// default of [plugin.Scale].
type Scale struct {
	Instances   int `yaml:"instances"`   // processes, 1 to 32
	Concurrency int `yaml:"concurrency"` // calls in flight over all of them, at most 16384
	Queue       int `yaml:"queue"`       // calls that may wait for their turn, at most 65536
}

// validate refuses what the machine could not mean.
func (p Plugins) validate() error {
	for name, s := range p.Scale {
		for _, m := range []struct {
			name        string
			value, most int
		}{{"instances", s.Instances, 32}, {"concurrency", s.Concurrency, 16 << 10}, {"queue", s.Queue, 64 << 10}} {
			if m.value < 0 || m.value > m.most {
				return fault.Invalidf("plugins.scale: %s of %s must be 1 to %d", m.name, name, m.most)
			}
		}
	}
	return nil
}

func (p Plugins) scale() map[string]plugin.Scale {
	out := make(map[string]plugin.Scale, len(p.Scale))
	for name, s := range p.Scale {
		out[name] = plugin.Scale(s)
	}
	return out
}
