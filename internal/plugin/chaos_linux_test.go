package plugin

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// kills is how many processes the chaos kills in the sandbox: 500, or KILLS of the
// environment, as in `make chaos KILLS=10000`.
func kills(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("KILLS"); text != "" {
		return atoi(t, text)
	}
	if testing.Short() {
		return 60
	}
	return 500
}

// victim is a plugin under chaos, with its callers.
type victim struct {
	name    string
	remote  bool
	calls   [4]atomic.Int64 // that each caller has finished
	unknown atomic.Int64    // calls whose outcome is not known, which a remote plugin's may be
	repairs []time.Duration // from a kill to the next good call
}

// TestHost_Chaos kills plugins again and again while others call them. Only calls
// in flight of plugins with effects may fail, and nothing may be left: no process,
// descriptor, goroutine, thread, sealed memory or folder.
func TestHost_Chaos(t *testing.T) {
	t.Run("confined", func(t *testing.T) { chaos(t, newSandbox(t), kills(t)) })
	t.Run("free", func(t *testing.T) { chaos(t, nil, kills(t)/5) })
}

func chaos(t *testing.T, box Sandbox, total int) {
	victims := []*victim{{name: "alpha"}, {name: "beta"}, {name: "gamma", remote: true}, {name: "akms"}}
	var manifests []manifest.Manifest
	for _, v := range victims {
		m := testManifest(v.name)
		if v.remote {
			m.Effects = manifest.EffectsRemote
		}
		manifests = append(manifests, m)
	}
	r := newRig(t, in(box, func(c *Config) {
		c.SteadyAfter, c.CallTimeout, c.Eager = time.Nanosecond, 2*time.Minute, true
		c.Scale = map[string]Scale{"beta": {Instances: 2}}
	}), manifests...)
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for _, v := range victims {
		for n := range v.calls {
			callers.Go(func() { r.keepCalling(t, v, n, stop) })
		}
	}
	r.killAll(t, victims, max(total/10, 20)) // what is made once is made now
	before := r.holdings(t)
	r.killAll(t, victims, total)
	close(stop)
	callers.Wait()
	after := r.holdings(t)
	for what, n := range after {
		if slack := map[string]int{"threads": 20, "heap MB": 16, "goroutines": 10}[what]; n > before[what]+slack {
			t.Errorf("%d %s, %d before %d kills", n, what, before[what], total)
		}
	}
	var repairs []time.Duration
	calls := int64(0)
	for _, v := range victims {
		repairs = append(repairs, v.repairs...)
		for n := range v.calls {
			calls += v.calls[n].Load()
		}
	}
	slices.Sort(repairs)
	if t.Failed() {
		return
	}
	t.Logf("%d kills, %d calls, %d of unknown outcome; good call after a kill: p50 %s, p99 %s; held before %v, after %v",
		total, calls, victims[2].unknown.Load(), repairs[len(repairs)/2], repairs[len(repairs)*99/100], before, after)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, v := range victims {
		if left := r.running(t, v.name); len(left) > 0 {
			t.Errorf("processes %v are left", left)
		}
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("children %v are left, or were not reaped", left)
	}
	if _, err := os.Stat(r.runDir); !os.IsNotExist(err) {
		t.Errorf("the socket folder is left: %v", err)
	}
}

// keepCalling calls until stop. A call of a plugin without effects must succeed; one
// with effects may lose its answer, and must say so.
func (r *rig) keepCalling(t *testing.T, v *victim, n int, stop chan struct{}) {
	kind := "fixture-" + v.name
	p := r.provider(t, kind)
	for {
		select {
		case <-stop:
			return
		default:
		}
		_, err := p.Issue(context.Background(), ask(kind, nil), limits(kind))
		switch {
		case err == nil:
		case v.remote && fault.Is(err, fault.Unavailable) && strings.Contains(fault.Public(err), "not known"):
			v.unknown.Add(1)
		default:
			t.Errorf("a call of %s failed: %v", v.name, err)
			return
		}
		v.calls[n].Add(1)
	}
}

// killAll kills so many processes of all plugins at once. A plugin is killed again
// only when every call that may have met the last kill is done: two deaths under
// one call fail it, by contract.
func (r *rig) killAll(t *testing.T, victims []*victim, total int) {
	t.Helper()
	var left atomic.Int64
	left.Store(int64(total))
	var killers sync.WaitGroup
	for _, v := range victims {
		v.repairs = nil
		killers.Go(func() {
			for left.Add(-1) >= 0 && !t.Failed() {
				pids := r.pids(v.name)
				for len(pids) == 0 && !t.Failed() {
					time.Sleep(time.Millisecond)
					pids = r.pids(v.name)
				}
				if t.Failed() {
					return
				}
				began := time.Now()
				pid := pids[rand.IntN(len(pids))]
				_ = syscall.Kill(pid, syscall.SIGKILL)
				var before [len(v.calls)]int64
				for n := range before {
					before[n] = v.calls[n].Load()
				}
				for n := range before { // two calls: the second began after the kill
					for v.calls[n].Load() < before[n]+2 && !t.Failed() {
						time.Sleep(200 * time.Microsecond)
					}
				}
				v.repairs = append(v.repairs, time.Since(began))
				for slices.Contains(r.pids(v.name), pid) && !t.Failed() { // the calls may have met the other one alone
					time.Sleep(200 * time.Microsecond)
				}
			}
		})
	}
	killers.Wait()
}

// holdings is what this process holds.
func (r *rig) holdings(t *testing.T) map[string]int {
	t.Helper()
	count := func(pattern string) int {
		all, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	want := 5 // processes, beta has two
	eventually(t, "all plugins are up", func() bool {
		n := 0
		for _, s := range r.Status() {
			n += len(r.pids(s.Name))
		}
		return n == want || t.Failed()
	})
	// What the last kills left is cleared away at its own pace.
	eventually(t, "only live processes have a folder", func() bool { return count(filepath.Join(r.runDir, "p*")) <= want || t.Failed() })
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	images := 0
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "/memfd:") {
			images++
		}
	}
	return map[string]int{
		"descriptors": len(fds), "goroutines": runtime.NumGoroutine(), "threads": count("/proc/self/task/*"),
		"sealed images": images, "folders": count(filepath.Join(r.runDir, "p*")), "children": len(children(t)), "heap MB": int(m.HeapAlloc >> 20),
	}
}

// children are the processes that this one has started and not reaped.
func children(t *testing.T) []string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // a thread may end
		out = append(out, strings.Fields(string(text))...)
	}
	return out
}
