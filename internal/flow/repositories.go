package flow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// AddRepository pins a plugin repository: by its root, packages of it are
// judged from now on. The server fetches nothing from the place; it tells
// clients where to fetch.
func (g *Gate) AddRepository(ctx context.Context, c Caller, name, place string, root []byte) (plugin.Repository, error) {
	var next plugin.Repository
	c.keyed("repository.added", plainAnswer[plugin.Repository]{&next, repositoryRemoved}, name, place, string(root))
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "repository.added", Actor: c.actor(), Target: name}
		d, err := g.administered(ctx, c, "add", record, "repository", name)
		if err != nil {
			return unit.Unit{}, err
		}
		version, err := g.Repositories.Pin(root)
		if err != nil {
			return unit.Unit{}, fault.Invalidf("this root cannot be pinned: %s", fault.Public(err)).Because(err)
		}
		if next, err = plugin.NewRepository(name, place, root, c.Subject.ID, g.Now().UTC()); err != nil {
			return unit.Unit{}, err
		}
		sum := sha256.Sum256(root)
		record.Data = map[string]string{"url": place, "root": strconv.FormatInt(version, 10), "root_sha256": hex.EncodeToString(sum[:])}
		old, err := g.repositoryRow(ctx, name)
		if err != nil {
			return unit.Unit{}, err
		}
		write := unit.Insert
		switch {
		case old != nil && old.State == plugin.Active:
			return unit.Unit{}, fault.Conflictf("there is a repository %s already; remove it first, or choose another name", name)
		case old != nil:
			next.Version, write = old.Version+1, unit.Update
		}
		record.Policy = d.Documents
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), write(next))}, nil
	})
	return next, err
}

// repositoryRemoved refuses to say again that a repository is pinned which was
// removed since.
func repositoryRemoved(ctx context.Context, g *Gate, was plugin.Repository) error {
	now, err := g.repositoryRow(ctx, was.Name)
	if err == nil && (now == nil || now.State != plugin.Active) {
		return gone("the repository was removed")
	}
	return err
}

// RemoveRepository forgets a repository, and what was seen of it. What was
// installed from it stays.
func (g *Gate) RemoveRepository(ctx context.Context, c Caller, name string) error {
	c.keyed("repository.removed", happened(), name)
	return g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "repository.removed", Actor: c.actor(), Target: name}
		d, err := g.administered(ctx, c, "remove", record, "repository", name)
		if err != nil {
			return unit.Unit{}, err
		}
		old, err := g.repositoryRow(ctx, name)
		if err != nil {
			return unit.Unit{}, err
		}
		if old == nil {
			return unit.Unit{}, noRepository(name)
		}
		next, err := old.Remove(c.Subject.ID, g.Now().UTC())
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), unit.Update(next))}, nil
	})
}

// PluginRepositories lists the repositories, with what was last seen of each.
func (g *Gate) PluginRepositories(ctx context.Context, c Caller) ([]plugin.Repository, error) {
	record := audit.Record{Type: "repository.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "repository", ""); err != nil {
		return nil, err
	}
	all, err := g.Store.Repositories(ctx)
	return activeOnly(all, func(r plugin.Repository) bool { return r.State == plugin.Active }), err
}

func (g *Gate) repositoryRow(ctx context.Context, name string) (*plugin.Repository, error) {
	all, err := g.Store.Repositories(ctx)
	if err != nil {
		return nil, fault.Wrap(err, "read repositories")
	}
	for _, r := range all {
		if r.Name == name {
			return &r, nil
		}
	}
	return nil, nil
}

func noRepository(name string) error {
	return fault.NotFoundf("there is no repository %s; see: sallyport plugin repository list", name)
}

// Delivery is what came of a bundle.
type Delivery struct {
	Repository plugin.Repository
	View       plugin.View
	Installed  []plugin.Installed
}

// DeliverBundle takes what a client fetched from a repository, or carried here:
// it judges the metadata by the pinned root and by what was seen before,
// remembers what it has seen, and installs the packages that came with it, each
// by its own signatures as always. A bundle without packages only refreshes.
// Each package is a change of its own: after a fault those before it are
// installed.
func (g *Gate) DeliverBundle(ctx context.Context, c Caller, name string, bundle io.Reader, downgrade bool) (Delivery, error) {
	record := audit.Record{Type: "repository.refreshed", Actor: c.actor(), Target: name, Data: map[string]string{}}
	if _, err := g.inspected(ctx, c, "refresh", record, "repository", name); err != nil {
		return Delivery{}, err
	}
	if err := g.Clock.CheckClock(ctx); err != nil { // a clock that was set back makes old metadata fresh
		return Delivery{}, err
	}
	b, err := g.Repositories.Open(bundle)
	if err != nil {
		return Delivery{}, err
	}
	out, err := g.sight(ctx, c, name, b, record)
	if err != nil {
		return Delivery{}, g.refusedRepository(ctx, record, err)
	}
	for {
		r, content, err := b.Package(out.View.Releases)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err == nil {
			err = r.Installable(out.View.Releases)
		}
		if err != nil {
			return out, g.refusedRepository(ctx, record, err)
		}
		row, err := g.installFrom(ctx, c, content, InstallRequest{AllowDowngrade: downgrade}, origin{repository: name, accept: r.Offers})
		if err != nil {
			return out, err
		}
		out.Installed = append(out.Installed, row)
	}
}

// sight judges the metadata of a bundle and remembers it. Whoever else has seen
// more of the repository meanwhile is believed: then it is judged by that.
func (g *Gate) sight(ctx context.Context, c Caller, name string, b Bundle, record audit.Record) (Delivery, error) {
	var out Delivery
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		row, err := g.repositoryRow(ctx, name)
		if err != nil {
			return unit.Unit{}, err
		}
		if row == nil || row.State != plugin.Active {
			return unit.Unit{}, noRepository(name)
		}
		now := g.Now().UTC()
		out.Repository = *row
		if out.View, err = b.Walk(ctx, row.Seen, now); err != nil {
			return unit.Unit{}, err
		}
		if same(row.Seen, out.View.Seen) {
			return unit.Unit{}, errSeen
		}
		d, err := g.administered(ctx, c, "refresh", record, "repository", name)
		if err != nil {
			return unit.Unit{}, err
		}
		out.Repository = row.See(out.View.Seen, now)
		record.Policy = d.Documents
		for role, version := range out.View.Versions {
			record.Data[role] = strconv.FormatInt(version, 10)
		}
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), unit.Update(out.Repository))}, nil
	})
	if errors.Is(err, errSeen) {
		err = nil
	}
	return out, err
}

// errSeen ends the sighting of what was seen before.
var errSeen = errors.New("seen already")

func same(a, b plugin.Seen) bool {
	return bytes.Equal(a.Root, b.Root) && bytes.Equal(a.Timestamp, b.Timestamp) && bytes.Equal(a.Snapshot, b.Snapshot)
}

// refusedRepository records that metadata or a package was refused for a
// reason, since somebody may try to bring something old or foreign in, and
// returns why.
func (g *Gate) refusedRepository(ctx context.Context, record audit.Record, cause error) error {
	reason, ok := plugin.Reasoned(cause)
	if !ok {
		return cause
	}
	record.Type, record.Outcome, record.Reasons = "repository.refused", audit.Denied, []string{fault.Public(cause)}
	record.Policy, record.Data = nil, map[string]string{"reason": string(reason)}
	if err := g.commit(ctx, unit.Unit{Record: record}); err != nil {
		return fault.Unavailablef("the refusal of this repository could not be recorded, try again").Because(err)
	}
	return cause
}

// origin says where a package comes from.
type origin struct {
	repository string // empty for a file
	// accept has a word on the verified package; nil accepts it.
	accept func(plugin.Entry) error
}

// remembered is the write that remembers what is being installed.
func (g *Gate) remembered(ctx context.Context, row plugin.Installed, repository string) (unit.Write, error) {
	all, err := g.Store.Installations(ctx)
	if err != nil {
		return unit.Write{}, fault.Wrap(err, "read installations")
	}
	i := slices.IndexFunc(all, func(i plugin.Installation) bool { return i.Digest == row.Digest })
	if i < 0 {
		return unit.Insert(plugin.Remember(row, repository, nil)), nil
	}
	return unit.Update(plugin.Remember(row, repository, &all[i])), nil
}

// Installations lists what was ever installed, for who may list plugins.
func (g *Gate) Installations(ctx context.Context, c Caller) ([]plugin.Installation, error) {
	record := audit.Record{Type: "plugin.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "plugin", ""); err != nil {
		return nil, err
	}
	return g.Store.Installations(ctx)
}

// RollbackPlugin puts a package in place that was installed here before: the
// version named, else the newest that is older than the present one. It is
// verified again, by the trust of now. This node must still have its files.
func (g *Gate) RollbackPlugin(ctx context.Context, c Caller, name, version string) (plugin.Installed, error) {
	var next plugin.Installed
	c.keyed("plugin.rolledback", plainAnswer[plugin.Installed]{&next, uninstalled}, name, version)
	record := audit.Record{Type: "plugin.rolledback", Actor: c.actor(), Target: name, Data: map[string]string{}}
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		d, err := g.administered(ctx, c, "rollback", record, "plugin", name)
		if err != nil {
			return unit.Unit{}, err
		}
		trusted, err := g.Store.Generation(ctx, "trust")
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read trust generation")
		}
		all, err := g.Store.Plugins(ctx)
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read installed plugins")
		}
		old, err := installedAs(all, name)
		if err != nil {
			return unit.Unit{}, err
		}
		if old == nil {
			return unit.Unit{}, fault.NotFoundf("plugin %s is not installed; see: sallyport plugin list", name)
		}
		entry, err := g.earlier(ctx, *old, version)
		if err != nil {
			return unit.Unit{}, err
		}
		var u unit.Unit
		next, u, err = g.place(ctx, verifiedPackage{entry, trusted}, InstallRequest{AllowDowngrade: true}, c.Subject.ID, "")
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy, record.Data = d.Documents, u.Record.Data
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), u.Writes...)}, nil
	})
	if err != nil {
		if _, judged := plugin.Reasoned(err); judged {
			err = g.refusedPackage(ctx, record, err)
		}
		return plugin.Installed{}, err
	}
	return next, g.applyVersion(ctx)
}

// earlier is the verified package that a plugin goes back to.
func (g *Gate) earlier(ctx context.Context, now plugin.Installed, version string) (plugin.Entry, error) {
	all, err := g.Store.Installations(ctx)
	if err != nil {
		return plugin.Entry{}, fault.Wrap(err, "read installations")
	}
	before, err := plugin.Earlier(all, now, version)
	if err != nil {
		return plugin.Entry{}, err
	}
	trust, err := g.trust(ctx)
	if err != nil {
		return plugin.Entry{}, err
	}
	return g.Packages.Verify(before.Digest, trust)
}
