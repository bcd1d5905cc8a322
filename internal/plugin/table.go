package plugin

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

// table is which plugin serves what, at one moment. It never changes: Sync puts
// a new one in place.
type table struct {
	routes []*route // sorted by name
	slots  map[slot]*route
	closed bool
}

// route is one installed package with its life.
type route struct {
	row     Installed
	entry   Entry
	pool    *pool[*instance] // nil if refused
	reason  Reason
	detail  string
	called  atomic.Uint64
	failed  atomic.Uint64
	image   func() // gives back the sealed image that restarts run from; guarded by holding
	holding sync.Mutex
}

func (r *route) name() string { return r.row.Name }

func (r *route) oneCall() bool { return r.entry.Manifest.Contract == manifest.ContractSallyport }

// standsFor refuses a package that has come in place of the one by which something
// was decided, where that must have been decided otherwise: whether what it does must
// be known to the ledger first, and whether a credential is kept to revoke it. Other
// packages stand for it.
func (r *route) standsFor(before *route) error {
	a, b := before.entry.Manifest, r.entry.Manifest
	if r.oneCall() == before.oneCall() && (a.Effects != manifest.EffectsNone || b.Effects == manifest.EffectsNone) &&
		(a.Revocation.Needs == manifest.NeedsValue || b.Revocation.Needs != manifest.NeedsValue) {
		return nil
	}
	return fault.Unavailablef("plugin %s was replaced meanwhile, try again", before.name())
}

func (r *route) source() grant.Source {
	m := r.entry.Manifest
	s := grant.Source{Plugin: m.Name, Version: m.Version, Effects: grant.EffectsRemote, Address: m.Revocation.Address}
	if m.Effects == manifest.EffectsNone {
		s.Effects = grant.EffectsNone
	}
	s.Digest = r.entry.Digest // of many files
	if f, ok := m.For(runtime.GOOS, runtime.GOARCH); ok {
		s.Digest = digestPrefix + f.SHA256
	}
	return s
}

// sourceOf describes what makes credentials of a kind, and whether they can be
// taken back.
func (h *Host) sourceOf(r *route, kind string) grant.Source {
	s := r.source()
	s.Revocable, s.KeepValue = h.takesBack(r.entry.Manifest, kind)
	return s
}

// Sync makes the running plugins those of the rows, judged by trust, and waits for
// nothing. What is unchanged keeps running, and what was refused is tried again;
// what is new is put in place at once, except that an upgrade first lets its new
// process start, see [Host.Settle]; what is gone is drained in the background, and
// what runs by a revoked key ends at once. A package that must not run is not
// started, and its status says why; it is no error of Sync. Of two that serve the
// same role and kind, the one whose row is older runs.
func (h *Host) Sync(ctx context.Context, rows []Installed, trust Trust) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fault.Unavailablef("the plugin host has stopped")
	}
	h.trust.Store(&trust)
	rows = append([]Installed(nil), rows...)
	sort.SliceStable(rows, func(i, j int) bool {
		if !rows[i].At.Equal(rows[j].At) {
			return rows[i].At.Before(rows[j].At)
		}
		return rows[i].Name < rows[j].Name
	})
	prior, coming := h.table.Load().routes, h.upgrades
	before := map[string]*route{}
	for _, r := range prior {
		before[r.name()] = r
	}
	h.upgrades = map[string]*upgrade{}
	var routes []*route
	var active []Installed
	for _, row := range rows {
		if !row.Stands() {
			continue
		}
		r := h.route(ctx, row, active, before[row.Name], coming[row.Name].route())
		if r.pool != nil {
			active = append(active, row)
		}
		routes = append(routes, h.place(r, before[row.Name], coming[row.Name]))
	}
	h.table.Store(h.tabulate(routes))
	h.leave(ctx, prior, coming)
	return nil
}

// leave retires what was in place, or on its way there, and is not any more.
func (h *Host) leave(ctx context.Context, prior []*route, coming map[string]*upgrade) {
	kept := map[*route]bool{}
	for _, r := range h.table.Load().routes {
		kept[r] = true
	}
	for _, u := range h.upgrades {
		kept[u.next] = true
	}
	gone := append([]*route(nil), prior...)
	for name, u := range coming {
		if h.upgrades[name] != u {
			u.give()
			gone = append(gone, u.next)
		}
	}
	for _, r := range gone {
		if kept[r] || r.pool == nil {
			continue
		}
		within := drainWithin
		if _, err := h.store.judge(r.row.Digest, *h.trust.Load()); ReasonOf(err) == ReasonRevoked {
			within = 0 // what may be in the wrong hands finishes no call, and says no farewell
			r.pool.untrust.Store(true)
		}
		h.retire(context.WithoutCancel(ctx), r, within)
	}
}

// tabulate makes the table of routes; h.mu is held. What is about to be replaced
// keeps only the slots that nobody else has by now.
func (h *Host) tabulate(routes []*route) *table {
	t := &table{routes: routes, slots: map[slot]*route{}}
	sort.Slice(t.routes, func(i, j int) bool { return t.routes[i].name() < t.routes[j].name() })
	for _, leaving := range []bool{true, false} {
		for _, r := range t.routes {
			if r.pool == nil || (h.upgrades[r.name()] != nil) != leaving {
				continue
			}
			for _, s := range r.row.Offer.slots() {
				t.slots[s] = r
			}
		}
	}
	return t
}

// route judges one row and returns what stands for it: what is there already, in
// place or on its way, if the content is the same and still trusted, or something
// new.
func (h *Host) route(ctx context.Context, row Installed, active []Installed, there ...*route) *route {
	var same *route
	for _, r := range there {
		if r != nil && r.pool != nil && r.row.Digest == row.Digest {
			same = r
		}
	}
	var e Entry
	err := row.Readable()
	if err == nil {
		e, err = h.store.judge(row.Digest, *h.trust.Load())
	}
	if err == nil && (e.Manifest.Name != row.Name || e.Manifest.Version != row.Package || !sameOffer(offerOf(e.Manifest), row.Offer)) {
		err = refuse(ReasonIncompatible, "the record of plugin %s does not describe the package that it names", row.Name)
	}
	if err == nil {
		err = CheckRoles(active, row.Name, row.Offer)
	}
	if same != nil && ReasonOf(err) == ReasonStale {
		// A date that has come ends no process that was judged before it: it is not
		// started again.
		h.cfg.Log.WarnContext(ctx, "plugin runs on until it ends, and will not start again", slog.String("plugin", row.Name), slog.Any("err", err))
		return same
	}
	if err != nil {
		h.cfg.Log.WarnContext(ctx, "plugin is refused", slog.String("plugin", row.Name),
			slog.String("reason", string(ReasonOf(err))), slog.Any("err", err))
		return &route{row: row, entry: e, reason: ReasonOf(err), detail: fault.Public(err)}
	}
	if same != nil {
		same.pool.retry()
		return same
	}
	r := &route{row: row, entry: e}
	r.pool = newPool(row.Name, h.cfg.Scale[row.Name], h.pace, h.cfg.Log, h.cfg.Now, h.meters, func(ctx context.Context) (*instance, error) {
		// Again before every start: trust may have changed since.
		e, err := h.store.judge(row.Digest, *h.trust.Load())
		if err != nil {
			return nil, err
		}
		if err := h.migrate(ctx, e.Manifest); err != nil {
			return nil, err
		}
		if err := r.hold(h, e); err != nil {
			return nil, err
		}
		return h.launch(ctx, e)
	})
	r.pool.run(h.cfg.Eager)
	return r
}

// hold keeps the sealed image for as long as the plugin is in place, so that a
// restart and a further instance copy and hash nothing.
func (r *route) hold(h *Host, e Entry) error {
	r.holding.Lock()
	defer r.holding.Unlock()
	if r.image != nil {
		return nil
	}
	_, free, err := h.images.use(e, h.store)
	r.image = free
	return err
}

// end drains and stops all of it; see [pool.end].
func (r *route) end(ctx context.Context) {
	r.pool.end(ctx)
	r.holding.Lock()
	defer r.holding.Unlock()
	if r.image != nil {
		r.image()
	}
}

// serving reports whether a process of the route can take a call now.
func (r *route) serving() bool {
	if r == nil || r.pool == nil {
		return false
	}
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	return r.pool.idlest() != nil
}

// drainWithin is how long a replaced plugin has for the calls in flight.
const drainWithin = 6 * time.Second

// retire drains a route in the background.
func (h *Host) retire(ctx context.Context, r *route, within time.Duration) {
	if r.pool == nil {
		return
	}
	h.old.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		r.end(ctx)
	})
}

// role finds what serves a role for a kind.
func (h *Host) role(role, kind string) (*route, error) {
	t := h.table.Load()
	if r, ok := t.slots[slot{role, kind}]; ok {
		return r, nil
	}
	if t.closed {
		return nil, fault.Unavailablef("the plugin host has stopped")
	}
	for _, r := range t.routes {
		if r.pool == nil && slices.Contains(r.row.Offer.slots(), slot{role, kind}) {
			return nil, fault.Unavailablef("plugin %s, which serves %s, must not run here (%s)", r.name(), kind, r.reason)
		}
	}
	return nil, fault.NotFoundf("no installed plugin serves %s as %s", kind, role)
}

// vender finds what vends a kind, complete with a validator.
func (h *Host) vender(kind string) (*route, error) {
	r, err := h.role(manifest.RoleVender, kind)
	if err != nil {
		return nil, err
	}
	if _, err := h.role(manifest.RoleValidator, kind); err != nil {
		return nil, err
	}
	return r, nil
}

func (t *table) kinds() []string {
	seen := map[string]bool{}
	for _, r := range t.routes {
		for _, k := range r.row.Offer.Kinds {
			_, vends := t.slots[slot{manifest.RoleVender, k}]
			_, judged := t.slots[slot{manifest.RoleValidator, k}]
			seen[k] = vends && judged
		}
	}
	var out []string
	for k, ok := range seen {
		if ok {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}

func sameOffer(a, b Offer) bool {
	return a.Contract == b.Contract && jsonList(a.Roles) == jsonList(b.Roles) && jsonList(a.Kinds) == jsonList(b.Kinds) && jsonList(a.Evidence) == jsonList(b.Evidence) && a.Prefix == b.Prefix
}
