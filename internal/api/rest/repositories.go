package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// bundleBody is the limit of a bundle: several packages may come in one.
const bundleBody = 1 << 30

type repositoryBody struct {
	Name string `json:"name"`
	URL  string `json:"url" doc:"Where clients fetch: https, http on loopback, or the path of a folder on the client's machine. The server never fetches."`
	Root []byte `json:"root" doc:"root.json of the repository, as its publisher handed it over by another way."`
}

type repositoryView struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	// Root, Timestamp and Snapshot are what the next metadata is judged by.
	Root      []byte    `json:"root" doc:"The trusted root: the one that was pinned, or a later one that it led to."`
	Timestamp []byte    `json:"timestamp,omitempty" doc:"The last timestamp that was seen; an older one is refused."`
	Snapshot  []byte    `json:"snapshot,omitempty"`
	At        time.Time `json:"at" doc:"When it was pinned, or something new was last seen."`
	Author    string    `json:"author"`
}

func viewRepository(r plugin.Repository) repositoryView {
	return repositoryView{
		Name: r.Name, URL: r.URL, Root: r.Seen.Root, Timestamp: r.Seen.Timestamp, Snapshot: r.Seen.Snapshot, At: r.At.UTC(), Author: r.Author,
	}
}

type repositoriesView struct {
	Items []repositoryView `json:"items" nullable:"false"`
}

type releaseView struct {
	Name             string   `json:"name"`
	Version          string   `json:"version"`
	Digest           string   `json:"digest"`
	Publisher        string   `json:"publisher"`
	Roles            []string `json:"roles" nullable:"false"`
	Kinds            []string `json:"kinds" nullable:"false"`
	Summary          string   `json:"summary,omitempty"`
	MinSecureVersion string   `json:"min_secure_version,omitempty"`
	Yanked           string   `json:"yanked,omitempty" doc:"Why it was withdrawn."`
	Size             int64    `json:"size"`
	SHA256           string   `json:"sha256" doc:"Of the file."`
	Role             string   `json:"role" doc:"Which role of the repository vouches for it."`
}

func viewRelease(r plugin.Release) releaseView {
	v := releaseView(r)
	v.Roles, v.Kinds = filled(r.Roles), filled(r.Kinds)
	return v
}

type deliveryView struct {
	Repository string           `json:"repository"`
	Versions   map[string]int64 `json:"versions" doc:"Of the repository's roles."`
	Expires    time.Time        `json:"expires" doc:"When the first of its files expires."`
	Releases   []releaseView    `json:"releases" nullable:"false"`
	Installed  []installedView  `json:"installed" nullable:"false"`
}

func viewDelivery(d flow.Delivery) deliveryView {
	return deliveryView{
		Repository: d.Repository.Name, Versions: d.View.Versions, Expires: d.View.Expires,
		Releases: paged(d.View.Releases, 0, viewRelease, nil).Items, Installed: paged(d.Installed, 0, viewInstalled, nil).Items,
	}
}

type rollbackBody struct {
	Version string `json:"version,omitempty" doc:"Which was installed before; by default the newest that is older than the present one."`
}

type installationView struct {
	Name       string    `json:"name"`
	Version    string    `json:"version"`
	Digest     string    `json:"digest"`
	Repository string    `json:"repository,omitempty" doc:"Where it came from; absent for a file."`
	At         time.Time `json:"at"`
	Author     string    `json:"author"`
}

type installationsView struct {
	Items []installationView `json:"items" nullable:"false"`
}

func (d *Door) repositories() []route {
	return []route{
		endpoint(route{
			id: "list-repositories", method: http.MethodGet, path: "/v1/repositories", tag: "plugins", summary: "List the plugin repositories",
		}, d.listRepositories),
		endpoint(route{
			id: "add-repository", method: http.MethodPost, path: "/v1/repositories", tag: "plugins", keyed: true, status: http.StatusCreated,
			limit: policyBody, summary: "Pin a plugin repository by its root",
		}, d.addRepository),
		endpoint(route{
			id: "remove-repository", method: http.MethodDelete, path: "/v1/repositories/{name}", tag: "plugins", keyed: true,
			summary: "Forget a plugin repository", about: "What was installed from it stays.",
		}, d.removeRepository),
		endpoint(route{
			id: "deliver-bundle", method: http.MethodPost, path: "/v1/repositories/{name}/bundles", tag: "plugins", limit: bundleBody,
			query:   []param{{name: "allow_downgrade", about: "Accept older versions than those installed.", boolean: true}},
			summary: "Deliver a repository's metadata, and packages to install",
			about: "The body is a bundle (docs/plugins/repository.md). The metadata is judged by the pinned root and by what was seen before; " +
				"each package is then verified and installed like one that is sent by itself. Again, it finds seen what was seen, and installed what is installed.",
		}, d.deliverBundle),
		endpoint(route{
			id: "list-installations", method: http.MethodGet, path: "/v1/installations", tag: "plugins",
			summary: "List the packages that were ever installed",
		}, d.listInstallations),
		endpoint(route{
			id: "rollback-plugin", method: http.MethodPost, path: "/v1/plugins/{name}/rollback", tag: "plugins", keyed: true, optional: true,
			summary: "Go back to a version that was installed before",
		}, d.rollbackPlugin),
	}
}

func (d *Door) listRepositories(ctx context.Context, x *exchange, _ none) (repositoriesView, error) {
	all, err := d.cfg.Gate.PluginRepositories(ctx, x.caller)
	if err != nil {
		return repositoriesView{}, err
	}
	return repositoriesView{paged(all, 0, viewRepository, nil).Items}, nil
}

func (d *Door) addRepository(ctx context.Context, x *exchange, in repositoryBody) (repositoryView, error) {
	r, err := d.cfg.Gate.AddRepository(ctx, x.caller, in.Name, in.URL, in.Root)
	return viewRepository(r), err
}

func (d *Door) removeRepository(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.RemoveRepository(ctx, x.caller, x.value("name"))
}

func (d *Door) deliverBundle(ctx context.Context, x *exchange, in stream) (deliveryView, error) {
	out, err := d.cfg.Gate.DeliverBundle(ctx, x.caller, x.value("name"), in, x.query.Get("allow_downgrade") == "true")
	return viewDelivery(out), err
}

func (d *Door) listInstallations(ctx context.Context, x *exchange, _ none) (installationsView, error) {
	all, err := d.cfg.Gate.Installations(ctx, x.caller)
	if err != nil {
		return installationsView{}, err
	}
	view := func(i plugin.Installation) installationView {
		return installationView{Name: i.Name, Version: i.Package, Digest: i.Digest, Repository: i.Repository, At: i.At.UTC(), Author: i.Author}
	}
	return installationsView{paged(all, 0, view, nil).Items}, nil
}

func (d *Door) rollbackPlugin(ctx context.Context, x *exchange, in rollbackBody) (installedView, error) {
	row, err := d.cfg.Gate.RollbackPlugin(ctx, x.caller, x.value("name"), in.Version)
	return viewInstalled(row), err
}
