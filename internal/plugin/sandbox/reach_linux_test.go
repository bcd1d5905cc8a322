//go:build amd64 || arm64

package sandbox_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

// Where there are no namespaces, Landlock alone stands before the host, and does
// not judge calls that are no file access. old: a kernel that does not know
// Landlock's scopes either.
func TestSandbox_HoldsCallsThatLandlockDoesNotSee(t *testing.T) {
	for _, kind := range []string{"full", "weak", "old", "off"} {
		t.Run(kind, func(t *testing.T) {
			var box plugin.Sandbox
			if kind != "off" {
				b := newBox(t)
				if kind != "full" {
					b.Weaken()
				}
				if kind == "old" {
					b.Age()
				}
				box = b
			}
			s := newScene(t, box)
			mailbox := filepath.Join(t.TempDir(), "notify")
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: mailbox, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			victim := strconv.Itoa(s.victim.Process.Pid)
			want := "failed: "
			if kind == "off" { // the attacks are real
				want = "done: "
			}
			for _, a := range []attack{
				{name: "limit another process", do: "starve", arg: victim},
				{name: "pin another process", do: "pin", arg: victim},
				{name: "change the key file's mode", do: "chmod", arg: s.secret},
				{name: "send a datagram to a socket of the host", do: "datagram", arg: mailbox},
				{name: "signal another process by a descriptor", do: "signal", arg: victim},
			} {
				if a.do == "signal" && kind == "weak" { // Landlock refuses the signal, not its preparation
					continue
				}
				if got, err := s.do(t, "one", a.do, a.arg); err != nil || !strings.HasPrefix(got, want) {
					t.Errorf("%s: %q, %v", a.name, got, err)
				}
			}
			if info, err := os.Stat(s.secret); kind != "off" && (err != nil || info.Mode() != 0o600) {
				t.Errorf("key file: %v, %v", info.Mode(), err)
			}
		})
	}
}

// A connection that is made while sending passes Landlock's check of ports.
func TestSandbox_HoldsFastOpen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	m := testManifest("one")
	m.Capabilities.Network = []string{"*:443"}
	for kind, want := range map[string]string{"full": "failed: ", "off": "done: "} {
		var box plugin.Sandbox
		if kind == "full" {
			box = newBox(t)
		}
		h := newHouse(t, box, guest{m, hostile})
		for _, how := range []string{"sendto", "sendmsg"} {
			if got, err := h.do(t, "one", "fastopen", fmt.Sprintf("%s|%s", how, l.Addr())); err != nil || !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s: %q, %v", kind, how, got, err)
			}
		}
	}
}

// What a declared path leads to is judged, not its name alone.
func TestSandbox_NeverGrantsWhatIsPrivate(t *testing.T) {
	dir, data, run := t.TempDir(), t.TempDir(), t.TempDir()
	l, err := net.Listen("unix", filepath.Join(run, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for to, name := range map[string]string{"/proc/self/environ": "environ", data: "data", "/": "root"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	kek := filepath.Join(data, "kek")
	if err := os.WriteFile(kek, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	box, err := sandbox.New(sandbox.Config{Mode: sandbox.Required, Private: []string{filepath.Join(dir, "data"), kek}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = box.Close() })
	for _, path := range []string{
		dir + "/environ", dir + "/data", dir + "/root", kek, data, filepath.Dir(data), os.TempDir(), l.Addr().String(), "/dev", "/etc/mtab",
	} {
		m := testManifest("one")
		m.Capabilities.Files = []string{path}
		h := newHouse(t, box, guest{m, hostile})
		if got, err := h.do(t, "one", "nothing", ""); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("%s: %q, %v", path, got, err)
		}
		if s := h.Status()[0]; s.Reason != plugin.ReasonSandbox || !strings.Contains(s.Detail, "no plugin is given") {
			t.Errorf("%s: %+v", path, s)
		}
	}
}

// A network needs certificates, and nobody's private keys.
func TestSandbox_NetworkBringsNoKeys(t *testing.T) {
	m := testManifest("one")
	m.Capabilities.Network = []string{"*:443"}
	h := newHouse(t, newBox(t), guest{m, hostile})
	for path, want := range map[string]string{"/etc/ssl/private": "failed: ", "/etc/ssl/certs": "done: "} {
		if got, err := h.do(t, "one", "stat", path); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}
