//go:build amd64 || arm64

package sandbox_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

// tcpManifest is that of a plugin as Python's are.
func tcpManifest(name string) manifest.Manifest {
	m := testManifest(name)
	m.Contract, m.Roles = manifest.ContractAgentKMS, []string{manifest.RoleValidator, manifest.RoleVender}
	return m
}

// A plugin that serves on TCP alone is reached by the host and by nobody else,
// and comes back after it ended.
func TestSandbox_ServesOverTCP(t *testing.T) {
	h := newHouse(t, newBox(t), guest{tcpManifest("overtcp"), overTCP})
	for range 3 {
		if got, err := h.do(t, "overtcp", "", ""); err != nil || got != "over tcp" {
			t.Fatalf("%q, %v; log:\n%s", got, err, h.log)
		}
	}
	for _, port := range listening(t, h.Status()[0].PID) {
		if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
			_ = c.Close()
			t.Errorf("port %d of the plugin is open to the machine", port)
		}
	}
	_, _ = h.do(t, "overtcp", "die", "")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got, err := h.do(t, "overtcp", "", "")
		if err == nil && got == "over tcp" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// listening are the TCP ports in a process's network namespace.
func listening(t *testing.T, pid int) []int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		t.Fatal(err)
	}
	var ports []int
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "0A" {
			continue
		}
		var port int
		if _, err := fmt.Sscanf(f[1], "0100007F:%X", &port); err == nil {
			ports = append(ports, port)
		}
	}
	if len(ports) == 0 {
		t.Fatalf("the plugin listens nowhere:\n%s", text)
	}
	return ports
}

// What would be open to every process of the machine is refused.
func TestSandbox_RefusesOpenTCP(t *testing.T) {
	networked := tcpManifest("networked")
	networked.Capabilities.Network = []string{"*:443"}
	weak := newBox(t)
	weak.Weaken()
	for name, c := range map[string]struct {
		box plugin.Sandbox
		m   manifest.Manifest
	}{
		"without a sandbox":       {nil, tcpManifest("overtcp")},
		"with a network":          {newBox(t), networked},
		"without namespaces":      {weak, tcpManifest("overtcp")},
		"outside of the loopback": {newBox(t), tcpManifest("outside")},
		"version 6":               {newBox(t), tcpManifest("sixth")},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, c.box, guest{c.m, overTCP})
			if got, err := h.do(t, c.m.Name, "", ""); !fault.Is(err, fault.Unavailable) {
				t.Fatalf("%q, %v", got, err)
			}
			if s := h.Status()[0]; s.State == plugin.Ready || name == "without a sandbox" && s.Reason != plugin.ReasonSandbox {
				t.Fatalf("%+v", s)
			}
		})
	}
}

func TestSandbox_RequiredRefuses(t *testing.T) {
	box := newBox(t)
	box.Take()
	h := newHouse(t, box, guest{testManifest("one"), hostile})
	if got, err := h.do(t, "one", "nothing", ""); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("%q, %v", got, err)
	}
	s := h.Status()[0]
	if s.State != plugin.Refused || s.Reason != plugin.ReasonSandbox || !strings.Contains(s.Detail, "no Landlock") {
		t.Fatalf("%+v", s)
	}
}

// On a host without Landlock the mode preferred starts plugins, and says what is
// missing.
func TestSandbox_PreferredSaysWhatIsMissing(t *testing.T) {
	box := preferredBox(t)
	box.Take()
	h := newHouse(t, box, guest{testManifest("one"), hostile})
	if got, err := h.do(t, "one", "read", "/etc/passwd"); err != nil || !strings.HasPrefix(got, "failed: ") {
		t.Fatalf("%q, %v", got, err)
	}
	if s := h.Status()[0].Sandbox; !strings.Contains(s, "no landlock: the test took it away") || strings.Contains(s, "landlock,") {
		t.Fatalf("sandbox: %s", s)
	}
}

func TestSandbox_GrantsWhatIsDeclared(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file, other := dir+"/given", dir+"/other"
	for _, f := range []string{file, other} {
		if err := os.WriteFile(f, []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closed.Close() }()
	m := testManifest("one")
	m.Capabilities.Files = []string{file}
	m.Capabilities.Network = []string{fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)}
	for _, weak := range []bool{false, true} {
		t.Run(fmt.Sprintf("weak=%v", weak), func(t *testing.T) {
			box := newBox(t)
			if weak {
				box = preferredBox(t)
				box.Weaken()
			}
			h := newHouse(t, box, guest{m, hostile})
			for _, c := range []struct{ do, arg, want string }{
				{"read", file, "done: content"},
				{"read", other, "failed: "},
				{"write", file, "failed: "},
				{"dial", "tcp|" + l.Addr().String(), "done: connected"},
				{"dial", "tcp|" + closed.Addr().String(), "failed: "},
				{"socket", "2,1,262", "failed: "},
				{"socket", "16,3,0", "failed: "},
			} {
				if got, err := h.do(t, "one", c.do, c.arg); err != nil || !strings.HasPrefix(got, c.want) {
					t.Errorf("%s %s: %q, %v", c.do, c.arg, got, err)
				}
			}
			if s := h.Status()[0].Sandbox; !strings.Contains(s, "network of the host, TCP to port") {
				t.Errorf("sandbox: %s", s)
			}
		})
	}
}

// A plugin that may connect can call unix sockets of the server's user where it is
// not in a mount namespace. The mode required does not start it there, preferred
// says so.
func TestSandbox_UnixSocketsOfANetworkedPlugin(t *testing.T) {
	one := testManifest("one")
	one.Capabilities.Network = []string{"*:443"}
	for name, c := range map[string]struct {
		box   *sandbox.Sandbox
		weak  bool
		wants string // of a call to the other plugin's socket
	}{
		"required":                       {newBox(t), false, "failed: "},
		"required, without namespaces":   {newBox(t), true, ""},
		"preferred":                      {preferredBox(t), false, "failed: "},
		"preferred, without namespaces ": {preferredBox(t), true, "done: "},
	} {
		t.Run(name, func(t *testing.T) {
			if c.weak {
				c.box.Weaken()
			}
			h := newHouse(t, c.box, guest{one, hostile}, guest{testManifest("two"), hostile})
			if got, err := h.do(t, "two", "nothing", ""); err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			got, err := h.do(t, "one", "dial", "unix|"+socketOf(t, h.Status()[1].PID))
			s := h.Status()[0]
			if c.wants == "" {
				if !fault.Is(err, fault.Unavailable) || s.State != plugin.Refused || s.Reason != plugin.ReasonSandbox || !strings.Contains(s.Detail, "unix socket") {
					t.Fatalf("%q, %v, %+v", got, err, s)
				}
				return
			}
			if err != nil || !strings.HasPrefix(got, c.wants) {
				t.Errorf("%q, %v", got, err)
			}
			if strings.Contains(s.Sandbox, "unix sockets of the server's user") != c.weak {
				t.Errorf("sandbox: %s", s.Sandbox)
			}
		})
	}
}

func TestSandbox_NeverGrantsProcesses(t *testing.T) {
	m := testManifest("one")
	m.Capabilities.Files = []string{"/proc/self"}
	h := newHouse(t, newBox(t), guest{m, hostile})
	if got, err := h.do(t, "one", "nothing", ""); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("%q, %v", got, err)
	}
	if s := h.Status()[0]; s.Reason != plugin.ReasonSandbox {
		t.Fatalf("%+v", s)
	}
}

func TestNew_RefusesOtherModes(t *testing.T) {
	if _, err := sandbox.New(sandbox.Config{Mode: "off"}); !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
}
