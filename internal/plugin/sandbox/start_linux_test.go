//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// startOf makes a launcher that does everything but execute, changed by a test.
func startOf(t *testing.T, change func(*list)) *start {
	t.Helper()
	a := &abilities{lastCap: lastCapability(), seccomp: true}
	r := recipe{
		spaces: true, network: true, loopback: true, root: t.TempDir(), dir: "/", dropUser: os.Geteuid() == 0,
		lastCap: a.lastCap, limits: a.limits(manifest.Capabilities{}), filter: &filter{}, probe: true,
	}
	s, err := newStart(r, &exec.Cmd{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	change(s.list)
	image, err := s.list.image()
	if err != nil {
		t.Fatal(err)
	}
	s.keep = append(s.keep, image)
	s.cmd.Path = procFD(image)
	return s
}

// halt lets a launcher say "h" and wait for a word of the host before a step. If
// the host has none any more, it goes on.
func (l *list) halt(at int) {
	for n := range l.steps {
		if l.steps[n].zero > at {
			l.steps[n].zero += 2
		}
	}
	rest := slices.Clone(l.steps[at:])
	l.steps = l.steps[:at]
	l.call("say that it waits", unix.SYS_SENDTO, fdControl, l.text("h"), 1, unix.MSG_NOSIGNAL, 0, 0)
	l.call("wait", unix.SYS_RECVFROM, fdControl, l.words(0), 1, 0, 0, 0)
	l.steps = append(l.steps, rest...)
}

// step is the number of a step.
func (l *list) step(t *testing.T, what string) int {
	t.Helper()
	n := slices.IndexFunc(l.steps, func(s step) bool { return s.what == what })
	if n < 0 {
		t.Fatalf("no step %q in\n%s", what, l)
	}
	return n
}

// children are the processes that this one would have to wait for.
func children(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	all := ""
	for _, f := range files {
		text, _ := os.ReadFile(f)
		all += string(text)
	}
	return all
}

// stages are the steps from the clone to the last one before the filter.
func stages(t *testing.T) (from, to int) {
	l := startOf(t, func(*list) {}).list
	return l.step(t, "connect both processes"), l.step(t, stepFilter)
}

// Wherever a host gives up, nothing is left of a launcher, no zombie either.
func TestStart_EndsAnywhere(t *testing.T) {
	before := children(t)
	from, to := stages(t)
	for n := from; n <= to; n++ {
		var what string
		s := startOf(t, func(l *list) {
			what = l.steps[n].what
			l.halt(n)
		})
		if what == "end alone" || what == "drop capability" { // the one is never come by, the others are many
			continue
		}
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.letGo()
		if err := s.listen(); !errors.Is(err, errEnded) { // it waits: its "h" is no word that a host knows
			t.Fatalf("%s: %v", what, err)
		}
		s.end()
		if got := children(t); got != before {
			t.Fatalf("%s: children %s, before %s", what, got, before)
		}
	}
}

// If the first process is killed, whoever did it, the second ends by itself.
func TestStart_FirstIsKilled(t *testing.T) {
	before := children(t)
	l := startOf(t, func(*list) {}).list
	from, to := l.step(t, "close the second's end"), l.step(t, "answer the second")
	for n := from; n <= to; n++ {
		var what string
		s := startOf(t, func(l *list) {
			what = l.steps[n].what
			l.halt(n)
		})
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.letGo()
		if err := s.listen(); !errors.Is(err, errEnded) {
			t.Fatalf("%s: %v", what, err)
		}
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if said := rest(t, s.control); strings.Contains(said, "r") {
			t.Fatalf("%s: the second went on: %q", what, said)
		}
		s.end()
		if got := children(t); got != before {
			t.Fatalf("%s: children %s, before %s", what, got, before)
		}
	}
}

// rest is all that is said until nobody is there to say anything.
func rest(t *testing.T, c *net.UnixConn) (said string) {
	t.Helper()
	for buffer := make([]byte, 16); ; {
		n, _, _, _, err := c.ReadMsgUnix(buffer, nil)
		if err != nil || n == 0 {
			return said
		}
		if n == 1 {
			said += string(buffer[:1])
		}
	}
}

// childStep makes a test a host in a process of its own, and says before which
// step its launcher waits.
const childStep = "SALLYPORT_TEST_START_STEP"

// A host that ends while its launcher is at any step, with a control channel that
// nobody notices to be dead, as when one thread of the host lives on for the time
// that it takes to give back gigabytes of memory: no plugin is executed.
func TestStart_HostEndsFirst(t *testing.T) {
	if what := os.Getenv(childStep); what != "" {
		s := startOf(t, func(l *list) { l.halt(l.step(t, what)) })
		s.cmd.ExtraFiles[0] = os.NewFile(3, "control")
		s.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // until it is killed; the runtime takes select {} for a deadlock
	}
	for _, what := range []string{"make namespaces", "say who the second is", "open its folder", "mount a root", "end with the host", "ask the first"} {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			ours, theirs, err := pair()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ours.Close() }()
			host := exec.Command("/proc/self/exe", "-test.run", "^TestStart_HostEndsFirst$")
			host.Env = append(os.Environ(), childStep+"="+what)
			host.ExtraFiles = []*os.File{theirs}
			if err := host.Start(); err != nil {
				t.Fatal(err)
			}
			_ = theirs.Close()
			buffer := make([]byte, 16)
			for n := 0; n != 1 || buffer[0] != 'h'; {
				if n, _, _, _, err = ours.ReadMsgUnix(buffer, nil); err != nil || n == 0 {
					t.Fatalf("%d, %v", n, err)
				}
			}
			if err := host.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = host.Wait() // now its threads are gone, and who had asked for a signal has it
			_, _ = ours.Write([]byte("g"))
			if said := rest(t, ours); strings.Contains(said, "r") {
				t.Fatalf("the launcher went on: %q", said)
			}
		})
	}
}

// The process that runs is a child of the host, in a group of its own.
func TestStart_LeadsItsGroup(t *testing.T) {
	s := startOf(t, func(l *list) { l.halt(l.step(t, "keep descriptors from the plugin")) })
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.letGo()
	defer s.end()
	if err := s.listen(); !errors.Is(err, errEnded) {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(s.second) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(after) // state, parent, group
	if len(f) < 3 || f[1] != strconv.Itoa(os.Getpid()) || f[2] != strconv.Itoa(s.second) || s.second == s.cmd.Process.Pid {
		t.Fatalf("%s", text)
	}
}
