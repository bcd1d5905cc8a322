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
	// ID names the repository for ever: the SHA-256 of its first root, in
	// lower-case hex.
	ID() string
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
// uploads (administer:package, and administer:package/NAME), or an upload token
// says whose packages it is for.
//
// The repository is a folder and cannot join the unit: the record comes first,
// so that nothing is offered that is not recorded. After a crash in between the
// record speaks of a package that is not there, and the caller, who got no
// answer, sends it again.
func (g *Gate) UploadPackage(ctx context.Context, c Caller, pack io.Reader) (plugin.Release, error) {
	if g.Depot == nil {
		return plugin.Release{}, noDepot()
	}
	record := audit.Record{Type: "package.uploaded", Actor: c.actor(), Data: c.upload.data()}
	if c.Session.ID == "" && c.upload == nil {
		return plugin.Release{}, fault.Unauthenticatedf("send a session token with the upload, or an upload token: POST /v1/sessions makes the first, with the scopes administer:package and administer:package/*")
	}
	if _, err := g.inspected(ctx, c, "upload", record, "package", ""); err != nil {
		return plugin.Release{}, err
	}
	if err := g.Clock.CheckClock(ctx); err != nil { // keys and tokens expire
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
	// Others run it: neither developers of this server nor its configuration decide.
	trust.Development, trust.Locked, trust.Addresses = false, nil, nil
	p, err := g.Depot.Receive(ctx, pack, trust)
	if err != nil {
		return plugin.Release{}, g.refusedUpload(ctx, record, err)
	}
	defer p.Close()
	if err := c.upload.covers(p.Entry()); err != nil {
		record.Target = p.Entry().Manifest.Name
		return plugin.Release{}, g.refusedUpload(ctx, record, err)
	}
	if err := g.recordUpload(ctx, c, p.Entry(), record, trusted); err != nil {
		return plugin.Release{}, err
	}
	r, err := p.Publish(context.WithoutCancel(ctx)) // who goes away stops nothing that is recorded
	if err != nil {
		record.Target = p.Entry().Manifest.Name
		return plugin.Release{}, g.refusedUpload(ctx, record, err)
	}
	return r, nil
}

// recordUpload commits that a package comes, if policy allows it, and the caller
// and the trusted publishers are still what they were.
func (g *Gate) recordUpload(ctx context.Context, c Caller, e plugin.Entry, record audit.Record, trusted int64) error {
	m := e.Manifest
	return g.decide(ctx, &c, func() (unit.Unit, error) {
		if c.upload.lapsed(g.Now()) {
			return unit.Unit{}, notAdmitted()
		}
		record.Target, record.Data = m.Name, c.upload.data()
		record.Data["version"], record.Data["digest"], record.Data["publisher"] = m.Version, e.Digest, m.Publisher
		d, err := g.administered(ctx, c, "upload", record, "package", m.Name)
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under),
			unit.Do("generations.check", 1, "the trusted publishers have changed, try again", "trust", trusted))}, nil
	})
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
