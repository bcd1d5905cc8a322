//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// standIn is a folder that stands for the file systems of a host, with the files
// that the kernel puts into groups. What the kernel does with what is written there
// it does not show.
type standIn struct {
	root string
	mu   sync.Mutex
	busy map[string]int // how often a group cannot be removed yet
}

const ownGroup = "/system.slice/sallyport.service"

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	s := &standIn{root: t.TempDir(), busy: map[string]int{}}
	s.write(t, "proc/self/cgroup", "3:cpuset:/\n1:name=systemd:/\n0::"+ownGroup+"\n")
	s.write(t, "sys/fs/cgroup"+ownGroup+"/cgroup.controllers", "cpuset cpu io memory pids")
	if err := s.fill(s.group()); err != nil {
		t.Fatal(err)
	}
	s.write(t, "sys/fs/cgroup"+ownGroup+"/cgroup.procs", strconv.Itoa(os.Getpid())+"\n")
	return s
}

func (s *standIn) group() string { return filepath.Join(s.root, "sys/fs/cgroup", ownGroup) }

func (s *standIn) write(t *testing.T, name, text string) {
	t.Helper()
	name = filepath.Join(s.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fill makes the files of a group.
func (s *standIn) fill(dir string) error {
	for _, name := range []string{
		"cgroup.type", "cgroup.procs", "cgroup.subtree_control", "cgroup.kill",
		"memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.weight",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *standIn) tree() tree {
	return tree{
		mkdir: func(dir string) error { return errors.Join(kernel.mkdir(dir), s.fill(dir)) },
		rmdir: func(dir string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.busy[dir]--; s.busy[dir] >= 0 {
				return unix.EBUSY
			}
			return os.RemoveAll(dir)
		},
	}
}

func (s *standIn) has(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || strings.TrimSpace(string(got)) != text {
			t.Errorf("%s is %q, want %q (%v)", name, got, text, err)
		}
	}
}

// A server with a group of its own moves aside and hands the controllers down, also
// one that takes over from a server before it.
func TestCgroup_IsDelegated(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for name, prepare := range map[string]func(*standIn){
		"first": func(*standIn) {},
		"again": func(s *standIn) {
			s.write(t, "proc/self/cgroup", "0::"+ownGroup+"/"+serverGroup+"\n")
			s.write(t, "sys/fs/cgroup"+ownGroup+"/"+serverGroup+"/cgroup.controllers", "")
			s.write(t, "sys/fs/cgroup"+ownGroup+"/cgroup.procs", "")
			if err := s.fill(filepath.Join(s.group(), serverGroup)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t)
			prepare(s)
			c, err := openCgroup(s.root, s.tree())
			if err != nil || c.dir != s.group() {
				t.Fatalf("%+v, %v", c, err)
			}
			s.has(t, c.dir, map[string]string{"cgroup.subtree_control": "+memory +pids +cpu"})
			s.has(t, filepath.Join(c.dir, serverGroup), map[string]string{"cgroup.procs": self})
		})
	}
}

// What cannot be had is said, and nothing is moved.
func TestCgroup_SaysWhatIsMissing(t *testing.T) {
	own := "sys/fs/cgroup" + ownGroup + "/"
	for want, spoil := range map[string]func(*standIn){
		"cannot be read":                      func(s *standIn) { _ = os.Remove(filepath.Join(s.root, "proc/self/cgroup")) },
		"there is no cgroup of version 2":     func(s *standIn) { s.write(t, "proc/self/cgroup", "4:memory:/x\n") },
		"there is no cgroup of version":       func(s *standIn) { s.write(t, "proc/self/cgroup", "0::/../../etc\n") },
		"has no memory controller":            func(s *standIn) { s.write(t, own+"cgroup.controllers", "cpu pids") },
		"has no pids controller":              func(s *standIn) { s.write(t, own+"cgroup.controllers", "cpu memory") },
		"not delegated to it":                 func(s *standIn) { _ = os.Remove(filepath.Join(s.group(), "cgroup.subtree_control")) },
		"the server is in the root cgroup":    func(s *standIn) { _ = os.Remove(filepath.Join(s.group(), "cgroup.type")) },
		"other processes are in it":           func(s *standIn) { s.write(t, own+"cgroup.procs", strconv.Itoa(os.Getpid())+"\n1\n") },
		"members of the server's cgroup":      func(s *standIn) { _ = os.Remove(filepath.Join(s.group(), "cgroup.procs")) },
		"takes no group below it: not a dire": func(*standIn) {},
	} {
		t.Run(want, func(t *testing.T) {
			s := newStandIn(t)
			spoil(s)
			tr := s.tree()
			if strings.Contains(want, "takes no group") {
				tr.mkdir = func(string) error { return unix.ENOTDIR }
			}
			if c, err := openCgroup(s.root, tr); c != nil && err == nil || err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("%+v, %v", c, err)
			}
			if _, err := os.Stat(filepath.Join(s.group(), serverGroup)); !os.IsNotExist(err) {
				t.Fatalf("the server moved: %v", err)
			}
		})
	}
}

// A plugin's group has its limits before anything is in it, and goes with it, also
// if what was in it takes its time.
func TestCgroup_LimitsAndGoes(t *testing.T) {
	s := newStandIn(t)
	c, err := openCgroup(s.root, s.tree())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		caps         manifest.Capabilities
		memory, pids string
	}{
		{manifest.Capabilities{}, "536870912", strconv.Itoa(defaultProcesses())},
		{manifest.Capabilities{MemoryMB: 64, Processes: 7}, "67108864", "7"},
	} {
		dir, err := c.make("one", v.caps)
		if err != nil {
			t.Fatal(err)
		}
		s.has(t, dir, map[string]string{"memory.max": v.memory, "pids.max": v.pids, "memory.swap.max": "0", "memory.oom.group": "1", "cpu.weight": "50"})
		s.busy[dir] = 3
		killed := filepath.Join(t.TempDir(), "kill")
		if err := os.Link(filepath.Join(dir, "cgroup.kill"), killed); err != nil {
			t.Fatal(err)
		}
		c.remove(dir)
		if text, _ := os.ReadFile(killed); string(text) != "1" {
			t.Errorf("what was in it was not killed: %q", text)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("the group is left: %v", err)
		}
	}
}

// A limit that cannot be set keeps the plugin from starting; one that not every
// kernel has does not. Neither leaves a group.
func TestCgroup_LimitsThatMustBe(t *testing.T) {
	s := newStandIn(t)
	c, err := openCgroup(s.root, s.tree())
	if err != nil {
		t.Fatal(err)
	}
	for file, must := range map[string]bool{"memory.max": true, "pids.max": true, "memory.swap.max": false, "memory.oom.group": false, "cpu.weight": false} {
		whole := s.tree().mkdir
		c.tree.mkdir = func(dir string) error { return errors.Join(whole(dir), os.Remove(filepath.Join(dir, file))) }
		dir, err := c.make("one", manifest.Capabilities{})
		if (err != nil) != must {
			t.Errorf("without %s: %v", file, err)
		}
		if err == nil {
			c.remove(dir)
		}
		if left, _ := filepath.Glob(filepath.Join(c.dir, "plugin-*")); len(left) > 0 {
			t.Errorf("without %s these are left: %v", file, left)
		}
	}
}

// Many starts at once have a group each.
func TestCgroup_ManyAtOnce(t *testing.T) {
	s := newStandIn(t)
	c, err := openCgroup(s.root, s.tree())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var seen sync.Map
	for range 16 {
		wg.Go(func() {
			dir, err := c.make("one", manifest.Capabilities{})
			if _, twice := seen.LoadOrStore(dir, true); err != nil || twice {
				t.Errorf("%s, %v", dir, err)
			}
		})
	}
	wg.Wait()
}

// A server that was killed leaves groups behind, which must not be in the way of
// the next one.
func TestCgroup_SweepsWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"plugin-one-1", "plugin-two-123", "plugin-busy-2/x", serverGroup} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	(&cgroup{dir, kernel}).sweep()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != "plugin-busy-2" || left[1].Name() != serverGroup {
		t.Fatalf("%v, %v", left, err)
	}
}

// On a real hierarchy, where this host has one that we may write: a process begins
// in the group, and ends with it. Limits need controllers, which such a hierarchy
// often has not.
func TestCgroup_OfThisHost(t *testing.T) {
	var c *cgroup
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		dir := filepath.Join(mount, fmt.Sprintf("sallyport-test-%d", os.Getpid()))
		if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil && kernel.mkdir(dir) == nil {
			c = &cgroup{dir, kernel}
		}
	}
	if c == nil {
		t.Log("no cgroup of version 2 can be written here; the other tests have stand-ins")
		return
	}
	t.Cleanup(func() { _ = c.tree.rmdir(c.dir) })
	group := filepath.Join(c.dir, "plugin-one")
	if err := c.tree.mkdir(group); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	f, err := enter(cmd.SysProcAttr, group)
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Start()
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(text), "0::"+strings.TrimPrefix(strings.TrimPrefix(group, "/sys/fs/cgroup"), "/unified")+"\n") {
		t.Errorf("the process is in %s, %v", text, err)
	}
	c.sweep()
	if _, err := os.Stat(group); err != nil {
		t.Errorf("a group with a process was swept away: %v", err)
	}
	c.remove(group) // kills
	if _, err := os.Stat(group); !os.IsNotExist(err) {
		t.Errorf("the group is left: %v", err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process was not killed")
	}
}
