package manifest

import "fmt"

// Services are what the host does for the plugin while it runs. Whatever is not
// asked for here, and agreed to at install, is denied.
type Services struct {
	Log      bool     `json:"log,omitempty"`      // lines in the server's log
	KV       bool     `json:"kv,omitempty"`       // a key-value space of its own
	Database bool     `json:"database,omitempty"` // a database of its own
	Events   bool     `json:"events,omitempty"`   // events of its own in the ledger
	Signals  bool     `json:"signals,omitempty"`  // report leaks: what matches is revoked
	Vend     []string `json:"vend,omitempty"`     // credentials of these kinds, as policy allows
}

// The names of services, as a Welcome has them.
const (
	ServiceLog      = "log"
	ServiceKV       = "kv"
	ServiceDatabase = "database"
	ServiceEvents   = "events"
	ServiceSignals  = "signals"
	ServiceVend     = "vend"
)

// Names lists what is asked for, by name.
func (s *Services) Names() []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, one := range []struct {
		name  string
		asked bool
	}{
		{ServiceLog, s.Log},
		{ServiceKV, s.KV},
		{ServiceDatabase, s.Database},
		{ServiceEvents, s.Events},
		{ServiceSignals, s.Signals},
		{ServiceVend, len(s.Vend) > 0},
	} {
		if one.asked {
			out = append(out, one.name)
		}
	}
	return out
}

// VendKinds are the kinds of credential that are asked for.
func (s *Services) VendKinds() []string {
	if s == nil {
		return nil
	}
	return s.Vend
}

func (m Manifest) validateServices() error {
	s := m.Capabilities.Services
	switch {
	case s == nil:
		return nil
	case m.Contract != ContractSallyport:
		return fmt.Errorf("capabilities.services needs contract %s", ContractSallyport)
	case len(s.Vend) > maxKinds || twice(s.Vend):
		return fmt.Errorf("capabilities.services.vend must name at most %d kinds, each once", maxKinds)
	}
	for _, k := range s.Vend {
		if !ValidKind(k) {
			return fmt.Errorf("capabilities.services.vend: %s must be lower-case letters, digits, dots and hyphens", clip(k))
		}
		if contains(m.Kinds, k) {
			return fmt.Errorf("capabilities.services.vend: %s is of the package's own kinds", clip(k))
		}
	}
	return nil
}
