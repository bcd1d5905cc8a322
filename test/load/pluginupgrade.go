package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// upgradeRate is how many credentials are asked for in a second.
const upgradeRate = 200

func upgradeBudgets(options) []budget {
	return []budget{atMost("failed", 0), atLeast("upgrades", 2)}
}

// pluginUpgrade asks a server for credentials at a steady rate, first in peace and
// then while version after version of their plugin is installed. The package says
// that it has effects, so that the host may repeat nothing: a call that an upgrade
// broke would fail.
func pluginUpgrade(ctx context.Context, o options) (r result, err error) {
	var agents []agent
	var next func(context.Context) error
	prepare := func(s *server, admin *sallyport.Client) error {
		var err error
		if next, err = versions(ctx, admin, o.dir); err != nil {
			return err
		}
		if err := next(ctx); err != nil {
			return err
		}
		if _, err := admin.SetPolicy(ctx, "load", "sallyport", opaqueText.document()); err != nil {
			return fmt.Errorf("set policy: %w", err)
		}
		if agents, err = enrol(ctx, admin, s.in.roots(), mostAgents); err != nil {
			return err
		}
		return opaqueText.equip(agents)
	}
	err = running(ctx, o, prepare, func(s *server) error {
		peace, err := steady(ctx, s, agents, o, func(context.Context) error { return nil })
		if err != nil {
			return err
		}
		upgrades := 0
		took := []time.Duration{}
		war, err := steady(ctx, s, agents, o, func(ctx context.Context) error {
			begin := time.Now()
			if err := next(ctx); err != nil {
				return err
			}
			took = append(took, time.Since(begin))
			upgrades++
			return nil
		})
		if err != nil {
			return err
		}
		slices.Sort(took)
		r.take(war)
		r.Errors += peace.failed()
		r.against("the same rate without upgrades", peace.perSecond())
		r.figure("failed", float64(war.failed()))
		r.figure("upgrades", float64(upgrades))
		r.figure("upgrade_p50_ms", milliseconds(quantile(took, 0.5)))
		r.figure("floor_p50_ms", milliseconds(quantile(peace.times, 0.5)))
		r.figure("floor_p99_ms", milliseconds(quantile(peace.times, 0.99)))
		r.figure("slowest_ms", milliseconds(quantile(war.times, 1)))
		return nil
	})
	r.CPUOf = "the server and its plugins"
	return r, err
}

// versions gives what installs the next version of the plugin. All of them have the
// same executable, and a manifest of their own.
func versions(ctx context.Context, admin *sallyport.Client, dir string) (func(context.Context) error, error) {
	file, key, publisher, err := pack(ctx, dir, akmsPlugin.pkg)
	if err != nil {
		return nil, err
	}
	report, err := plugin.Inspect(file)
	if err != nil {
		return nil, fmt.Errorf("inspect package: %w", err)
	}
	private, err := os.ReadFile(filepath.Join(dir, report.Manifest.Name+"-publisher.key")) //nolint:gosec // ours
	if err != nil {
		return nil, fmt.Errorf("read publisher's key: %w", err)
	}
	signer, err := plugin.ParsePrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("read publisher's key: %w", err)
	}
	if _, err := admin.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: publisher, PublicKey: string(key)}); err != nil {
		return nil, fmt.Errorf("trust publisher: %w", err)
	}
	binary := filepath.Join(dir, filepath.Base(akmsPlugin.pkg)+"-built")
	n := 0
	return func(ctx context.Context) error {
		n++
		m := report.Manifest
		m.Files, m.Version, m.Effects = nil, fmt.Sprintf("1.0.%d", n), manifest.EffectsRemote
		out := filepath.Join(dir, fmt.Sprintf("version-%d.package", n))
		spec := plugin.Spec{Manifest: m, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: binary}}}
		if _, err := plugin.Build(spec, out); err != nil {
			return fmt.Errorf("build version: %w", err)
		}
		if _, err := plugin.Sign(out, signer); err != nil {
			return fmt.Errorf("sign version: %w", err)
		}
		f, err := os.Open(out) //nolint:gosec // ours
		if err != nil {
			return fmt.Errorf("open version: %w", err)
		}
		defer func() { _ = f.Close() }()
		if _, err := admin.InstallPlugin(ctx, f, sallyport.InstallRequest{}); err != nil {
			return fmt.Errorf("install version: %w", err)
		}
		return nil
	}, nil
}

// steady asks at the rate, whatever the answers take, and does something beside
// it, again and again with a pause between.
func steady(ctx context.Context, s *server, agents []agent, o options, beside func(context.Context) error) (sample, error) {
	var opened connections
	defer opened.close()
	calls := make([]call, o.conns)
	for i := range calls {
		do, c, err := opaqueText.open(ctx, s, agents[i%len(agents)])
		if err != nil {
			return sample{}, err
		}
		opened.add(c)
		calls[i] = do
	}
	w := &work{kinds: make([]counts, o.conns), times: make([][]time.Duration, o.conns)}
	before, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	var workers sync.WaitGroup
	for i, do := range calls {
		workers.Go(func() { w.paced(ctx, i, do, begin, o) })
	}
	var failed error
	for time.Since(begin) < o.duration && failed == nil {
		failed = errors.Join(beside(ctx), sleep(ctx, 400*time.Millisecond))
	}
	workers.Wait()
	took := time.Since(begin)
	after, err := s.cpu()
	if err = errors.Join(err, failed); err != nil {
		return sample{}, err
	}
	return w.sample(o.conns, took, after-before), nil
}

// paced is one worker of a steady load: its requests are due at fixed times.
func (w *work) paced(ctx context.Context, i int, do call, begin time.Time, o options) {
	every := time.Duration(o.conns) * time.Second / upgradeRate
	times, kinds := []time.Duration{}, counts{}
	defer func() { w.times[i], w.kinds[i] = times, kinds }()
	for due := begin.Add(every * time.Duration(i) / time.Duration(o.conns)); due.Before(begin.Add(o.duration)); due = due.Add(every) {
		if sleep(ctx, time.Until(due)) != nil {
			return
		}
		sent := time.Now()
		if err := do(ctx); err != nil {
			kinds[kindOf(err)]++
			text := err.Error()
			w.first.CompareAndSwap(nil, &text)
			continue
		}
		times = append(times, time.Since(sent))
	}
}
