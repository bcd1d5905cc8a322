//go:build amd64 || arm64

package sandbox_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// attack is one thing that a plugin must not be able to do.
type attack struct {
	name, do, arg string
	weak          bool // fails also without namespaces
	root          bool // only root could do it without a sandbox
	odd           bool // kernels without the feature refuse it to everybody
}

// scene is what attacks are aimed at.
type scene struct {
	*house
	victim *exec.Cmd // a process of the server's user
	secret string    // a file that only the server's user may read
	tcp    net.Listener
	udp    net.PacketConn
	names  net.Listener // abstract unix socket
	socket string       // of the other plugin
}

func newScene(t *testing.T, box plugin.Sandbox) *scene {
	t.Helper()
	one, two := testManifest("one"), testManifest("two")
	one.Capabilities.MemoryMB = 96
	s := &scene{house: newHouse(t, box, guest{one, hostile}, guest{two, hostile})}
	for _, name := range []string{"one", "two"} {
		if got, err := s.do(t, name, "nothing", ""); err != nil || got != "done: " {
			t.Fatalf("%q, %v; log:\n%s", got, err, s.log)
		}
	}
	s.victim = exec.Command("sleep", "1000")
	if err := s.victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.victim.Process.Kill(); _ = s.victim.Wait() })
	s.secret = filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(s.secret, []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.names, err = net.Listen("unix", "@sallyport-test-"+strconv.Itoa(os.Getpid())+t.Name()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = s.tcp.Close(), s.udp.Close(), s.names.Close() })
	s.socket = socketOf(t, s.Status()[1].PID)
	return s
}

// socketOf finds the socket that a plugin listens on, by the kernel's table.
func socketOf(t *testing.T, pid int) string {
	t.Helper()
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for v := range strings.SplitSeq(string(env), "\x00") {
		if dir, ok := strings.CutPrefix(v, "PLUGIN_UNIX_SOCKET_DIR="); ok {
			if list, _ := filepath.Glob(dir + "/*"); len(list) == 1 {
				return list[0]
			}
		}
	}
	t.Fatal("the other plugin has no socket")
	return ""
}

func (s *scene) attacks() []attack {
	self, victim, other := strconv.Itoa(os.Getpid()), strconv.Itoa(s.victim.Process.Pid), strconv.Itoa(s.Status()[1].PID)
	home, _ := os.UserHomeDir()
	list := []attack{
		{name: "read accounts", do: "read", arg: "/etc/passwd", weak: true},
		{name: "read the key file", do: "read", arg: s.secret, weak: true},
		{name: "see the key file", do: "stat", arg: s.secret},
		{name: "list home", do: "list", arg: home, weak: true},
		{name: "list the data directory", do: "list", arg: s.store, weak: true},
		{name: "list the root", do: "list", arg: "/", weak: true},
		{name: "read the host's environment", do: "read", arg: "/proc/" + self + "/environ", weak: true},
		{name: "read the host's memory map", do: "read", arg: "/proc/" + self + "/maps", weak: true},
		{name: "reopen own descriptors", do: "list", arg: "/proc/self/fd", weak: true},
		{name: "write to temporary files", do: "write", arg: filepath.Join(os.TempDir(), "sallyport-attack"), weak: true},
		{name: "write to home", do: "write", arg: filepath.Join(home, ".sallyport-attack"), weak: true},
		{name: "write to own folder", do: "write", arg: filepath.Join(filepath.Dir(socketOf2(s, 0)), "x"), weak: true},
		{name: "fill the disk", do: "fill", weak: true},
		{name: "execute a program", do: "exec", arg: "/bin/true", weak: true},
		{name: "call the other plugin", do: "dial", arg: "unix|" + s.socket, weak: true},
		{name: "call a listener of the host", do: "dial", arg: "tcp|" + s.tcp.Addr().String(), weak: true},
		{name: "send a datagram to the host", do: "udp", arg: s.udp.LocalAddr().String(), weak: true},
		{name: "call an abstract socket", do: "dial", arg: "unix|" + s.names.Addr().String(), weak: true},
		{name: "MPTCP socket", do: "socket", arg: "2,1,262", weak: true, odd: true},
		{name: "raw socket", do: "socket", arg: "2,3,1", weak: true, root: true},
		{name: "packet socket", do: "socket", arg: "17,3,0", weak: true, root: true},
		{name: "netlink socket", do: "socket", arg: "16,3,0", weak: true},
		{name: "list interfaces", do: "netlink", weak: true},
		{name: "unix datagrams", do: "socket", arg: "1,2,0", weak: true},
		{name: "machine socket", do: "socket", arg: "40,1,0", weak: true, odd: true},
		{name: "read a process", do: "memory", arg: victim, weak: true, odd: true},
		{name: "trace a process", do: "ptrace", arg: victim, weak: true},
		{name: "kill a process", do: "kill", arg: victim, weak: true},
		{name: "mount", do: "mount", weak: true, root: true},
		{name: "new user namespace", do: "unshare", weak: true},
		{name: "child in a new user namespace", do: "clone", weak: true, odd: true},
		{name: "load a module", do: "module", weak: true, odd: true},
		{name: "io_uring", do: "uring", weak: true, odd: true},
		{name: "bpf", do: "bpf", weak: true, odd: true},
		{name: "keyring", do: "keyctl", weak: true, odd: true},
		{name: "perf", do: "perf", weak: true, odd: true},
		{name: "userfaultfd", do: "faultfd", weak: true, odd: true},
		{name: "program in memory", do: "memfd", weak: true},
		{name: "change the root", do: "chroot", weak: true, root: true},
		{name: "change the host's name", do: "sethost", weak: true},
		{name: "become root", do: "setuid", weak: true, root: true},
		{name: "raise a limit", do: "limits", weak: true},
		{name: "outlive the server", do: "outlive", weak: true},
		{name: "allocate too much", do: "allocate", arg: "192", weak: true},
		{name: "shared memory", do: "shared", arg: "160", weak: true},
		{name: "memory that grows downwards", do: "downwards", arg: "160", weak: true},
		{name: "memory of huge pages", do: "huge", arg: "160", weak: true, odd: true},
		{name: "memory of /dev/zero", do: "zero", arg: "160", weak: true},
		{name: "memory of a memory file", do: "memfdmap", arg: "160", weak: true},
		{name: "memory of a file system in memory", do: "tmpfs", arg: "160", weak: true},
		{name: "memory of System V", do: "shm", arg: "160", weak: true},
		{name: "memory of sockets' buffers", do: "buffers", arg: "128", weak: true},
		{name: "descriptors of a thread's own", do: "unshared", weak: true},
		{name: "a larger stack", do: "stack", arg: "160", weak: true},
		// Last, because they hurt where they work.
		{name: "fork bomb", do: "fork", weak: true},
		{name: "kill the other plugin", do: "kill", arg: other, weak: true},
	}
	return list
}

// socketOf2 is the socket of a plugin by its place in the status.
func socketOf2(s *scene, n int) string {
	env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.Status()[n].PID))
	for v := range strings.SplitSeq(string(env), "\x00") {
		if dir, ok := strings.CutPrefix(v, "PLUGIN_UNIX_SOCKET_DIR="); ok {
			return dir + "/x"
		}
	}
	return "/x"
}

// Every attack fails in the sandbox, also on a host without namespaces, and the
// server and the other plugin do not notice.
func TestSandbox_HoldsAttacks(t *testing.T) {
	for _, weak := range []bool{false, true} {
		t.Run(fmt.Sprintf("weak=%v", weak), func(t *testing.T) {
			box := newBox(t)
			if weak {
				box.Weaken()
			}
			s := newScene(t, box)
			for _, a := range s.attacks() {
				if weak && !a.weak {
					continue
				}
				got, err := s.do(t, "one", a.do, a.arg)
				if err != nil || !strings.HasPrefix(got, "failed: ") {
					t.Errorf("%s: %q, %v", a.name, got, err)
				}
			}
			for _, p := range s.Status() {
				if p.Starts != 1 || p.State != plugin.Ready {
					t.Errorf("plugin %s: %+v", p.Name, p)
				}
			}
			if got, err := s.do(t, "two", "nothing", ""); err != nil || got != "done: " {
				t.Errorf("the other plugin: %q, %v", got, err)
			}
			if err := s.victim.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("the other process: %v", err)
			}
		})
	}
}

// The attacks are real: without a sandbox each of them works.
func TestSandbox_OffHoldsNothing(t *testing.T) {
	s := newScene(t, nil)
	for _, a := range s.attacks() {
		if a.odd || a.root && os.Geteuid() != 0 || a.do == "kill" || a.do == "fork" {
			continue
		}
		got, err := s.do(t, "one", a.do, a.arg)
		if err != nil || !strings.HasPrefix(got, "done: ") {
			t.Errorf("%s: %q, %v", a.name, got, err)
		}
	}
	for _, a := range s.attacks() {
		if a.do != "kill" && a.do != "fork" {
			continue
		}
		if got, err := s.do(t, "one", a.do, a.arg); err != nil || !strings.HasPrefix(got, "done: ") {
			t.Errorf("%s: %q, %v", a.name, got, err)
		}
	}
	_ = os.Remove(filepath.Join(os.TempDir(), "sallyport-attack"))
	if home, err := os.UserHomeDir(); err == nil {
		_ = os.Remove(filepath.Join(home, ".sallyport-attack"))
	}
}

func TestSandbox_ProcessHasNothing(t *testing.T) {
	box := newBox(t)
	h := newHouse(t, box, guest{testManifest("one"), hostile})
	for do, want := range map[string]string{"caps": "done: 000000000", "capbnd": "done: 0", "hostname": "done: plugin"} {
		if got, err := h.do(t, "one", do, ""); err != nil || got != want {
			t.Errorf("%s: %q, %v", do, got, err)
		}
	}
	if got, err := h.do(t, "one", "ids", ""); err != nil || !strings.HasPrefix(got, "done: pid 1 uid ") {
		t.Errorf("ids: %q, %v", got, err)
	}
	got, err := h.do(t, "one", "fds", "")
	if err != nil || strings.Contains(got, "file") || strings.Contains(got, "folder") || strings.Contains(got, "control") {
		t.Errorf("descriptors: %q, %v", got, err)
	}
	s := h.Status()[0]
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapPrm:\t0000000000000000", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("no %q", line)
		}
	}
}

// What a plugin leaves behind ends with it, whatever session or group it went
// to.
func TestSandbox_EndsWhatIsLeft(t *testing.T) {
	name := "runaway" + strconv.Itoa(os.Getpid())
	h := newHouse(t, newBox(t), guest{testManifest(name), hostile})
	got, err := h.do(t, name, "escape", "")
	if err != nil || !strings.HasPrefix(got, "done: ") {
		t.Fatalf("%q, %v", got, err)
	}
	if n := len(processes(t, name)); n != 2 {
		t.Fatalf("%d processes, want the plugin and its child", n)
	}
	if err := h.Sync(t.Context(), nil, plugin.Trust{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); len(processes(t, name)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", processes(t, name))
		}
	}
}

// processes are the ids of those that run under a name.
func processes(t *testing.T, name string) []string {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range list {
		if text, err := os.ReadFile(file); err == nil && strings.TrimRight(string(text), "\x00") == name {
			found = append(found, filepath.Base(filepath.Dir(file)))
		}
	}
	return found
}
