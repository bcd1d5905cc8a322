package rest

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

type offerView struct {
	Contract string   `json:"contract"`
	Roles    []string `json:"roles" nullable:"false"`
	Kinds    []string `json:"kinds" nullable:"false"`
}

type installedView struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Digest    string    `json:"digest"`
	Publisher string    `json:"publisher"`
	KeyIDs    []string  `json:"key_ids" nullable:"false"`
	SignedFor string    `json:"signed_for" enum:"package,agentkms,development" doc:"What the keys are trusted for: agentkms is legacy, development is no one's production."`
	Offer     offerView `json:"offer"`
	Accepted  []string  `json:"accepted" nullable:"false" doc:"What the package asks for and the operator has accepted, for example network db.example.org:5432."`
	State     string    `json:"state"`
	At        time.Time `json:"at"`
	Author    string    `json:"author"`
}

// PluginStatus is how one installed plugin does on this replica.
type PluginStatus struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Publisher string    `json:"publisher"`
	Digest    string    `json:"digest"`
	SignedFor string    `json:"signed_for" enum:"package,agentkms,development"`
	Contract  string    `json:"contract"`
	Roles     []string  `json:"roles" nullable:"false"`
	Kinds     []string  `json:"kinds" nullable:"false"`
	State     string    `json:"state" enum:"idle,starting,ready,pausing,broken,refused,stopped"`
	Reason    string    `json:"reason"`
	Detail    string    `json:"detail,omitempty"`
	Sandbox   string    `json:"sandbox"`
	PID       int       `json:"pid,omitempty" doc:"Of the first process that serves."`
	Since     time.Time `json:"since"`
	Starts    int       `json:"starts"`
	Crashes   int       `json:"crashes"`
	InFlight  int       `json:"in_flight" doc:"Calls that are not answered yet."`
	Waiting   int       `json:"waiting" doc:"Calls that wait for their turn."`
	Calls     uint64    `json:"calls"`
	Failures  uint64    `json:"failures"`

	Interpreter *PluginInterpreter `json:"interpreter,omitempty" doc:"What ran its last process, if that is no executable of the package."`
	Announced   *PluginAnnounced   `json:"announced,omitempty" doc:"What a plugin of agentkms.plugin.v1 says that it can do, if it says so."`
	Instances   []PluginInstance   `json:"instances" nullable:"false" doc:"Its processes; none for a plugin that must not run."`
}

// PluginInterpreter is the program of this machine that runs a plugin.
type PluginInterpreter struct {
	Name   string `json:"name" doc:"As the manifest names it."`
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// PluginAnnounced is what a plugin says of itself. Nothing follows from it.
type PluginAnnounced struct {
	Capabilities []string `json:"capabilities" nullable:"false"`
	APIVersion   uint32   `json:"api_version" doc:"Of its contract; 0 if it does not say."`
}

// PluginInstance is one process of a plugin, or its place while there is none.
type PluginInstance struct {
	State    string    `json:"state" enum:"idle,starting,ready,pausing,broken,refused,stopped"`
	Reason   string    `json:"reason"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"`
	Starts   int       `json:"starts"`
	Crashes  int       `json:"crashes"`
	InFlight int       `json:"in_flight"`
}

func viewPlugin(s plugin.Status) PluginStatus {
	instances := make([]PluginInstance, 0, len(s.Instances))
	for _, i := range s.Instances {
		instances = append(instances, PluginInstance{
			State: string(i.State), Reason: string(i.Reason), PID: i.PID, Since: i.Since.UTC(),
			Starts: i.Starts, Crashes: i.Crashes, InFlight: i.InFlight,
		})
	}
	return PluginStatus{
		Interpreter: (*PluginInterpreter)(s.Interpreter), Announced: (*PluginAnnounced)(s.Announced), Name: s.Name, Version: s.Version, Publisher: s.Publisher, Digest: s.Digest, SignedFor: string(s.SignedFor), Contract: s.Contract,
		Roles: filled(s.Roles), Kinds: filled(s.Kinds), State: string(s.State), Reason: string(s.Reason), Detail: s.Detail, Sandbox: s.Sandbox,
		PID: s.PID, Since: s.Since.UTC(), Starts: s.Starts, Crashes: s.Crashes, InFlight: s.InFlight, Waiting: s.Waiting,
		Calls: s.Calls, Failures: s.Failures, Instances: instances,
	}
}

// PluginStatuses are what [Status] holds of the plugin host.
func PluginStatuses(all []plugin.Status) []PluginStatus { return paged(all, 0, viewPlugin, nil).Items }

type pluginsView struct {
	Items  []installedView `json:"items" nullable:"false"`
	Status []PluginStatus  `json:"status" nullable:"false" doc:"On the replica that answers."`
}

func (d *Door) plugins() []route {
	return []route{
		endpoint(route{
			id: "list-plugins", method: http.MethodGet, path: "/v1/plugins", tag: "plugins", summary: "List the installed plugins and how they do",
		}, d.listPlugins),
		endpoint(route{
			id: "install-plugin", method: http.MethodPost, path: "/v1/plugins", tag: "plugins", keyed: true, status: http.StatusCreated, limit: packageBody,
			summary: "Verify, store and start a package", query: installParams,
			about: "A package that is not trusted, or older than what is or was installed, is refused; the detail says why.",
		}, d.installPlugin),
		endpoint(route{
			id: "install-agentkms-plugin", method: http.MethodPost, path: "/v1/plugins/agentkms", tag: "plugins", keyed: true,
			status: http.StatusCreated, limit: packageBody, query: slices.Concat(installParams, bareParams),
			summary: "Verify, store and start a bare executable that AgentKMS has signed",
			about:   "What the query leaves out the executable is asked for, once its signature was verified.",
		}, d.installBare),
		endpoint(route{
			id: "list-plugin-floors", method: http.MethodGet, path: "/v1/plugins/floors", tag: "plugins", summary: "List the lowest versions of packages that may run",
		}, d.listFloors),
		endpoint(route{
			id: "set-plugin-floor", method: http.MethodPut, path: "/v1/plugins/{name}/floor", tag: "plugins", keyed: true,
			summary: "Set the lowest version of a package that may run", about: "What is below it stops.",
		}, d.setFloor),
		endpoint(route{
			id: "remove-plugin", method: http.MethodDelete, path: "/v1/plugins/{name}", tag: "plugins", keyed: true, summary: "Stop a plugin",
		}, d.removePlugin),
		endpoint(route{
			id: "purge-plugin", method: http.MethodDelete, path: "/v1/plugins/{name}/data", tag: "plugins", keyed: true,
			summary: "Remove what a plugin has left", about: "What a plugin that is not installed any more has kept under keys, and the tables of an extension, go for good.",
		}, d.purgePlugin),
	}
}

func viewInstalled(i plugin.Installed) installedView {
	return installedView{
		Name: i.Name, Version: i.Package, Digest: i.Digest, Publisher: i.Publisher, KeyIDs: filled(i.KeyIDs), SignedFor: string(i.Use),
		Accepted: filled(i.Asks), Offer: offerView{i.Offer.Contract, filled(i.Offer.Roles), filled(i.Offer.Kinds)}, State: string(i.State), At: i.At.UTC(), Author: i.Author,
	}
}

func (d *Door) listPlugins(ctx context.Context, x *exchange, _ none) (pluginsView, error) {
	rows, status, err := d.cfg.Gate.Plugins(ctx, x.caller)
	if err != nil {
		return pluginsView{}, err
	}
	return pluginsView{paged(rows, 0, viewInstalled, nil).Items, PluginStatuses(status)}, nil
}

var (
	installParams = []param{
		{name: "digest", about: "Digest of the package that the operator has agreed to; another one is refused."},
		{name: "allow_downgrade", about: "Accept an older version than the one that is or was installed.", boolean: true},
	}
	bareParams = []param{
		{name: "name", about: "Of the plugin; the key must be trusted for it."},
		{name: "publisher", about: "Whose key it is."},
		{name: "signature", about: "Raw Ed25519 over the executable, base64."},
		{name: "version", about: "0.0.0 if absent."},
		{name: "kind", about: "Of credential; asked of the executable if absent."},
		{name: "roles", about: "Of the four, with commas between; asked of the executable if absent."},
		{name: "network", about: "What it may reach: host:port, with commas between."},
	}
)

// agreed reads what the operator has agreed to.
func agreed(x *exchange) (flow.InstallRequest, error) {
	r := flow.InstallRequest{Digest: x.query.Get("digest")}
	switch x.query.Get("allow_downgrade") {
	case "true":
		r.AllowDowngrade = true
	case "", "false":
	default:
		return r, fault.Invalidf("allow_downgrade is true or false")
	}
	return r, nil
}

func (d *Door) installPlugin(ctx context.Context, x *exchange, in stream) (installedView, error) {
	r, err := agreed(x)
	if err != nil {
		return installedView{}, err
	}
	row, err := d.cfg.Gate.InstallPlugin(ctx, x.caller, in, r)
	return viewInstalled(row), err
}

func (d *Door) installBare(ctx context.Context, x *exchange, in stream) (installedView, error) {
	r, err := agreed(x)
	if err != nil {
		return installedView{}, err
	}
	sig, err := base64.StdEncoding.DecodeString(x.query.Get("signature"))
	if err != nil || len(sig) != ed25519.SignatureSize {
		return installedView{}, fault.Invalidf("signature must be the %d bytes of an Ed25519 signature, base64", ed25519.SignatureSize)
	}
	r.Bare = &plugin.Bare{
		Name: x.query.Get("name"), Publisher: x.query.Get("publisher"), Version: x.query.Get("version"), Signature: sig,
		Kind: x.query.Get("kind"), Roles: listed(x.query.Get("roles")), Network: listed(x.query.Get("network")),
	}
	row, err := d.cfg.Gate.InstallPlugin(ctx, x.caller, in, r)
	return viewInstalled(row), err
}

// listed splits a list with commas.
func listed(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

type floorBody struct {
	Lowest string `json:"lowest" doc:"A semantic version."`
	Lower  bool   `json:"lower,omitempty" doc:"It may also go down."`
}

type floorView struct {
	Name   string    `json:"name"`
	Lowest string    `json:"lowest"`
	Origin string    `json:"origin" doc:"operator, or the digest of the package that demanded it."`
	At     time.Time `json:"at"`
	Author string    `json:"author"`
}

func viewFloor(f plugin.Floor) floorView {
	return floorView{Name: f.Name, Lowest: f.Lowest, Origin: f.Origin, At: f.At.UTC(), Author: f.Author}
}

func (d *Door) listFloors(ctx context.Context, x *exchange, _ none) (page[floorView], error) {
	all, err := d.cfg.Gate.Floors(ctx, x.caller)
	if err != nil {
		return page[floorView]{}, err
	}
	return paged(all, 0, viewFloor, nil), nil
}

func (d *Door) setFloor(ctx context.Context, x *exchange, in floorBody) (floorView, error) {
	f, err := d.cfg.Gate.SetFloor(ctx, x.caller, x.value("name"), in.Lowest, in.Lower)
	return viewFloor(f), err
}

func (d *Door) purgePlugin(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.PurgePlugin(ctx, x.caller, x.value("name"))
}

func (d *Door) removePlugin(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.RemovePlugin(ctx, x.caller, x.value("name"))
}
