package store

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Policies lists the present version of every document by name, removed ones
// included: their versions go on counting.
func (s *Store) Policies(ctx context.Context) ([]policy.Document, error) {
	rows, err := many[documentRow](ctx, s, "policies", "ORDER BY id")
	return documents(rows), err
}

// PolicyVersions lists all versions of one document, the oldest first.
func (s *Store) PolicyVersions(ctx context.Context, name string) ([]policy.Document, error) {
	rows, err := many[editionRow](ctx, s, "policy_versions", "WHERE id >= $1 AND id < $2", name+"@", name+"A")
	list := documents(rows)
	slices.SortFunc(list, func(a, b policy.Document) int { return cmp.Compare(a.Version, b.Version) })
	return list, err
}

// PolicyVersion reads one version of one document.
func (s *Store) PolicyVersion(ctx context.Context, name string, version int64) (policy.Document, error) {
	e, err := one[editionRow](ctx, s, "policy", "policy_versions", "WHERE id = $1", policy.Document{Name: name, Version: version}.Label())
	return e.Document, err
}

// documentRow reads a row of table policies, whose id is the name.
type documentRow struct{ policy.Document }

func (d *documentRow) Scan(scan unit.Scanner) error {
	var kind, state string
	var at int64
	if err := scan(&d.Name, &d.Version, &kind, &d.Source, &d.Author, &at, &state); err != nil {
		return err
	}
	d.Kind, d.State, d.At = policy.Kind(kind), policy.State(state), unit.Moment(at)
	return nil
}

func (d documentRow) document() policy.Document { return d.Document }

// editionRow reads a row of table policy_versions, whose id is name@version.
type editionRow struct{ documentRow }

func (e *editionRow) Scan(scan unit.Scanner) error {
	if err := e.documentRow.Scan(scan); err != nil {
		return err
	}
	name, version, ok := strings.Cut(e.Name, "@")
	n, err := strconv.ParseInt(version, 10, 64)
	if !ok || err != nil || e.Version != 1 {
		return fault.Internalf("policy version %.128q has a broken name", e.Name)
	}
	e.Name, e.Version = name, n
	return nil
}

func documents[T interface{ document() policy.Document }](rows []T) []policy.Document {
	list := make([]policy.Document, len(rows))
	for i, r := range rows {
		list[i] = r.document()
	}
	return list
}

// Generation is the number of changes that a whole table has seen: policy,
// trust, plugins, keys or reference.
func (s *Store) Generation(ctx context.Context, name string) (int64, error) {
	return s.number(ctx, "generation", "SELECT version FROM generations WHERE name = $1", name)
}

// Resource reads a resource by its path. A deleted one is NotFound.
func (s *Store) Resource(ctx context.Context, path string) (resource.Resource, error) {
	row, err := remembered[resource.Resource](ctx, s, "resource", "resources", 0, path)
	if err == nil && !row.Deleted.IsZero() {
		return resource.Resource{}, fault.NotFoundf("there is no such resource")
	}
	return row, err
}

// LastResource reads what is, or was last, at a path: the next version goes on
// from there. NotFound only where nothing ever was.
func (s *Store) LastResource(ctx context.Context, path string) (resource.Resource, error) {
	return one[resource.Resource](ctx, s, "resource", "resources", "WHERE id = $1", path)
}

// Resources lists resources whose path begins with prefix, after the one given,
// without those that are deleted.
func (s *Store) Resources(ctx context.Context, prefix, after string, limit int) ([]resource.Resource, error) {
	w := where{parts: []string{"deleted = 0"}}
	w.and("id > ?", after)
	if prefix != "" {
		w.and("id >= ?", prefix)
		w.and("id < ?", prefix+"\U0010FFFF")
	}
	clause := w.clause("id", limit)
	return many[resource.Resource](ctx, s, "resources", clause, w.args...)
}

// ResourceVersion reads an older version of a resource; the last one is
// [Store.LastResource].
func (s *Store) ResourceVersion(ctx context.Context, path string, number int64) (resource.Version, error) {
	return one[resource.Version](ctx, s, "version of this resource", "resource_versions", "WHERE id = $1", resource.VersionID(path, number))
}

// ResourceVersions lists the older versions of a resource below a number, the
// newest first.
func (s *Store) ResourceVersions(ctx context.Context, path string, before int64, limit int) ([]resource.Version, error) {
	return many[resource.Version](ctx, s, "resource_versions", "WHERE id >= $1 AND id < $2 ORDER BY id DESC LIMIT $3",
		resource.VersionID(path, 0), resource.VersionID(path, before), page(limit))
}

// Judging is all by what packages are judged. Damaged rows are left out and named,
// so that one of them harms what it is about and nothing else.
func (s *Store) Judging(ctx context.Context) (plugin.Judging, error) {
	var j plugin.Judging
	var err error
	named := func(to *map[string]bool) func(string) {
		*to = map[string]bool{}
		return func(id string) { (*to)[id] = true }
	}
	if j.Publishers, err = list[plugin.Publisher](ctx, s, named(&j.Damaged.Publishers), "publishers", "ORDER BY id"); err != nil {
		return j, err
	}
	if j.Keys, err = list[plugin.Key](ctx, s, named(&j.Damaged.Keys), "trust", "ORDER BY id"); err != nil {
		return j, err
	}
	j.Floors, err = list[plugin.Floor](ctx, s, named(&j.Damaged.Floors), "floors", "ORDER BY id")
	return j, err
}

// Plugins lists what is or was installed. A damaged row is [plugin.Unreadable], so
// that it keeps no other plugin from running.
func (s *Store) Plugins(ctx context.Context) ([]plugin.Installed, error) {
	var damaged []plugin.Installed
	all, err := list[plugin.Installed](ctx, s, func(id string) { damaged = append(damaged, plugin.Unreadable(id)) }, "plugins", "ORDER BY id")
	return append(all, damaged...), err
}

// Installations lists what was ever installed.
func (s *Store) Installations(ctx context.Context) ([]plugin.Installation, error) {
	return many[plugin.Installation](ctx, s, "installations", "ORDER BY id")
}

// Repositories lists the plugin repositories, removed ones included.
func (s *Store) Repositories(ctx context.Context) ([]plugin.Repository, error) {
	return many[plugin.Repository](ctx, s, "repositories", "ORDER BY id")
}

// UploadToken reads an upload token by its id.
func (s *Store) UploadToken(ctx context.Context, id string) (plugin.UploadToken, error) {
	return one[plugin.UploadToken](ctx, s, "upload token", "upload_tokens", "WHERE id = $1", id)
}

// UploadTokens lists the upload tokens, revoked ones included, and those that
// have expired for a while.
func (s *Store) UploadTokens(ctx context.Context) ([]plugin.UploadToken, error) {
	return many[plugin.UploadToken](ctx, s, "upload_tokens", "ORDER BY id")
}

// Endorsements lists what is stored of makers' words on their devices, removed
// ones included.
func (s *Store) Endorsements(ctx context.Context) ([]reference.Endorsement, error) {
	return many[reference.Endorsement](ctx, s, "endorsements", "ORDER BY id")
}

// ReferenceValues lists what evidence is compared with, removed ones included.
func (s *Store) ReferenceValues(ctx context.Context) ([]reference.Value, error) {
	return many[reference.Value](ctx, s, "reference_values", "ORDER BY id")
}

// Keys lists the keys of the house. Before [Store.UseMAC] the rows are not
// verified: only what the key encryption key authenticates may be used of them.
func (s *Store) Keys(ctx context.Context) ([]keys.Key, error) {
	return many[keys.Key](ctx, s, "keys", "ORDER BY id")
}

// DeliveriesDue lists the notifications that must go out now, the oldest first.
// They are durable: a message is sent before anything of it is committed again.
func (s *Store) DeliveriesDue(ctx context.Context, now time.Time, limit int) ([]notify.Delivery, error) {
	list, err := many[notify.Delivery](ctx, s, "deliveries",
		"WHERE due > 0 AND due <= $1 ORDER BY due, id LIMIT $2", unit.Micros(now), page(limit))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	s.queue.settle()
	if why := s.barred.Load(); why != nil {
		return nil, why
	}
	return list, nil
}
