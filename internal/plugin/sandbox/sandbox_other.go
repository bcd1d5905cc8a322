//go:build !linux || (!amd64 && !arm64)

package sandbox

import (
	"context"
	"os/exec"
	"runtime"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Sandbox confines nothing on this system.
type Sandbox struct{ mode Mode }

var _ plugin.Sandbox = (*Sandbox)(nil)

// New makes a sandbox that says that there is none here.
func New(c Config) (*Sandbox, error) { return &Sandbox{c.Mode}, nil }

// Name is what status shows.
func (s *Sandbox) Name() string { return "off: plugins are confined on Linux only, on amd64 and arm64" }

// Missing is what this host does not allow, one entry a line of the log.
func (s *Sandbox) Missing() []string { return []string{s.Name()} }

// Lacks names what the mode required demands and this host has not.
func (s *Sandbox) Lacks() string { return "sandbox" }

// MountsTree is false: the host fills folders.
func (s *Sandbox) MountsTree() bool { return false }

// Prepare refuses, or changes nothing.
func (s *Sandbox) Prepare(_ context.Context, plan plugin.SandboxPlan, _ *exec.Cmd) (plugin.Box, error) {
	if s.mode == Required {
		return nil, plugin.Unconfined(nil, "plugin %s cannot be confined on %s/%s, and plugins.sandbox is required",
			plan.Plugin, runtime.GOOS, runtime.GOARCH)
	}
	return nil, nil //nolint:nilnil // no box
}

// Close does nothing.
func (s *Sandbox) Close() error { return nil }
