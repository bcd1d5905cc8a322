package flow

import (
	"context"
	"io"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Depot is the repository that this server keeps itself.
type Depot interface {
	// Receive takes a package onto the disk and judges it. The caller closes the
	// parcel. Unavailable where another replica is the one that writes.
	Receive(ctx context.Context, pack io.Reader, trust plugin.Trust) (Parcel, error)
	// File opens a file of the repository, NotFound for any other.
	File(name string) (io.ReadCloser, int64, error)
}

// Parcel is a verified package that is not in the repository yet.
type Parcel interface {
	Entry() plugin.Entry
	// Publish puts it into the repository; doing so again changes nothing. A name
	// that the repository does not give away is Denied, a version that is there
	// with another content a Conflict.
	Publish(ctx context.Context) (plugin.Release, error)
	Close()
}

// UploadPackage takes a package into the server's own repository, if a trusted
// publisher signed it and policy lets the caller bring one of this name. A
// certificate alone is not enough: the session's scopes say that it is for
// uploads (administer:package, and administer:package/NAME).
//
// The repository is a folder and cannot join the unit: the record comes first,
// so that nothing is offered that is not recorded. After a crash in between the
// record speaks of a package that is not there, and the caller, who got no
// answer, sends it again.
func (g *Gate) UploadPackage(ctx context.Context, c Caller, pack io.Reader) (plugin.Release, error) {
	if g.Depot == nil {
		return plugin.Release{}, noDepot()
	}
	record := audit.Record{Type: "package.uploaded", Actor: c.actor(), Data: map[string]string{}}
	if c.Session.ID == "" {
		return plugin.Release{}, fault.Unauthenticatedf("send a session token with the upload: POST /v1/sessions makes one, with the scopes administer:package and administer:package/*")
	}
	if _, err := g.inspected(ctx, c, "upload", record, "package", ""); err != nil {
		return plugin.Release{}, err
	}
	if err := g.Clock.CheckClock(ctx); err != nil { // keys expire
		return plugin.Release{}, err
	}
	trusted, err := g.Store.Generation(ctx, "trust")
	if err != nil {
		return plugin.Release{}, fault.Wrap(err, "read trust generation")
	}
	trust, err := g.trust(ctx)
	if err != nil {
		return plugin.Release{}, err
	}
	// Others run it: neither developers of this server nor its lock file decide.
	trust.Development, trust.Locked = false, nil
	p, err := g.Depot.Receive(ctx, pack, trust)
	if err != nil {
		return plugin.Release{}, g.refusedUpload(ctx, record, err)
	}
	defer p.Close()
	m := p.Entry().Manifest
	err = g.decide(ctx, &c, func() (unit.Unit, error) {
		record.Target, record.Data = m.Name, map[string]string{"version": m.Version, "digest": p.Entry().Digest, "publisher": m.Publisher}
		d, err := g.administered(ctx, c, "upload", record, "package", m.Name)
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under),
			unit.Do("generations.check", 1, "the trusted publishers have changed, try again", "trust", trusted))}, nil
	})
	if err != nil {
		return plugin.Release{}, err
	}
	r, err := p.Publish(context.WithoutCancel(ctx)) // who goes away stops nothing that is recorded
	if err != nil {
		return plugin.Release{}, g.refusedUpload(ctx, record, err)
	}
	return r, nil
}

// refusedUpload records that a package was not taken in, and returns why.
func (g *Gate) refusedUpload(ctx context.Context, record audit.Record, cause error) error {
	record.Type, record.Outcome, record.Policy, record.Reasons = "package.refused", audit.Denied, nil, []string{fault.Public(cause)}
	if reason, ok := plugin.Reasoned(cause); ok {
		record.Data["reason"] = string(reason)
	}
	if err := g.commit(ctx, unit.Unit{Record: record}); err != nil {
		return fault.Unavailablef("the refusal of this package could not be recorded, try again").Because(err)
	}
	return cause
}

// RepositoryFile reads a file of the server's own repository. It is for
// everybody: what is in it protects itself.
func (g *Gate) RepositoryFile(name string) (io.ReadCloser, int64, error) {
	if g.Depot == nil {
		return nil, 0, noDepot()
	}
	return g.Depot.File(name)
}

func noDepot() error {
	return fault.NotFoundf("this server keeps no plugin repository; an operator switches it on with plugins.repository in the configuration")
}
