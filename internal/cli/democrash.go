package cli

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

const (
	demoCallers = 4  // who ask for credentials at the same time
	demoKills   = 3  // how often the plugin is killed under them
	demoBetween = 25 // credentials between two kills, so that each meets calls in flight
)

// demoTally counts what callers get.
type demoTally struct {
	mu      sync.Mutex
	open    int // under way
	granted int
	failed  int
	why     error // of the first failure
	slowest time.Duration
}

func (t *demoTally) begin() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open++
	return time.Now()
}

func (t *demoTally) count(took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	if err != nil {
		t.failed++
		if t.why == nil {
			t.why = err
		}
		return
	}
	t.granted++
	t.slowest = max(t.slowest, took)
}

// sofar is how many asked and were answered, and how many are under way.
func (t *demoTally) sofar() (answered, open int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.granted + t.failed, t.open
}

// more reports whether the callers have gone on since.
func (t *demoTally) more(since int) bool {
	answered, _ := t.sofar()
	return answered >= since+demoBetween
}

// crashStep kills the plugin, by signal 9, while the agent asks for one
// certificate after the other, and counts what the agent notices.
func (d *demo) crashStep(ctx context.Context, n *demoNotes) error {
	before, err := d.plugin(ctx)
	if err != nil {
		return err
	}
	n.say("%d callers ask for one certificate after the other, all with the agent's key", demoCallers)
	t := &demoTally{}
	calling, stop := context.WithCancel(ctx)
	defer stop()
	var callers sync.WaitGroup
	for range demoCallers {
		callers.Go(func() {
			for calling.Err() == nil {
				begun := t.begin()
				_, err := d.agent.Vend(ctx, sallyport.VendRequest{Kind: "ssh-user-cert", TTL: time.Minute, Params: map[string]any{
					"public_key": d.public, "principals": []string{demoPrincipal}, "source_addresses": []string{"127.0.0.1"},
				}})
				t.count(time.Since(begun), err)
			}
		})
	}
	err = d.kill(ctx, n, t)
	stop()
	callers.Wait()
	if err != nil {
		return err
	}
	after, err := d.plugin(ctx)
	if err != nil {
		return err
	}
	n.say("%d certificates were granted, %d failed; the slowest took %s", t.granted, t.failed, t.slowest.Round(time.Millisecond))
	n.say("status: %s, process %d, %d starts, %d crashes", after.State, after.PID, after.Starts, after.Crashes)
	if t.failed > 0 {
		return fault.Wrap(t.why, "a caller noticed that the plugin was killed")
	}
	return demoMust(after.Crashes-before.Crashes == demoKills, "%d crashes were counted, and there were %d", after.Crashes-before.Crashes, demoKills)
}

// kill ends the plugin's process some times, each time a new one.
func (d *demo) kill(ctx context.Context, n *demoNotes, t *demoTally) error {
	last := 0
	for range demoKills {
		seen, _ := t.sofar()
		var s sallyport.PluginStatus
		err := demoWait(ctx, 20*time.Second, "a new process of the plugin, and calls to it", func() (bool, error) {
			var err error
			s, err = d.plugin(ctx)
			return s.PID > 0 && s.PID != last && t.more(seen), err
		})
		if err != nil {
			return err
		}
		p, err := os.FindProcess(s.PID)
		if err == nil {
			err = p.Kill()
		}
		if err != nil {
			return fault.Unavailablef("process %d of the plugin cannot be killed", s.PID).Because(err)
		}
		answered, open := t.sofar()
		n.say("$ kill -9 %d, after %d certificates, and with %d under way", s.PID, answered, open)
		last = s.PID
	}
	seen, _ := t.sofar()
	return demoWait(ctx, 20*time.Second, "calls after the last kill", func() (bool, error) { return t.more(seen), nil })
}

// plugin is the status of the story's plugin.
func (d *demo) plugin(ctx context.Context) (sallyport.PluginStatus, error) {
	all, err := d.operator.Plugins(ctx)
	if err != nil {
		return sallyport.PluginStatus{}, err
	}
	for _, s := range all.Status {
		if s.Name == d.pluginName {
			return s, nil
		}
	}
	return sallyport.PluginStatus{}, fault.NotFoundf("the plugin %s is not installed", d.pluginName)
}
