//go:build linux && (amd64 || arm64)

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// cgroup is the part of the cgroup tree (version 2) that the server was given:
// its own group, with nobody else in it, which it may write. The server moves
// into a group below, as the kernel demands of a group that has groups with
// limits, and each plugin gets one beside it.
type cgroup struct {
	dir string
}

// The controllers that are used.
var controllers = []string{"memory", "pids", "cpu"}

// The server's own group, below the one that it was given.
const serverGroup = "sallyport-server"

// openCgroup finds and prepares the group, below the root of a file system. The
// error says why there is none.
func openCgroup(root string) (*cgroup, error) {
	dir, err := ownCgroup(root)
	if err != nil {
		return nil, err
	}
	if filepath.Base(dir) == serverGroup { // a server before us went in there
		dir = filepath.Dir(dir)
	}
	offered, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers")) //nolint:gosec // of the cgroup file system
	if err != nil {
		return nil, errors.New("this process is in no cgroup of version 2")
	}
	for _, c := range controllers[:2] {
		if !slices.Contains(strings.Fields(string(offered)), c) {
			return nil, fmt.Errorf("the server's cgroup has no %s controller", c)
		}
	}
	if unix.Access(filepath.Join(dir, "cgroup.subtree_control"), unix.W_OK) != nil {
		return nil, errors.New("the server's cgroup is not delegated to it (systemd: Delegate=yes)")
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); err != nil {
		return nil, errors.New("the server is in the root cgroup, which has no limits")
	}
	return delegate(dir, strings.Fields(string(offered)))
}

// ownCgroup is the folder of this process's group.
func ownCgroup(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup")) //nolint:gosec // of the cgroup file system
	if err != nil {
		return "", errors.New("/proc/self/cgroup cannot be read")
	}
	for line := range bytes.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "0::"); ok && !strings.Contains(path, "..") {
			for _, mount := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
				dir := filepath.Join(root, mount, path)
				if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
					return dir, nil
				}
			}
		}
	}
	return "", errors.New("there is no cgroup of version 2")
}

// delegate moves the server aside and hands the controllers down.
func delegate(dir string, offered []string) (*cgroup, error) {
	self := strconv.Itoa(os.Getpid())
	members, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")) //nolint:gosec // of the cgroup file system
	if err != nil {
		return nil, errors.New("the members of the server's cgroup cannot be read")
	}
	for _, m := range strings.Fields(string(members)) {
		if m != self {
			return nil, errors.New("the server's cgroup is not its own: other processes are in it")
		}
	}
	own := filepath.Join(dir, serverGroup)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) { //nolint:gosec // as systemd makes them
		return nil, fmt.Errorf("the server's cgroup takes no group below it: %w", errors.Unwrap(err))
	}
	if err := write(own, "cgroup.procs", self); err != nil {
		return nil, err
	}
	for _, c := range controllers {
		if !slices.Contains(offered, c) {
			continue
		}
		if err := write(dir, "cgroup.subtree_control", "+"+c); err != nil {
			return nil, err
		}
	}
	sweep(dir)
	return &cgroup{dir: dir}, nil
}

// sweep removes groups that a server left behind which was killed. One that has
// processes stays: it is somebody else's.
func sweep(dir string) {
	found, _ := filepath.Glob(filepath.Join(dir, "plugin-*"))
	for _, group := range found {
		_ = unix.Rmdir(group)
	}
}

// close leaves the tree as it is: the server is still in it.
func (c *cgroup) close() error { return nil }

// make makes a group with limits.
func (c *cgroup) make(name string, caps manifest.Capabilities) (string, error) {
	dir, err := os.MkdirTemp(c.dir, "plugin-"+name+"-")
	if err != nil {
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	processes := defaultProcesses()
	if caps.Processes > 0 {
		processes = caps.Processes
	}
	for _, v := range []struct {
		file, value string
		must        bool
	}{
		{"memory.max", strconv.FormatInt(memoryOf(caps), 10), true},
		{"memory.swap.max", "0", false},
		{"memory.oom.group", "1", false},
		{"pids.max", strconv.Itoa(processes), true},
		{"cpu.weight", "50", false}, // half of what the server's group has
	} {
		if err := write(dir, v.file, v.value); err != nil && v.must {
			return "", errors.Join(err, os.Remove(dir))
		}
	}
	return dir, nil
}

func write(dir, file, value string) error {
	// No O_CREATE: a file that the kernel does not have must not be made.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0) //nolint:gosec // of the cgroup file system
	if err != nil {
		return fmt.Errorf("%s of the server's cgroup cannot be written: %w", file, errors.Unwrap(err))
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s of the server's cgroup: %w", file, errors.Unwrap(err))
	}
	return nil
}

// enterGroup lets the process begin in a group of its own.
func (b *box) enterGroup(a *syscall.SysProcAttr) error {
	c := b.sandbox.can.cgroup
	if c == nil {
		return nil
	}
	dir, err := c.make(b.plan.Plugin, b.plan.Capabilities)
	if err != nil {
		return err
	}
	b.group = dir
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open cgroup: %w", err)
	}
	b.keep = append(b.keep, os.NewFile(uintptr(fd), dir))
	a.UseCgroupFD, a.CgroupFD = true, fd
	return nil
}

// leaveGroup kills what may be left in the group and removes it.
func (b *box) leaveGroup() {
	if b.group == "" {
		return
	}
	_ = write(b.group, "cgroup.kill", "1")
	_ = os.Remove(b.group)
}
