package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
)

type resourceView struct {
	Path      string    `json:"path" doc:"repository/type/tag"`
	Version   int64     `json:"version"`
	Author    string    `json:"author,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ChangedAt time.Time `json:"changed_at"`
}

type storedView struct {
	Path    string `json:"path" doc:"repository/type/tag"`
	Version int64  `json:"version"`
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
			id: "delete-resource", method: http.MethodDelete, path: path, tag: "resources", keyed: true, summary: "Remove a secret",
			about: "Versions of a path go on counting: what is stored there later has another one.",
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
	return resourceView{Path: r.ID, Version: r.Version, Author: r.Author, CreatedAt: r.Created.UTC(), ChangedAt: r.Changed.UTC()}
}

func (x *exchange) segments() []string {
	return []string{x.value("repository"), x.value("type"), x.value("tag")}
}

func (d *Door) putResource(ctx context.Context, x *exchange, in blob) (storedView, error) {
	r, err := d.cfg.Gate.PutResource(ctx, x.caller, x.segments(), secret.New(in))
	return storedView{r.ID, r.Version}, err
}

func (d *Door) deleteResource(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.DeleteResource(ctx, x.caller, x.segments())
}
