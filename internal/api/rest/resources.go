package rest

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
)

type resourceView struct {
	Path      string    `json:"path" doc:"repository/type/tag"`
	Version   int64     `json:"version"`
	Bytes     int64     `json:"bytes"`
	Author    string    `json:"author,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ChangedAt time.Time `json:"changed_at"`
}

type storedView struct {
	Path    string `json:"path" doc:"repository/type/tag"`
	Version int64  `json:"version"`
}

type versionView struct {
	Version  int64     `json:"version"`
	State    string    `json:"state" enum:"kept,gone,deletion" doc:"Whether the value can be read; gone if it is too old or was erased."`
	Bytes    int64     `json:"bytes"`
	Author   string    `json:"author,omitempty"`
	StoredAt time.Time `json:"stored_at"`
}

type secretView struct {
	Path     string    `json:"path"`
	Version  int64     `json:"version"`
	Author   string    `json:"author,omitempty"`
	StoredAt time.Time `json:"stored_at"`
	Value    []byte    `json:"value" doc:"Base64."`
}

func (d *Door) resources() []route {
	const path = "/v1/resources/{repository}/{type}/{tag}"
	return []route{
		endpoint(route{
			id: "list-resources", method: http.MethodGet, path: "/v1/resources", tag: "resources",
			summary: "List resources", about: "Never shows a value.",
			query: []param{{name: "prefix", about: "Of the path."}, afterParam, limitParam},
		}, d.listResources),
		endpoint(route{
			id: "put-resource", method: http.MethodPut, path: path, tag: "resources", keyed: true, limit: resource.MaxValue,
			summary: "Store a secret for attested workloads",
		}, d.putResource),
		endpoint(route{
			id: "read-resource", method: http.MethodGet, path: path, tag: "resources", summary: "Read a secret in the clear",
			about: "The policy of a new installation allows this to nobody; each time is recorded as resource.read.",
			query: []param{{name: "version", about: "The present one by default.", integer: true}},
		}, d.readResource),
		endpoint(route{
			id: "list-resource-versions", method: http.MethodGet, path: path + "/versions", tag: "resources",
			summary: "List what is and was stored at a path", about: "The newest first, without values.",
			query: []param{{name: "after", about: "The version after which to go on."}, limitParam},
		}, d.listVersions),
		endpoint(route{
			id: "delete-resource", method: http.MethodDelete, path: path, tag: "resources", keyed: true, summary: "Remove a secret",
			about: "Versions of a path go on counting: what is stored there later has another one. Older values stay readable unless they are erased.",
			query: []param{{name: "erase", about: "Take all values of the path away for good, the older ones too.", boolean: true}},
		}, d.deleteResource),
	}
}

func (d *Door) listResources(ctx context.Context, x *exchange, _ none) (page[resourceView], error) {
	limit, err := x.page()
	if err != nil {
		return page[resourceView]{}, err
	}
	rows, err := d.cfg.Gate.Resources(ctx, x.caller, x.query.Get("prefix"), x.query.Get("after"), limit)
	if err != nil {
		return page[resourceView]{}, err
	}
	return paged(rows, limit, viewResource, func(r resource.Resource) string { return r.ID }), nil
}

func viewResource(r resource.Resource) resourceView {
	return resourceView{Path: r.ID, Version: r.Version, Bytes: r.Bytes, Author: r.Author, CreatedAt: r.Created.UTC(), ChangedAt: r.Changed.UTC()}
}

func (x *exchange) segments() []string {
	return []string{x.value("repository"), x.value("type"), x.value("tag")}
}

func (d *Door) putResource(ctx context.Context, x *exchange, in blob) (storedView, error) {
	r, err := d.cfg.Gate.PutResource(ctx, x.caller, x.segments(), secret.New(in))
	return storedView{r.ID, r.Version}, err
}

func (d *Door) deleteResource(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.DeleteResource(ctx, x.caller, x.segments(), x.query.Get("erase") == "true")
}

func (d *Door) readResource(ctx context.Context, x *exchange, _ none) (secretView, error) {
	number, err := version(x.query.Get("version"))
	if err != nil {
		return secretView{}, err
	}
	v, plain, err := d.cfg.Gate.ReadResource(ctx, x.caller, x.segments(), number)
	return secretView{v.Path, v.Number, v.Author, v.At.UTC(), plain.Reveal()}, err
}

func (d *Door) listVersions(ctx context.Context, x *exchange, _ none) (page[versionView], error) {
	limit, err := x.page()
	if err != nil {
		return page[versionView]{}, err
	}
	before, err := version(x.query.Get("after"))
	if err != nil {
		return page[versionView]{}, err
	}
	rows, err := d.cfg.Gate.ResourceVersions(ctx, x.caller, x.segments(), before, limit)
	if err != nil {
		return page[versionView]{}, err
	}
	return paged(rows, limit, viewVersion, func(v resource.Version) string { return strconv.FormatInt(v.Number, 10) }), nil
}

// version reads the number of a version, 0 if there is none.
func version(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, fault.Invalidf("a version is a number from 1")
	}
	return n, nil
}

func viewVersion(v resource.Version) versionView {
	out := versionView{Version: v.Number, State: "kept", Bytes: v.Bytes, Author: v.Author, StoredAt: v.At.UTC()}
	switch {
	case v.Deleted:
		out.State = "deletion"
	case len(v.Sealed) == 0:
		out.State = "gone"
	}
	return out
}
