package flow

import (
	"context"
	"errors"
	"io"
	"maps"
	"strings"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// InstallRequest says what is to be installed, and what the operator has agreed
// to.
type InstallRequest struct {
	// Name and Version are what it must be; empty for any.
	Name, Version string
	// Digest is that of the package that the operator was shown: another one is
	// refused. Empty takes the package that comes.
	Digest string
	// AllowDowngrade accepts an older version than the one that is, or was last,
	// installed. It is no way below the lowest secure version.
	AllowDowngrade bool
	// Bare describes an executable that AgentKMS has signed, which comes in place
	// of a package; nil if a package comes.
	Bare *plugin.Bare
}

// InstallPlugin verifies a package against the trusted publishers, stores it
// and starts it. A package whose role and kind are served by another plugin is
// refused with both names, and an older version with [plugin.ReasonRollback].
// Installing what is installed gives this node the files and changes nothing
// else.
func (g *Gate) InstallPlugin(ctx context.Context, c Caller, pack io.Reader, r InstallRequest) (plugin.Installed, error) {
	return g.installFrom(ctx, c, pack, r, origin{})
}

func (g *Gate) installFrom(ctx context.Context, c Caller, pack io.Reader, r InstallRequest, from origin) (plugin.Installed, error) {
	record := audit.Record{Type: "plugin.installed", Actor: c.actor(), Data: map[string]string{}}
	if _, err := g.inspected(ctx, c, "install", record, "plugin", ""); err != nil {
		return plugin.Installed{}, err
	}
	v, err := g.verified(ctx, pack, r)
	if err == nil && from.accept != nil {
		err = from.accept(v.entry)
	}
	if err != nil {
		return plugin.Installed{}, g.refusedPackage(ctx, record, err)
	}
	record.Target = v.entry.Manifest.Name
	var next plugin.Installed
	c.keyed("plugin.installed", plainAnswer[plugin.Installed]{&next, uninstalled}, v.entry.Digest)
	err = g.decide(ctx, &c, func() (unit.Unit, error) {
		d, err := g.administered(ctx, c, "install", record, "plugin", record.Target)
		if err != nil {
			return unit.Unit{}, err
		}
		var u unit.Unit
		if next, u, err = g.place(ctx, v, r, c.Subject.ID, from.repository); err != nil {
			return unit.Unit{}, err
		}
		u.Record.Actor, u.Record.Policy, u.Writes = record.Actor, d.Documents, append(g.still(c, d.under), u.Writes...)
		return u, nil
	})
	_, judged := plugin.Reasoned(err)
	switch {
	case judged && fault.Is(err, fault.Denied): // it would take a place that is not its own
		return plugin.Installed{}, g.refusedPackage(ctx, record, err)
	case err != nil && !errors.Is(err, errInstalled):
		return plugin.Installed{}, err
	}
	return next, g.applyVersion(ctx)
}

// InstallConfigured installs what the server's configuration lists, by the same
// rules. No policy is asked: whoever writes the configuration is above them. What
// an operator has removed is not brought back (Conflict). A refusal is not
// recorded, since it is tried again and again.
func (g *Gate) InstallConfigured(ctx context.Context, pack io.Reader, r InstallRequest) (plugin.Installed, error) {
	v, err := g.verified(ctx, pack, r)
	if err != nil {
		return plugin.Installed{}, err
	}
	var next plugin.Installed
	err = g.decide(ctx, nil, func() (unit.Unit, error) {
		var u unit.Unit
		var err error
		if next, u, err = g.place(ctx, v, r, configured, ""); err != nil {
			return unit.Unit{}, err
		}
		u.Record.Actor = audit.System(configured)
		return u, nil
	})
	if err != nil && !errors.Is(err, errInstalled) {
		return plugin.Installed{}, err
	}
	return next, g.applyVersion(ctx)
}

// configured is the author of what the configuration has installed.
const configured = "configuration"

// verifiedPackage is a package in this node's store, and the generation of the
// trust by which it was judged.
type verifiedPackage struct {
	entry   plugin.Entry
	trusted int64
}

// verified judges a package and puts it into the store.
func (g *Gate) verified(ctx context.Context, pack io.Reader, r InstallRequest) (verifiedPackage, error) {
	if err := g.Clock.CheckClock(ctx); err != nil { // keys expire
		return verifiedPackage{}, err
	}
	trusted, err := g.Store.Generation(ctx, "trust")
	if err != nil {
		return verifiedPackage{}, fault.Wrap(err, "read trust generation")
	}
	trust, err := g.trust(ctx)
	if err != nil {
		return verifiedPackage{}, err
	}
	v := verifiedPackage{trusted: trusted}
	if r.Bare != nil {
		v.entry, err = g.Packages.InstallBare(ctx, pack, *r.Bare, trust)
	} else {
		v.entry, err = g.Packages.Install(pack, trust)
	}
	if content, ok := pack.(Content); ok && err != nil && content.Err() != nil {
		err = content.Err()
	}
	m := v.entry.Manifest
	if err == nil && (r.Digest != "" && r.Digest != v.entry.Digest || r.Name != "" && r.Name != m.Name || r.Version != "" && r.Version != m.Version) {
		err = plugin.Unlike(v.entry, r.Digest)
	}
	return v, err
}

// place is the unit by which a verified package becomes the one that runs: its
// row, and the lowest version that it demands of its kind from now on.
func (g *Gate) place(ctx context.Context, v verifiedPackage, r InstallRequest, author, repository string) (plugin.Installed, unit.Unit, error) {
	m := v.entry.Manifest
	generation, err := g.Store.Generation(ctx, "plugins")
	if err != nil {
		return plugin.Installed{}, unit.Unit{}, fault.Wrap(err, "read plugins generation")
	}
	all, err := g.Store.Plugins(ctx)
	if err != nil {
		return plugin.Installed{}, unit.Unit{}, fault.Wrap(err, "read installed plugins")
	}
	old, err := installedAs(all, m.Name)
	if err != nil {
		return plugin.Installed{}, unit.Unit{}, err
	}
	u := unit.Unit{Record: audit.Record{Type: "plugin.installed", Target: m.Name}}
	own, err := g.embodied(ctx, v.entry, &u.Record)
	if err != nil {
		return plugin.Installed{}, unit.Unit{}, err
	}
	if old != nil && old.Digest == v.entry.Digest {
		if err := settled(*old, author, len(own) > 0); err != nil {
			return *old, unit.Unit{}, err
		}
	}
	next, err := plugin.NewInstalled(v.entry, old, author, g.Now().UTC())
	if err == nil {
		err = plugin.CheckUpgrade(old, next, r.AllowDowngrade)
	}
	if err == nil {
		err = plugin.CheckRoles(all, next.Name, next.Offer)
	}
	if err != nil {
		return plugin.Installed{}, unit.Unit{}, err
	}
	credentials := u.Record.Data
	u.Record.Data = describe(next)
	maps.Copy(u.Record.Data, credentials)
	write := unit.Insert
	if old != nil {
		write, u.Record.Data["before"] = unit.Update, old.Package
	}
	if repository != "" {
		u.Record.Data["repository"] = repository
	}
	u.Writes = append(u.Writes, write(next),
		unit.Do("generations.check", 1, "the trusted publishers have changed, try again", "trust", v.trusted),
		unit.Do("generations.bump", 1, "the plugins have changed, try again", "plugins", generation))
	more, err := g.followed(ctx, v.entry, next, repository)
	u.Writes = append(append(u.Writes, own...), more...)
	if err != nil {
		return plugin.Installed{}, unit.Unit{}, err
	}
	floor, err := g.raised(ctx, m.Name, m.MinSecureVersion, v.entry.Digest, author)
	if len(floor) > 0 {
		u.Writes, u.Record.Data["lowest"] = append(u.Writes, floor...), m.MinSecureVersion
	}
	return next, u, err
}

// followed are the writes for where a package came from, and for its hooks.
func (g *Gate) followed(ctx context.Context, e plugin.Entry, next plugin.Installed, repository string) ([]unit.Write, error) {
	memory, err := g.remembered(ctx, next, repository)
	if err != nil {
		return nil, err
	}
	hooks, err := g.placed(ctx, e)
	return append(hooks, memory), err
}

// settled reports why a package that was installed before is not installed again:
// it is there, or an operator has removed it. Installing it by hand once more gives
// it the subject again that it has lost.
func settled(old plugin.Installed, author string, embodies bool) error {
	switch {
	case old.State == plugin.Active && (!embodies || author == configured):
		return errInstalled
	case old.State == plugin.Removed && author == configured:
		return fault.Conflictf(
			"plugin %s %s was removed by an operator and is still listed in plugins.install; take it out there, or install it by hand", old.Name, old.Package)
	}
	return nil
}

// raised are the writes for the lowest version that a package demands; none if
// that much is demanded already.
func (g *Gate) raised(ctx context.Context, name, lowest, digest, author string) ([]unit.Write, error) {
	if lowest == "" {
		return nil, nil
	}
	all, err := g.readTrusted(ctx)
	if err != nil {
		return nil, err
	}
	old, err := all.floor(name)
	if err != nil {
		return nil, err
	}
	if old != nil && !plugin.Older(old.Lowest, lowest) {
		return nil, nil
	}
	row, err := plugin.RaiseFloor(old, name, lowest, digest, false, author, g.Now().UTC())
	if err != nil {
		return nil, err
	}
	if old == nil {
		return []unit.Write{unit.Insert(row)}, nil
	}
	return []unit.Write{unit.Update(row)}, nil
}

// uninstalled refuses to say again that a package is installed which is not any
// more.
func uninstalled(ctx context.Context, g *Gate, was plugin.Installed) error {
	all, err := g.Store.Plugins(ctx)
	if err != nil {
		return fault.Wrap(err, "read installed plugins")
	}
	now, err := installedAs(all, was.Name)
	if err != nil {
		return err
	}
	if now == nil || now.Digest != was.Digest || now.State != plugin.Active {
		return gone("the package was removed or replaced")
	}
	return nil
}

// installedAs is the row of a name, nil if there is none, and Denied if it cannot be
// read.
func installedAs(all []plugin.Installed, name string) (*plugin.Installed, error) {
	for _, row := range all {
		if row.Name == name {
			return &row, row.Readable()
		}
	}
	return nil, nil
}

// errInstalled ends an installation that was decided before, on this node or on
// another: its files are in the store of this node now, and there is nothing to
// decide.
var errInstalled = errors.New("installed already")

// describe is what a record says of an installed package.
func describe(p plugin.Installed) map[string]string {
	return map[string]string{
		"version": p.Package, "digest": p.Digest, "publisher": p.Publisher, "keys": strings.Join(p.KeyIDs, " "),
		"kinds": strings.Join(p.Offer.Kinds, " "), "roles": strings.Join(p.Offer.Roles, " "),
		"signed_for": string(p.Use), "accepted": strings.Join(p.Asks, ", "),
	}
}

// refusedPackage records that a package was refused, since somebody tried to
// run code here, and returns why.
func (g *Gate) refusedPackage(ctx context.Context, record audit.Record, cause error) error {
	record.Type, record.Outcome, record.Reasons = "plugin.refused", audit.Denied, []string{fault.Public(cause)}
	record.Data["reason"] = string(plugin.ReasonOf(cause))
	if err := g.commit(ctx, unit.Unit{Record: record}); err != nil {
		return fault.Unavailablef("the refusal of this package could not be recorded, try again").Because(err)
	}
	return cause
}
