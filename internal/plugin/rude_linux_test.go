package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// newSandbox makes the sandbox that servers have by default; see ConfineTests.
var newSandbox func(testing.TB) Sandbox

// ConfineTests is for package plugin_test: package sandbox imports this one, so that
// tests in here cannot import it.
func ConfineTests(by func(testing.TB) Sandbox) bool {
	newSandbox = by
	return true
}

// bothWays runs a test without a sandbox and in it.
func bothWays(t *testing.T, test func(*testing.T, Sandbox)) {
	t.Run("free", func(t *testing.T) { t.Parallel(); test(t, nil) })
	t.Run("confined", func(t *testing.T) { t.Parallel(); test(t, newSandbox(t)) })
}

// in confines the plugins of a host.
func in(box Sandbox, change func(*Config)) func(*Config) {
	return func(c *Config) {
		c.Sandbox = box
		if change != nil {
			change(c)
		}
	}
}

// process is which process serves, as this machine numbers it, and what it answers.
func (r *rig) process(t *testing.T, name string) (pid int, answer string) {
	t.Helper()
	warm(t, r.provider(t, "fixture-"+name), "fixture-"+name)
	answer, err := r.does(t, name, "")
	if err != nil {
		t.Fatal(err)
	}
	return r.one(name).PID, answer
}

// beside is a host with a rude plugin and one that must not suffer from it.
func beside(t *testing.T, box Sandbox, rude string, change func(*Config)) *rig {
	t.Helper()
	r := newRig(t, in(box, change), testManifest("alpha"), testManifest(rude))
	warm(t, r.provider(t, "fixture-alpha"), "fixture-alpha")
	return r
}

// unharmed demands that the other plugin works, by the process that it had.
func (r *rig) unharmed(t *testing.T) {
	t.Helper()
	if _, err := r.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); err != nil {
		t.Errorf("another plugin suffers: %v", err)
	}
	if s := r.one("alpha"); s.Starts != 1 || s.Crashes != 0 {
		t.Errorf("another plugin suffers: %+v", s)
	}
}

// does calls a plugin for an effect.
func (r *rig) does(t *testing.T, name, what string) (string, error) {
	t.Helper()
	out, err := r.provider(t, "fixture-"+name).Issue(t.Context(), ask("fixture-"+name, map[string]any{"do": what}), limits("fixture-"+name))
	return string(out.Value.Reveal()), err
}

// However a plugin fails to begin, it fails within its time, with a reason, and
// without a process that is left; nothing is asked at an address that is not its
// own.
func TestHost_EndsWhatDoesNotBegin(t *testing.T) { bothWays(t, endsWhatDoesNotBegin) }

func endsWhatDoesNotBegin(t *testing.T, box Sandbox) {
	for _, name := range []string{"never", "halfline", "loris", "noise", "zero", "announcer", "deaf", "mute", "thief", "linker"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "never" && name != "noise" {
				name = "rude" + name
			}
			r := beside(t, box, name, func(c *Config) { c.StartTimeout, c.CallTimeout = 2*time.Second, time.Minute })
			_, err := r.does(t, name, "")
			if !fault.Is(err, fault.Unavailable) || strings.Contains(fault.Public(err), "in time") {
				t.Fatalf("got %v", err)
			}
			if s := r.one(name); s.State != Broken || s.Reason != ReasonStart || s.Starts != 0 || s.PID != 0 {
				t.Fatalf("status %+v", s)
			}
			if (name == "rudethief" || name == "rudelinker") && strings.Contains(r.log.String(), "no neighbour found") {
				t.Log("no neighbour is in sight: a sandbox hides it")
			}
			r.unharmed(t)
			if left := r.running(t, name); len(left) > 0 {
				t.Fatalf("processes %v are left", left)
			}
		})
	}
}

// running are the processes of a plugin of this host, whoever has started them.
func (r *rig) running(t *testing.T, name string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, file := range all {
		text, err := os.ReadFile(file)
		if err != nil || string(text) != name+"\x00" {
			continue
		}
		env, err := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if err == nil && strings.Contains(string(env), "PLUGIN_UNIX_SOCKET_DIR="+r.runDir+"/") {
			out = append(out, file)
		}
	}
	return out
}

// A second line of handshake, and whatever comes after it, changes nothing.
func TestHost_TakesTheFirstHandshakeAlone(t *testing.T) { bothWays(t, takesTheFirstHandshakeAlone) }

func takesTheFirstHandshakeAlone(t *testing.T, box Sandbox) {
	r := beside(t, box, "rudetwolines", nil)
	for range 5 {
		if _, err := r.does(t, "rudetwolines", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if s := r.one("rudetwolines"); s.Starts != 1 || s.Crashes != 0 {
		t.Fatalf("status %+v", s)
	}
	r.unharmed(t)
}

// A plugin that writes as fast as it can to both outputs waits for the host, not
// the other way round: log, memory and processor stay bounded, calls are served.
func TestHost_SlowsAFloodDown(t *testing.T) { bothWays(t, slowsAFloodDown) }

func slowsAFloodDown(t *testing.T, box Sandbox) {
	r := beside(t, box, "rudeflood", nil)
	if _, err := r.does(t, "rudeflood", ""); err != nil {
		t.Fatal(err)
	}
	began := r.one("rudeflood").Since
	for time.Since(began) < 3*time.Second {
		if _, err := r.does(t, "rudeflood", ""); err != nil {
			t.Fatal(err)
		}
		r.unharmed(t)
		time.Sleep(50 * time.Millisecond)
	}
	eventually(t, "what was dropped is counted", func() bool { return strings.Contains(r.log.String(), "plugin output was dropped") })
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 64<<20 {
		t.Errorf("%d MB are in use", m.HeapAlloc>>20)
	}
	text := r.log.String()
	if n := strings.Count(text, "plugin output"); n > 2*(linesPerBurst+linesPerSec*int(1+time.Since(began).Seconds())) {
		t.Errorf("%d lines of a flood reached the log", n)
	}
	read := 0 // bytes of its lines
	for _, m := range regexp.MustCompile(`plugin output was dropped.* lines=(\d+)`).FindAllStringSubmatch(text, -1) {
		read += atoi(t, m[1]) * len(strings.Repeat("flood ", 1000))
	}
	if most := bytesPerSec * (2 + int(time.Since(began).Seconds())); read == 0 || read > most {
		t.Errorf("%d bytes of a flood were read, %d are the most", read, most)
	}
}

// A plugin that ignores every request to end is killed within its grace.
func TestHost_EndsTheStubborn(t *testing.T) { bothWays(t, endsTheStubborn) }

func endsTheStubborn(t *testing.T, box Sandbox) {
	r := beside(t, box, "rudestubborn", nil)
	if _, err := r.does(t, "rudestubborn", ""); err != nil {
		t.Fatal(err)
	}
	pid := r.one("rudestubborn").PID
	if err := r.Sync(t.Context(), r.rows[:1], r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "it is gone", func() bool { return len(groupMembers(t, pid)) == 0 })
	if took := time.Since(began); took < gracePeriod/2 {
		t.Errorf("it had only %s to end by itself", took)
	}
	r.unharmed(t)
}

// Whatever a plugin does on its stream, an answer counts only for the question
// whose number it bears, once, if it fits; and the next question is answered.
func TestStream_TakesRightAnswersOnly(t *testing.T) { bothWays(t, takesRightAnswersOnly) }

func takesRightAnswersOnly(t *testing.T, box Sandbox) {
	const name = "rudetalker"
	r := beside(t, box, name, func(c *Config) { c.CallTimeout = 30 * time.Second })
	first, _ := r.process(t, name)
	same := func(t *testing.T, what string) {
		t.Helper()
		if _, err := r.does(t, name, what); err != nil || r.one(name).PID != first {
			t.Errorf("%s: process %d after %d, %v", what, r.one(name).PID, first, err)
		}
	}
	for _, what := range []string{"unasked", "double"} {
		t.Run(what, func(t *testing.T) {
			for range 3 {
				same(t, what)
			}
			same(t, "")
		})
	}
	pair := func(what string) (errs []error) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for n := range 2 {
			wg.Go(func() {
				q := ask("fixture-"+name, map[string]any{"do": what, "n": strconv.Itoa(n)})
				out, err := r.provider(t, "fixture-"+name).Issue(context.Background(), q, limits("fixture-"+name))
				if err == nil && out.Scope.Params["n"] != strconv.Itoa(n) {
					err = fmt.Errorf("question %d got the answer to %v", n, out.Scope.Params["n"])
				}
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			})
		}
		wg.Wait()
		return errs
	}
	t.Run("out of order", func(t *testing.T) {
		for _, err := range pair("disorder") {
			if err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("under another's number", func(t *testing.T) {
		for _, err := range pair("swap") {
			if !fault.Is(err, fault.Denied) {
				t.Errorf("an answer to another question: %v", err)
			}
		}
	})
	t.Run("and never opens the broker", func(t *testing.T) {
		if strings.Contains(r.log.String(), "GRPCBroker") {
			t.Error("the library's broker takes what the plugin sends, without a bound")
		}
	})
	t.Run("empty", func(t *testing.T) {
		if _, err := r.does(t, name, "empty"); !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
		same(t, "")
	})
	r.unharmed(t)
}

// An answer that comes when nobody waits any more is dropped, and does not become
// the answer to a later question.
func TestStream_DropsWhatComesLate(t *testing.T) { bothWays(t, dropsWhatComesLate) }

func dropsWhatComesLate(t *testing.T, box Sandbox) {
	const name = "rudetalker"
	r := beside(t, box, name, func(c *Config) { c.CallTimeout = 20 * time.Second })
	first, _ := r.process(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	q := ask("fixture-"+name, map[string]any{"do": "late"})
	if _, err := r.provider(t, "fixture-"+name).Issue(ctx, q, limits("fixture-"+name)); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v", err)
	}
	for range 3 {
		if next, _ := r.process(t, name); next != first {
			t.Fatalf("process %d after %d", next, first)
		}
	}
}

// An answer that is too large costs no more than the calls that were in flight.
func TestStream_BreaksOffWhatIsTooLarge(t *testing.T) {
	const name = "rudehuge"
	r := newRig(t, func(c *Config) { c.CallTimeout = 20 * time.Second }, testManifest("alpha"), testManifest(name))
	first, err := r.does(t, name, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.does(t, name, "huge"); !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err), "larger than allowed") {
		t.Fatalf("got %v", err)
	}
	if next, err := r.does(t, name, ""); err != nil || next != first {
		t.Fatalf("process %s after %s: %v", next, first, err)
	}
	r.unharmed(t)
}

// What is no message, and messages without end, cost the process its place, and
// nothing else: the call fails with a reason, the next one succeeds.
func TestStream_EndsWhatCannotBeRead(t *testing.T) { bothWays(t, endsWhatCannotBeRead) }

func endsWhatCannotBeRead(t *testing.T, box Sandbox) {
	for _, what := range []string{"malformed", "endless"} {
		t.Run(what, func(t *testing.T) {
			name := "ruderemote"
			m := testManifest(name)
			m.Effects = manifest.EffectsRemote // so that the call is not repeated
			r := newRig(t, in(box, func(c *Config) { c.CallTimeout = 20 * time.Second }), testManifest("alpha"), m)
			warm(t, r.provider(t, "fixture-alpha"), "fixture-alpha")
			first, _ := r.process(t, name)
			if _, err := r.does(t, name, what); !fault.Is(err, fault.Unavailable) {
				t.Fatalf("got %v", err)
			}
			if next, _ := r.process(t, name); next == first {
				t.Fatalf("process %d after %d", next, first)
			}
			eventually(t, "the process is gone", func() bool { return len(groupMembers(t, first)) == 0 })
			r.unharmed(t)
		})
	}
}

// A plugin that puts another process behind its socket is replaced; the other
// process is never asked anything, and ends with it.
func TestHost_NeverAsksAnImpostor(t *testing.T) { bothWays(t, neverAsksAnImpostor) }

func neverAsksAnImpostor(t *testing.T, box Sandbox) {
	const name = "rudefaker"
	r := beside(t, box, name, func(c *Config) { c.CallTimeout = 20 * time.Second })
	first, _ := r.process(t, name)
	_, _ = r.does(t, name, "impostor")
	next, answer := r.process(t, name)
	if next == first || box == nil && answer != strconv.Itoa(next) {
		t.Fatalf("process %d (%s) answers after %d", next, answer, first)
	}
	eventually(t, "all of it is gone", func() bool { return len(groupMembers(t, first)) == 0 })
	r.unharmed(t)
}

// A process that is stopped, not ended, misses its checks and is replaced; the call
// that it held is repeated.
func TestHost_ReplacesAStoppedProcess(t *testing.T) { bothWays(t, replacesAStoppedProcess) }

func replacesAStoppedProcess(t *testing.T, box Sandbox) {
	r := beside(t, box, "beta", func(c *Config) {
		c.HealthEvery, c.CheckTimeout, c.CallTimeout = 50*time.Millisecond, time.Second, time.Minute
	})
	pid, _ := r.process(t, "beta")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of its threads stand still", func() bool {
		all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, file := range all {
			if text, err := os.ReadFile(file); err == nil && !strings.Contains(string(text), ") T ") {
				return false
			}
		}
		return true
	})
	if _, err := r.does(t, "beta", ""); err != nil || r.one("beta").PID == pid {
		t.Fatalf("process %d after %d: %v", r.one("beta").PID, pid, err)
	}
	if !strings.Contains(r.log.String(), string(ReasonHung)) {
		t.Error("the reason is not in the log")
	}
	eventually(t, "the stopped process is gone", func() bool { return len(groupMembers(t, pid)) == 0 })
}

// Children of a plugin that dies, however it dies, die with it. In the sandbox they
// end with their namespace; see package sandbox.
func TestHost_EndsChildrenWithTheirParent(t *testing.T) {
	r := beside(t, nil, "beta", func(c *Config) { c.CallTimeout = 20 * time.Second })
	pid, err := r.does(t, "beta", "child")
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := r.does(t, "beta", "child"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(groupMembers(t, atoi(t, pid))); n < 6 {
		t.Fatalf("only %d processes, so nothing is tested", n)
	}
	_ = syscall.Kill(atoi(t, pid), syscall.SIGKILL)
	eventually(t, "all of them are gone", func() bool { return len(groupMembers(t, atoi(t, pid))) == 0 })
	if _, err := r.does(t, "beta", ""); err != nil {
		t.Fatal(err)
	}
	r.unharmed(t)
}
