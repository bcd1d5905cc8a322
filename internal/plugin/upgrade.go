package plugin

import (
	"context"
	"slices"
)

// upgrade is a version that takes over from one that serves. Until its first
// process is ready the other one goes on, so that nobody waits for a start. Each
// upgrade waits for itself: neither others nor a revocation wait behind it.
type upgrade struct {
	next *route
	give func()        // ends the wait
	done chan struct{} // closed when it is over, or given up
}

// route is the version that is on its way; nil if none is.
func (u *upgrade) route() *route {
	if u == nil {
		return nil
	}
	return u.next
}

// place returns what serves a name now: the route that was decided on, or what it
// will take over from. What must not run any more is never kept for it, nor what is
// somebody else's: a purge lies between two publishers of one name. h.mu is held.
func (h *Host) place(r, before *route, coming *upgrade) *route {
	if r.pool == nil || r == before || !before.serving() || r.row.Publisher != before.row.Publisher {
		return r
	}
	if _, err := h.store.judge(before.row.Digest, *h.trust.Load()); err != nil {
		return r
	}
	if coming.route() != r {
		coming = h.upgrade(r, before)
	}
	h.upgrades[r.name()] = coming
	return before
}

// upgrade lets a version start, and then take over. If it cannot start, or not in
// time, it takes over all the same: what runs is what was decided.
func (h *Host) upgrade(next, before *route) *upgrade {
	ctx, cancel := context.WithTimeout(h.ending, h.cfg.StartTimeout)
	u := &upgrade{next: next, give: cancel, done: make(chan struct{})}
	h.old.Go(func() {
		defer close(u.done)
		defer cancel()
		if _, release, err := next.pool.acquire(ctx); err == nil {
			release()
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.closed || h.upgrades[next.name()] != u {
			return // something else was decided meanwhile
		}
		delete(h.upgrades, next.name())
		routes := slices.Clone(h.table.Load().routes)
		routes[slices.Index(routes, before)] = next
		h.table.Store(h.tabulate(routes))
		h.retire(context.WithoutCancel(ctx), before, drainWithin)
	})
	return u
}

// Settle waits until the upgrades that are under way are in place, or have been
// given up, no longer than ctx. They wait side by side, each no longer than a
// start may take.
func (h *Host) Settle(ctx context.Context) {
	h.mu.Lock()
	var under []*upgrade
	for _, u := range h.upgrades {
		under = append(under, u)
	}
	h.mu.Unlock()
	for _, u := range under {
		select {
		case <-u.done:
		case <-ctx.Done():
		}
	}
}
