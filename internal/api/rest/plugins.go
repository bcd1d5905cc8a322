package rest

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

type publisherBody struct {
	Publisher string   `json:"publisher"`
	PublicKey string   `json:"public_key" doc:"Ed25519, PKIX PEM."`
	Names     []string `json:"names,omitempty" nullable:"false" doc:"Patterns of package names that the key may sign; none means all."`
}

type publisherView struct {
	KeyID     string    `json:"key_id" doc:"SHA-256 of the raw public key, lower-case hex."`
	Publisher string    `json:"publisher"`
	PublicKey string    `json:"public_key"`
	Names     []string  `json:"names,omitempty" nullable:"false"`
	State     string    `json:"state"`
	Author    string    `json:"author,omitempty"`
	At        time.Time `json:"at"`
}

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
	Offer     offerView `json:"offer"`
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

	Instances []PluginInstance `json:"instances" nullable:"false" doc:"Its processes; none for a plugin that must not run."`
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
		Name: s.Name, Version: s.Version, Publisher: s.Publisher, Digest: s.Digest, Contract: s.Contract,
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
			id: "list-publishers", method: http.MethodGet, path: "/v1/publishers", tag: "plugins", summary: "List the trusted publisher keys",
		}, d.listPublishers),
		endpoint(route{
			id: "trust-publisher", method: http.MethodPost, path: "/v1/publishers", tag: "plugins", keyed: true, status: http.StatusCreated,
			summary: "Trust a publisher's key",
		}, d.trustPublisher),
		endpoint(route{
			id: "distrust-publisher", method: http.MethodDelete, path: "/v1/publishers/{key_id}", tag: "plugins", keyed: true,
			summary: "Take a key out of trust", about: "Plugins that only it has signed stop.",
		}, d.distrustPublisher),
		endpoint(route{
			id: "list-plugins", method: http.MethodGet, path: "/v1/plugins", tag: "plugins", summary: "List the installed plugins and how they do",
		}, d.listPlugins),
		endpoint(route{
			id: "install-plugin", method: http.MethodPost, path: "/v1/plugins", tag: "plugins", keyed: true, status: http.StatusCreated, limit: packageBody,
			summary: "Verify, store and start a package",
		}, d.installPlugin),
		endpoint(route{
			id: "remove-plugin", method: http.MethodDelete, path: "/v1/plugins/{name}", tag: "plugins", keyed: true, summary: "Stop a plugin",
		}, d.removePlugin),
	}
}

func viewPublisher(k plugin.Key) publisherView {
	out := publisherView{
		KeyID: k.ID, Publisher: k.Publisher, Names: k.Names, State: string(k.State), Author: k.Author, At: k.At.UTC(),
	}
	if der, err := x509.MarshalPKIXPublicKey(k.Public); err == nil {
		out.PublicKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	return out
}

func viewInstalled(i plugin.Installed) installedView {
	return installedView{
		Name: i.Name, Version: i.Package, Digest: i.Digest, Publisher: i.Publisher, KeyIDs: filled(i.KeyIDs),
		Offer: offerView{i.Offer.Contract, filled(i.Offer.Roles), filled(i.Offer.Kinds)}, State: string(i.State), At: i.At.UTC(), Author: i.Author,
	}
}

func (d *Door) listPublishers(ctx context.Context, x *exchange, _ none) (page[publisherView], error) {
	keys, err := d.cfg.Gate.Publishers(ctx, x.caller)
	if err != nil {
		return page[publisherView]{}, err
	}
	return paged(keys, 0, viewPublisher, nil), nil
}

func (d *Door) trustPublisher(ctx context.Context, x *exchange, in publisherBody) (publisherView, error) {
	public, err := plugin.ParsePublicKey([]byte(in.PublicKey))
	if err != nil {
		return publisherView{}, fault.Invalidf("public_key must be one PEM block PUBLIC KEY with an Ed25519 key").Because(err)
	}
	k, err := d.cfg.Gate.TrustPublisher(ctx, x.caller, in.Publisher, public, in.Names)
	if err != nil {
		return publisherView{}, err
	}
	return viewPublisher(k), nil
}

func (d *Door) distrustPublisher(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.DistrustPublisher(ctx, x.caller, x.value("key_id"))
}

func (d *Door) listPlugins(ctx context.Context, x *exchange, _ none) (pluginsView, error) {
	rows, status, err := d.cfg.Gate.Plugins(ctx, x.caller)
	if err != nil {
		return pluginsView{}, err
	}
	return pluginsView{paged(rows, 0, viewInstalled, nil).Items, PluginStatuses(status)}, nil
}

func (d *Door) installPlugin(ctx context.Context, x *exchange, in stream) (installedView, error) {
	row, err := d.cfg.Gate.InstallPlugin(ctx, x.caller, in)
	return viewInstalled(row), err
}

func (d *Door) removePlugin(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.RemovePlugin(ctx, x.caller, x.value("name"))
}
