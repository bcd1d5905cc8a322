package plugin

import (
	"context"
	"os/exec"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// Sandbox confines a plugin process before it runs. It is the seam for
// namespaces, Landlock and seccomp; this package has no implementation, and
// without one [Status.Sandbox] says "off".
type Sandbox interface {
	// Name is shown in status.
	Name() string
	// Prepare changes the command that will be started. Its error keeps the
	// plugin from starting. release is called after the process has ended.
	Prepare(ctx context.Context, plan SandboxPlan, cmd *exec.Cmd) (release func(), err error)
}

// SandboxPlan is what a sandbox needs to know.
type SandboxPlan struct {
	Plugin       string
	Capabilities manifest.Capabilities
	SocketDir    string // the one folder that the plugin must be able to write
}
