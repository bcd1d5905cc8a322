package plugin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestHost_SurvivesKill(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"))
	p := r.provider(t, "fixture-alpha")
	issue := func() (string, error) {
		out, err := p.Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha"))
		return string(out.Value.Reveal()), err
	}
	before, err := issue()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		pid, _ := strconv.Atoi(before)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		after, err := issue()
		if err != nil {
			t.Fatalf("round %d: the call after a crash failed: %v", round, err)
		}
		if after == before {
			t.Fatal("a dead process answered")
		}
		before = after
		if round < 2 { // further crashes in a row pause longer, by design
			continue
		}
		break
	}
	if s := r.Status()[0]; s.Crashes < 3 || s.State != Ready {
		t.Fatalf("status %+v", s)
	}
}

func TestHost_CallInFlightWhenPluginDies(t *testing.T) {
	remote := testManifest("gamma")
	remote.Effects = manifest.EffectsRemote
	r := newRig(t, nil, testManifest("alpha"), remote)
	t.Run("is repeated once without effects", func(t *testing.T) {
		q := ask("fixture-alpha", map[string]any{"do": "exit-once", "dir": t.TempDir()})
		if _, err := r.provider(t, "fixture-alpha").Issue(t.Context(), q, limits("fixture-alpha")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("fails when it dies again", func(t *testing.T) {
		q := ask("fixture-alpha", map[string]any{"do": "exit"})
		_, err := r.provider(t, "fixture-alpha").Issue(t.Context(), q, limits("fixture-alpha"))
		if !fault.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("is never repeated with remote effects", func(t *testing.T) {
		dir := t.TempDir()
		q := ask("fixture-gamma", map[string]any{"do": "exit-once", "dir": dir})
		_, err := r.provider(t, "fixture-gamma").Issue(t.Context(), q, limits("fixture-gamma"))
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err), "not known") {
			t.Fatalf("got %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "mark")); err != nil {
			t.Fatal("the call never arrived")
		}
	})
	t.Run("the next call succeeds", func(t *testing.T) {
		if _, err := r.provider(t, "fixture-gamma").Issue(t.Context(), ask("fixture-gamma", nil), limits("fixture-gamma")); err != nil {
			t.Fatal(err)
		}
	})
}

// However often a plugin is killed, a call whose process died once under it gets
// its answer from the next one. Each kill waits until every call that may have met
// the one before is done: two deaths under one call are a failure, by contract.
func TestHost_NoCallFailsWhileAPluginIsKilledAgainAndAgain(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SteadyAfter, c.CallTimeout = time.Millisecond, time.Minute }, testManifest("alpha"))
	p := r.provider(t, "fixture-alpha")
	var done [8]atomic.Int64 // calls that each caller has finished
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for n := range done {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := p.Issue(context.Background(), ask("fixture-alpha", nil), limits("fixture-alpha")); err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				done[n].Add(1)
			}
		})
	}
	until := func(what string, ok func() bool) {
		for deadline := time.Now().Add(time.Minute); !ok() && !t.Failed(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%s: %+v", what, r.Status()[0])
			}
		}
	}
	for kill := 0; kill <= 12 && !t.Failed(); kill++ {
		until("the plugin did not start", func() bool { return r.Status()[0].Starts > kill })
		var before [len(done)]int64
		for n := range done {
			before[n] = done[n].Load()
		}
		for n := range done {
			until("a call is stuck", func() bool { return done[n].Load() > before[n] })
		}
		_ = syscall.Kill(r.Status()[0].PID, syscall.SIGKILL)
	}
	until("the last crash was not noticed", func() bool { return r.Status()[0].Crashes > 12 })
	close(stop)
	wg.Wait()
}

// A plugin that lives on and yet ends its stream gets no further call: the call
// that was lost and all later ones meet another process.
func TestHost_ReplacesAPluginThatEndsItsStream(t *testing.T) {
	r := newRig(t, nil, testManifest("barebreaks"))
	p := r.provider(t, "fixture-barebreaks")
	var pids []string
	for range 3 {
		out, err := p.Issue(t.Context(), ask("fixture-barebreaks", nil), limits("fixture-barebreaks"))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, string(out.Value.Reveal()))
	}
	if pids[0] != pids[1] || pids[1] == pids[2] {
		t.Fatalf("answers of processes %v", pids)
	}
	if s := r.Status()[0]; s.Starts != 2 || s.Crashes != 1 {
		t.Fatalf("status %+v", s)
	}
	eventually(t, "the replaced process is gone", func() bool { return len(groupMembers(t, atoi(t, pids[0]))) == 0 })
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestHost_HungPluginIsRestarted(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.HealthEvery, c.CheckTimeout = 30*time.Millisecond, 50*time.Millisecond
		c.Eager = true
	}, testManifest("barehang"))
	deadline := time.Now().Add(10 * time.Second)
	for r.Status()[0].Starts < 2 {
		if time.Now().After(deadline) {
			t.Fatalf("never restarted: %+v\n%s", r.Status()[0], r.log)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !strings.Contains(r.log.String(), string(ReasonHung)) {
		t.Fatal("the reason is not in the log")
	}
}

func TestHost_StopLeavesNothing(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"), testManifest("bare"), testManifest("akms"))
	var pids []int
	for _, kind := range []string{"fixture-alpha", "fixture-bare", "fixture-akms"} {
		if _, err := r.provider(t, kind).Issue(t.Context(), ask(kind, map[string]any{"do": "child"}), limits(kind)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range r.Status() {
		pids = append(pids, s.PID)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if left := groupMembers(t, pid); len(left) > 0 {
			t.Errorf("group %d still has %v", pid, left)
		}
	}
	if _, err := os.Stat(r.runDir); !os.IsNotExist(err) {
		t.Error("the socket folder is left")
	}
	_, err := r.Provider("fixture-alpha")
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("after Close: %v", err)
	}
}

func TestHost_CrashLoopOpensTheCircuit(t *testing.T) {
	r := newRig(t, func(c *Config) { c.CallTimeout = 8 * time.Second }, testManifest("quits"), testManifest("alpha"))
	_, err := r.provider(t, "fixture-quits").Issue(t.Context(), ask("fixture-quits", nil), limits("fixture-quits"))
	if !fault.Is(err, fault.Unavailable) || fault.RetryAfter(err) <= 0 {
		t.Fatalf("got %v", err)
	}
	began := time.Now()
	_, err = r.provider(t, "fixture-quits").Issue(t.Context(), ask("fixture-quits", nil), limits("fixture-quits"))
	if !fault.Is(err, fault.Unavailable) || time.Since(began) > 200*time.Millisecond {
		t.Fatalf("an open circuit answered after %v: %v", time.Since(began), err)
	}
	if _, err := r.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); err != nil {
		t.Fatalf("another plugin is affected: %v", err)
	}
}

// groupMembers are the live processes of a group; a zombie waits for whoever
// adopted it and holds nothing.
func groupMembers(t *testing.T, group int) []string {
	t.Helper()
	var out []string
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(data), ") ")
		if f := strings.Fields(after); len(f) > 2 && f[2] == strconv.Itoa(group) && f[0] != "Z" && f[0] != "X" {
			out = append(out, name+" "+f[0])
		}
	}
	return out
}

func TestHost_ManyKillsLeaveNothing(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SteadyAfter = time.Millisecond }, testManifest("alpha"))
	p := r.provider(t, "fixture-alpha")
	descriptors := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	before := 0
	for n := range 40 {
		if _, err := p.Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); err != nil {
			t.Fatalf("kill %d: %v", n, err)
		}
		if n == 5 {
			before = descriptors()
		}
		if pid := r.Status()[0].PID; pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if _, err := p.Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); err != nil {
		t.Fatal(err)
	}
	if after := descriptors(); after > before+3 {
		t.Fatalf("%d descriptors, %d before", after, before)
	}
	if dirs, err := filepath.Glob(filepath.Join(r.runDir, "p*")); err != nil || len(dirs) > 1 {
		t.Fatalf("%d socket folders are left, %v", len(dirs), err)
	}
}

// TestHost_PluginsDieWithTheHost runs a host in another process and kills that.
func TestHost_PluginsDieWithTheHost(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestHost_Child$")
	temp, err := os.MkdirTemp("", "c") // what a killed host leaves behind
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	cmd.Env = append(os.Environ(), childHost+"="+fixtureBinary, "TMPDIR="+temp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "plugin %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	if len(groupMembers(t, pid)) == 0 {
		t.Fatal("the plugin does not run")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(5 * time.Second); len(groupMembers(t, pid)) > 0; {
		if time.Now().After(deadline) {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
			t.Fatal("the plugin outlives its host")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestHost_Child is the host that [TestHost_PluginsDieWithTheHost] kills. By
// itself it has nothing to test, which is no skip: those are counted.
func TestHost_Child(t *testing.T) {
	if os.Getenv(childHost) == "" {
		return
	}
	r := newRig(t, nil, testManifest("alpha"))
	for range 100 { // work for other threads, so that the starting one is not the last
		if _, err := r.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("plugin %d\n", r.Status()[0].PID)
	time.Sleep(time.Minute)
}
