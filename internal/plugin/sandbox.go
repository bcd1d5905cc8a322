package plugin

import (
	"context"
	"os"
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
	// MountsTree says that Prepare itself puts the files of a [SandboxTree] in
	// place, in a mount that nobody outside can reach. Otherwise the host fills
	// the folder before, and the sandbox only lets the process read it.
	MountsTree() bool
}

// SandboxPlan is what a sandbox needs to know.
type SandboxPlan struct {
	Plugin       string
	Capabilities manifest.Capabilities
	SocketDir    string // the one folder that the plugin must be able to write
	// Tree is the folder from which a package of many files runs; nil for a
	// package that is one executable.
	Tree *SandboxTree
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
