//go:build !linux || (!amd64 && !arm64)

package sandbox

import (
	"os/exec"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// ToolReport says that tools are not confined here.
func ToolReport() string {
	return "off: CLI plugins are confined on Linux only, on amd64 and arm64; here they read what you read"
}

// ToolWeakness is ToolReport.
func ToolWeakness() string { return ToolReport() }

// Start starts a program of the command line. The function that is returned waits
// for its end, and must be called.
func (t Tool) Start(cmd *exec.Cmd) (wait func() error, err error) {
	if err := cmd.Start(); err != nil {
		return nil, plugin.Unconfined(err, "plugin %s cannot be started", t.Plugin)
	}
	return cmd.Wait, nil
}
