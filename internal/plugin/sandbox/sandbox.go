// Package sandbox confines plugin processes on Linux: it fills plugin.Sandbox.
//
// A confined plugin has no new privileges and no capabilities; namespaces of its
// own for users, processes, mounts, network, IPC and names; a file system that
// holds nothing but what it was granted; Landlock over that, a list of the
// system calls that it may make, limits of resources, and a cgroup where the
// server was given one. Everything is set up by a launcher, a list of system
// calls that the host writes for each start (loop_linux.go); the host's part is
// in box_linux.go.
//
// What the kernel allows is found out once, by doing it (probe_linux.go).
// docs/plugins/sandbox.md says what is confined by what, and what is not.
package sandbox

import "log/slog"

// Mode says what is done where something cannot be confined.
type Mode string

// The modes.
const (
	// Required starts no plugin without no_new_privs, Landlock, seccomp and
	// limits of resources.
	Required Mode = "required"
	// Preferred confines as far as the host allows, and says what is missing.
	Preferred Mode = "preferred"
)

// Config has the settings of a sandbox.
type Config struct {
	Mode Mode // default: Preferred
	// Private are files and folders of the server, absolute. No plugin is given
	// them, whatever its manifest declares, nor a folder that they lie in.
	Private []string
	Log     *slog.Logger // default: discard
}
