package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/reference"
)

// background starts the work that no request asks for, and returns a function
// that waits until all of it has ended, which it does when the context ends.
//
// One replica at a time gives records their places, and one sweeps and delivers, one
// tends the keys;
// every replica follows policies, keys and plugins.
func (a *App) background(ctx context.Context) (wait func()) {
	var tasks sync.WaitGroup
	every := func(pause time.Duration, name string, do func(context.Context) error) {
		tasks.Go(func() { a.again(ctx, pause, name, do) })
	}
	tasks.Go(func() {
		if err := a.store.Integrate(ctx); err != nil && ctx.Err() == nil { // the store has failed, Run hears of it
			a.log.ErrorContext(ctx, "the ledger stopped", slog.Any("err", err))
		}
	})
	a.observe()
	a.watchReferences()
	tasks.Go(func() {
		if err := a.store.Relay(ctx); err != nil && ctx.Err() == nil {
			a.log.ErrorContext(ctx, "the relay stopped", slog.Any("err", err))
		}
	})
	every(time.Second, "policies", a.gate.Reload)
	every(time.Second, "keys", keeper{a}.Reload)
	every(time.Second, "plugins", a.followPlugins())
	every(10*time.Second, "strangers", a.gate.RecordStrangers)
	for _, sets := range a.fetched {
		tasks.Go(func() { sets.Keep(ctx) })
	}
	if a.depot != nil {
		tasks.Go(func() { a.keepDepot(ctx) })
	}
	tasks.Go(func() {
		a.store.Lead(ctx, "keys", func(ctx context.Context) { a.again(ctx, 10*time.Second, "keys", a.gate.TendKeys) })
	})
	tasks.Go(func() {
		a.store.Lead(ctx, "sweeper", func(ctx context.Context) {
			var inner sync.WaitGroup
			inner.Go(func() { a.repeat(ctx, "sweep", a.gate.Sweep) })
			inner.Go(func() { a.repeat(ctx, "recall", a.gate.Recall) })
			inner.Go(func() { a.repeat(ctx, "deliver", a.gate.Deliver) })
			inner.Go(func() { a.again(ctx, time.Minute, "housekeep", a.gate.Housekeep) })
			inner.Wait()
		})
	})
	tasks.Go(func() {
		a.store.Lead(ctx, "reference", func(ctx context.Context) {
			a.again(ctx, time.Minute, "reference material", a.gate.TendReferences)
		})
	})
	tasks.Go(func() { a.retryListed(ctx) })
	return tasks.Wait
}

// watchReferences tells when the first endorsement of each kind ends.
func (a *App) watchReferences() {
	a.metrics.Gauges("sallyport_reference_expires_timestamp_seconds", "When the first endorsement of a kind expires.", []string{"kind"},
		func(emit func(v float64, values ...string)) {
			first := map[string]time.Time{}
			endorsements, _ := a.gate.ReferenceMaterial()
			for _, e := range endorsements {
				if at := first[e.Kind]; e.State == reference.Active && !e.NotAfter.IsZero() && (at.IsZero() || e.NotAfter.Before(at)) {
					first[e.Kind] = e.NotAfter
				}
			}
			for kind, at := range first {
				emit(float64(at.Unix()), kind)
			}
		})
}

// observe counts the records that this replica commits, and tells whether it can.
func (a *App) observe() {
	a.metrics.GaugeFunc("sallyport_store_writable", "1 while everything can be recorded, 0 while a full disk or a read-only database refuses something.", func() float64 {
		if _, err := a.store.Refusing(); err != nil {
			return 0
		}
		return 1
	})
	events := a.metrics.Counter("sallyport_events_total", "Records that this replica has committed to the ledger, by type and outcome.",
		obs.AtMost("type", 128), obs.OneOf("outcome", string(audit.Done), string(audit.Denied), string(audit.Failed)))
	a.store.Observe(func(r audit.Record) {
		events.Inc(r.Type, string(r.Outcome))
		if ctx := context.Background(); a.log.Enabled(ctx, slog.LevelDebug) {
			a.log.DebugContext(ctx, "event", slog.Any(obs.KeyEvent, r.Type), slog.Any("record", r.ID), slog.Any(obs.KeySubject, r.Subject), slog.Any(obs.KeyGrant, r.Grant))
		}
	})
}

// repeat runs a task each half second, and again at once while it finds work.
func (a *App) repeat(ctx context.Context, name string, do func(context.Context) (int, error)) {
	var told obs.Repeated
	for ctx.Err() == nil {
		n, err := do(ctx)
		if err != nil && ctx.Err() == nil && told.New(err.Error(), time.Now()) {
			a.log.ErrorContext(ctx, "work in the background failed and is repeated", slog.Any("work", name), slog.Any("err", err))
		}
		if n > 0 && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// again runs a task after each pause until the context ends.
func (a *App) again(ctx context.Context, pause time.Duration, name string, do func(context.Context) error) {
	var told obs.Repeated
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if err := do(ctx); err != nil && ctx.Err() == nil && told.New(err.Error(), time.Now()) {
			a.log.ErrorContext(ctx, "work in the background failed and is repeated", slog.Any("work", name), slog.Any("err", err))
		}
	}
}

// followPlugins applies what another replica has changed.
func (a *App) followPlugins() func(context.Context) error {
	var trust, plugins int64
	return func(ctx context.Context) error {
		t, err := a.store.Generation(ctx, "trust")
		if err != nil {
			return err
		}
		p, err := a.store.Generation(ctx, "plugins")
		if err != nil || t == trust && p == plugins {
			return err
		}
		if err := a.gate.ApplyPlugins(ctx); err != nil {
			return err
		}
		trust, plugins = t, p
		return nil
	}
}
