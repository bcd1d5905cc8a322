//go:build amd64 || arm64

package sandbox

import "log/slog"

// Weaken makes a sandbox as it is on a host without namespaces, as Kubernetes
// and Docker are by default.
func (s *Sandbox) Weaken() {
	s.can.spaces, s.can.dropUser = false, false
	s.can.miss("namespaces", "the test took them away")
}

// Take makes a sandbox as it is on a host without Landlock.
func (s *Sandbox) Take() {
	s.can.landlock = landlock{}
	s.can.miss("landlock", "the test took it away")
}

// Age makes a sandbox as it is on a kernel whose Landlock has no scopes.
func (s *Sandbox) Age() { s.can.landlock.Scoped = 0 }

// HeldBy is what a process and its descendants hold.
func HeldBy(pid int) (rough, exact int64) {
	rough, _ = held(pid, roughly)
	exact, _ = held(pid, exactly)
	return rough, exact
}

// LogTo makes a sandbox write to the log of a test.
func (s *Sandbox) LogTo(l *slog.Logger) { s.log = l }
