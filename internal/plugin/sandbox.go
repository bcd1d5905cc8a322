package plugin

import (
	"context"
	"net"
	"os"
	"os/exec"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Sandbox confines plugin processes before they run. Package sandbox fills it;
// without one, [Status.Sandbox] says "off". It must be safe for concurrent use.
type Sandbox interface {
	// Name is shown for plugins that do not run: what a start would get.
	Name() string
	// Prepare changes the command that will be started. Its error keeps the
	// plugin from starting; see [Unconfined].
	Prepare(ctx context.Context, plan SandboxPlan, cmd *exec.Cmd) (Box, error)
	// MountsTree says that Prepare itself puts the files of a [SandboxTree] in
	// place, in a mount that nobody outside can reach. Otherwise the host fills
	// the folder before, and the sandbox only lets the process read it.
	MountsTree() bool
}

// SandboxPlan is what a sandbox needs to know of a start. What runs is the file
// at the command's path, opened before the start.
type SandboxPlan struct {
	Plugin       string
	Capabilities manifest.Capabilities
	SocketDir    string // the one folder that the plugin must be able to write
	// Tree is the folder from which a package of many files runs; nil for a
	// package that is one executable.
	Tree *SandboxTree
	// Loopback says that the plugin may serve on TCP: it gets a loopback
	// interface of its own where that is possible; see [Box].Dial.
	Loopback bool
}

// SandboxTree is the private folder of a package of many files. The process may
// read and execute everything below Dir and write nothing there. cmd.Path is then
// the interpreter, through a descriptor of the host as an image is, or the
// command below Dir; cmd.Args name Dir.
type SandboxTree struct {
	Dir string // absolute; exists, and is empty if the sandbox mounts the tree
	// Image is a sealed memory file with what belongs below Dir: an uncompressed
	// tar archive of regular files alone, of modes 0755 and 0644, sorted by path,
	// whose folders are implied (0755). It was verified, and nobody can change it.
	// A sandbox that mounts the tree makes a tmpfs at Dir that allows execution
	// (native modules are mapped), unpacks Image, and makes the mount read-only.
	Image *os.File
	// Interpreter is the real path of the program that runs Command; empty: the
	// command is an executable of the package. It, what it is linked with, and
	// its library (for Python: the folders lib/pythonX.Y beside its bin) must be
	// readable.
	Interpreter string
}

// Box is one confined start. Release is called in any case, and last.
type Box interface {
	// Report says what confines the process, and what does not and why.
	Report() string
	// UID is the user that the kernel shows for the process.
	UID() int
	// Confirm is called once after the start, and returns the process, a child of
	// ours, when it is confined and executes the plugin: the command's own, or one
	// that it made and that has taken its place. After an error none is left.
	Confirm(ctx context.Context) (*os.Process, error)
	// Private reports whether the plugin's loopback interface is its own, where
	// nobody but Dial can reach it.
	Private() bool
	// Dial connects to a port of that interface.
	Dial(ctx context.Context, address string) (net.Conn, error)
	// Release gives back what the start needed, after the process has ended.
	Release()
}

// Unconfined makes the error of a sandbox that cannot give what is demanded:
// Denied with [ReasonSandbox]. The cause is logged and not shown; it may be nil.
func Unconfined(cause error, format string, args ...any) error {
	return &reasoned{fault.Deniedf(format, args...).Because(cause), ReasonSandbox}
}
