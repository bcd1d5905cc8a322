package plugin

import "time"

// Status is what an operator sees of one installed plugin.
type Status struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Publisher string    `json:"publisher"`
	Digest    string    `json:"digest"`
	Contract  string    `json:"contract"`
	Roles     []string  `json:"roles"`
	Kinds     []string  `json:"kinds"`
	State     State     `json:"state"`
	Reason    Reason    `json:"reason"`
	Detail    string    `json:"detail,omitempty"`
	Sandbox   string    `json:"sandbox"` // name of the sandbox, or "off"
	PID       int       `json:"pid,omitempty"`
	Since     time.Time `json:"since"`
	Starts    int       `json:"starts"`
	Crashes   int       `json:"crashes"`
	InFlight  int       `json:"in_flight"`
	Calls     uint64    `json:"calls"`
	Failures  uint64    `json:"failures"` // calls that failed for the plugin's reasons
}

// Status describes every installed plugin, sorted by name.
func (h *Host) Status() []Status {
	routes := h.table.Load().routes
	out := make([]Status, 0, len(routes))
	for _, r := range routes {
		out = append(out, r.status(h.cfg.Sandbox))
	}
	return out
}

func (r *route) status(box Sandbox) Status {
	s := Status{
		Name: r.row.Name, Version: r.row.Package, Publisher: r.row.Publisher, Digest: r.row.Digest,
		Contract: r.row.Offer.Contract, Roles: r.row.Offer.Roles, Kinds: r.row.Offer.Kinds,
		State: Refused, Reason: r.reason, Detail: r.detail, Sandbox: "off", Since: r.row.At,
		Calls: r.called.Load(), Failures: r.failed.Load(),
	}
	if box != nil {
		s.Sandbox = box.Name()
	}
	if r.life == nil {
		return s
	}
	l := r.life
	l.mu.Lock()
	defer l.mu.Unlock()
	s.State, s.Reason, s.Detail, s.Since = l.state, l.reason, l.detail, l.since
	s.Starts, s.Crashes, s.InFlight = l.starts, l.crashes, l.calls
	if l.current != nil {
		s.PID = l.current.proc.pid()
	}
	return s
}
