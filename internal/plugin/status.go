package plugin

import "time"

// Status is what an operator sees of one installed plugin.
type Status struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Publisher string    `json:"publisher"`
	Digest    string    `json:"digest"`
	SignedFor Use       `json:"signed_for"` // package, agentkms (legacy) or development
	Contract  string    `json:"contract"`
	Roles     []string  `json:"roles"`
	Kinds     []string  `json:"kinds"`
	State     State     `json:"state"`
	Reason    Reason    `json:"reason"`
	Detail    string    `json:"detail,omitempty"`
	Sandbox   string    `json:"sandbox"`       // what confines it and what does not, or "off"
	PID       int       `json:"pid,omitempty"` // of the first process that serves
	Since     time.Time `json:"since"`
	Starts    int       `json:"starts"`
	Crashes   int       `json:"crashes"`
	InFlight  int       `json:"in_flight"`
	Waiting   int       `json:"waiting"` // calls that wait for their turn
	Calls     uint64    `json:"calls"`
	Failures  uint64    `json:"failures"` // calls that failed for the plugin's reasons
	// Interpreter ran its last process; nil for what needs none, and before the
	// first start.
	Interpreter *Interpreter `json:"interpreter,omitempty"`
	// Announced is what a plugin of agentkms.plugin.v1 says that it can do; nil if it
	// says nothing.
	Announced *Announced `json:"announced,omitempty"`
	// Instances are its processes; none for a plugin that must not run.
	Instances []Instance `json:"instances,omitempty"`
}

// Instance is one process of a plugin, or its place while there is none.
type Instance struct {
	State    State     `json:"state"`
	Reason   Reason    `json:"reason"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"`
	Starts   int       `json:"starts"`
	Crashes  int       `json:"crashes"`
	InFlight int       `json:"in_flight"`
}

// Status describes every installed plugin, sorted by name.
func (h *Host) Status() []Status {
	routes := h.table.Load().routes
	out := make([]Status, 0, len(routes))
	for _, r := range routes {
		s := r.status(h.cfg.Sandbox)
		s.Interpreter = h.interpreter(r.name())
		out = append(out, s)
	}
	return out
}

func (r *route) status(box Sandbox) Status {
	s := Status{
		Name: r.row.Name, Version: r.row.Package, Publisher: r.row.Publisher, Digest: r.row.Digest, SignedFor: r.row.Use,
		Contract: r.row.Offer.Contract, Roles: r.row.Offer.Roles, Kinds: r.row.Offer.Kinds,
		State: Refused, Reason: r.reason, Detail: r.detail, Sandbox: "off", Since: r.row.At,
		Calls: r.called.Load(), Failures: r.failed.Load(),
	}
	if box != nil {
		s.Sandbox = box.Name()
	}
	if r.pool != nil {
		r.pool.describe(&s, func(i *instance) int {
			if i.proc.box != nil {
				s.Sandbox = i.proc.box.Report()
			}
			s.Announced = i.announced
			return i.proc.pid()
		})
	}
	return s
}

// rank orders states by how much of a plugin still works.
var rank = map[State]int{Stopped: 0, Refused: 1, Broken: 2, Idle: 3, Pausing: 4, Starting: 5, Ready: 6}

// describe fills in what the processes of a plugin do. The plugin's own state is
// that of the best one; its reason is the first that is not OK, so that a plugin
// that serves with fewer processes than it should says so.
func (p *pool[W]) describe(s *Status, pid func(W) int) {
	s.Waiting = int(p.waiting.Load())
	p.mu.Lock()
	defer p.mu.Unlock()
	s.State, s.Reason, s.Detail, s.InFlight = Stopped, ReasonOK, "", p.calls
	for n, l := range p.lives {
		i := Instance{State: l.state, Reason: l.reason, Since: l.since, Starts: l.starts, Crashes: l.crashes, InFlight: l.calls}
		if l.running {
			i.PID = pid(l.current)
		}
		if n == 0 || rank[l.state] > rank[s.State] {
			s.State, s.Since = l.state, l.since
		}
		if s.Reason == ReasonOK {
			s.Reason, s.Detail = l.reason, l.detail
		}
		if s.PID == 0 {
			s.PID = i.PID
		}
		s.Starts, s.Crashes = s.Starts+l.starts, s.Crashes+l.crashes
		s.Instances = append(s.Instances, i)
	}
}
