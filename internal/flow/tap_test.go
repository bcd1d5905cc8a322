package flow_test

import (
	"context"
	"sync"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// tap sees every unit on its way to the store, and the records of those that
// were committed.
type tap struct {
	flow.Ledger
	mu     sync.Mutex
	done   []audit.Record
	before func(unit.Unit) error // may refuse, or do something first
	after  func(unit.Unit, error) error
}

func (l *tap) Commit(ctx context.Context, u unit.Unit) error {
	l.mu.Lock()
	before, after := l.before, l.after
	l.mu.Unlock()
	if before != nil {
		if err := before(u); err != nil {
			return err
		}
	}
	err := l.Ledger.Commit(ctx, u)
	if err == nil {
		l.mu.Lock()
		l.done = append(l.done, u.Record)
		l.mu.Unlock()
	}
	if after != nil {
		return after(u, err)
	}
	return err
}

func (l *tap) on(before func(unit.Unit) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before = before
}

// records are the committed records of a type, or all.
func (h *house) records(kind string) []audit.Record {
	h.tap.mu.Lock()
	defer h.tap.mu.Unlock()
	var out []audit.Record
	for _, r := range h.tap.done {
		if kind == "" || r.Type == kind {
			out = append(out, r)
		}
	}
	return out
}

// ledger is every record in its place, as the store serves it.
func (h *house) ledger() []audit.Record {
	h.t.Helper()
	ctx := context.Background()
	defer storetest.Running(h.t, h.store)()
	storetest.Eventually(h.t, "records have their places", func() bool {
		n, err := h.store.PendingCount(ctx)
		return err == nil && n == 0
	})
	var out []audit.Record
	for {
		page, err := h.store.Records(ctx, audit.Filter{From: uint64(len(out)), Limit: 1000})
		must(h.t, err)
		for _, e := range page {
			r, err := audit.ParseLeaf(e.Leaf)
			must(h.t, err)
			out = append(out, r)
		}
		if len(page) < 1000 {
			return out
		}
	}
}
