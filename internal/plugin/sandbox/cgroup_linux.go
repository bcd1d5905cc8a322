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
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/id"
)

// cgroup is the part of the cgroup tree (version 2) that the server was given:
// its own group, with nobody else in it, which it may write. The server moves
// into a group below, as the kernel demands of a group that has groups with
// limits, and each plugin gets one beside it.
type cgroup struct {
	dir  string
	tree tree
}

// tree makes and removes groups: folders that the kernel fills with files, and
// that can be removed although they have some.
type tree struct {
	mkdir func(dir string) error
	rmdir func(dir string) error
}

// kernel is the tree of the real file system.
var kernel = tree{
	mkdir: func(dir string) error { return unix.Mkdir(dir, 0o755) }, // as systemd makes them
	rmdir: unix.Rmdir,
}

// The controllers that are used.
var controllers = []string{"memory", "pids", "cpu"}

// The server's own group, below the one that it was given.
const serverGroup = "sallyport-server"

// openCgroup finds and prepares the group, below the root of a file system. The
// error says why there is none.
func openCgroup(root string, t tree) (*cgroup, error) {
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
	c := &cgroup{dir, t}
	if err := c.delegate(strings.Fields(string(offered))); err != nil {
		return nil, err
	}
	return c, nil
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
func (c *cgroup) delegate(offered []string) error {
	self := strconv.Itoa(os.Getpid())
	members, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	if err != nil {
		return errors.New("the members of the server's cgroup cannot be read")
	}
	for _, m := range strings.Fields(string(members)) {
		if m != self {
			return errors.New("the server's cgroup is not its own: other processes are in it")
		}
	}
	own := filepath.Join(c.dir, serverGroup)
	if err := c.tree.mkdir(own); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("the server's cgroup takes no group below it: %w", err)
	}
	if err := write(own, "cgroup.procs", self); err != nil {
		return err
	}
	var down []string
	for _, name := range controllers {
		if slices.Contains(offered, name) {
			down = append(down, "+"+name)
		}
	}
	if err := write(c.dir, "cgroup.subtree_control", strings.Join(down, " ")); err != nil {
		return err
	}
	c.sweep()
	return nil
}

// sweep removes groups that a server left behind which was killed. One that has
// processes stays: it is somebody else's.
func (c *cgroup) sweep() {
	found, _ := filepath.Glob(filepath.Join(c.dir, "plugin-*"))
	for _, group := range found {
		_ = c.tree.rmdir(group)
	}
}

// close leaves the tree as it is: the server is still in it.
func (c *cgroup) close() error { return nil }

// make makes a group with limits.
func (c *cgroup) make(name string, caps manifest.Capabilities) (string, error) {
	dir := filepath.Join(c.dir, "plugin-"+name+"-"+id.New())
	if err := c.tree.mkdir(dir); err != nil {
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
			return "", errors.Join(err, c.tree.rmdir(dir))
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
	_, err = f.WriteString(value) // the kernel judges it here, and not at close
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("%s of the server's cgroup takes no %s: %w", file, value, errors.Unwrap(err))
	}
	return nil
}

// remove kills what is in a group and removes it. What was killed leaves the group
// a moment later.
func (c *cgroup) remove(dir string) {
	_ = write(dir, "cgroup.kill", "1")
	const tries, pause = 100, 10 * time.Millisecond
	for range tries {
		if err := c.tree.rmdir(dir); !errors.Is(err, unix.EBUSY) {
			return
		}
		time.Sleep(pause)
	}
}

// enter lets a process begin in a group. The file must stay open until it has.
func enter(a *syscall.SysProcAttr, dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	a.UseCgroupFD, a.CgroupFD = true, fd
	return os.NewFile(uintptr(fd), dir), nil
}

// enterGroup lets the process begin in a group of its own.
func (b *box) enterGroup(a *syscall.SysProcAttr) (err error) {
	c := b.sandbox.can.cgroup
	if c == nil {
		return nil
	}
	if b.group, err = c.make(b.plan.Plugin, b.plan.Capabilities); err != nil {
		return err
	}
	f, err := enter(a, b.group)
	if err == nil {
		b.keep = append(b.keep, f)
	}
	return err
}

// leaveGroup gives the group back.
func (b *box) leaveGroup() {
	if b.group != "" {
		b.sandbox.can.cgroup.remove(b.group)
	}
}
