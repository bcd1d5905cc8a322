package sallyport

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// InstalledPlugin is a package that an operator decided to run.
type InstalledPlugin struct {
	Name      string      `json:"name"`
	Version   string      `json:"version"`
	Digest    string      `json:"digest"`
	Publisher string      `json:"publisher"`
	KeyIDs    []string    `json:"key_ids"`
	SignedFor string      `json:"signed_for"` // package, agentkms (legacy) or development
	Offer     PluginOffer `json:"offer"`
	Accepted  []string    `json:"accepted"` // what the package asks for, as the operator has accepted it
	State     string      `json:"state"`
	At        time.Time   `json:"at"`
	Author    string      `json:"author"`
}

// PluginOffer is what a package does.
type PluginOffer struct {
	Contract string   `json:"contract"`
	Roles    []string `json:"roles"`
	Kinds    []string `json:"kinds"`
}

// PluginStatus is how one installed plugin does on the replica that answers.
type PluginStatus struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Publisher string    `json:"publisher"`
	Digest    string    `json:"digest"`
	SignedFor string    `json:"signed_for"` // package, agentkms (legacy) or development
	Contract  string    `json:"contract"`
	Roles     []string  `json:"roles"`
	Kinds     []string  `json:"kinds"`
	State     string    `json:"state"`  // idle, starting, ready, pausing, broken, refused or stopped
	Reason    string    `json:"reason"` // OK, or a code
	Detail    string    `json:"detail,omitempty"`
	Sandbox   string    `json:"sandbox"`
	PID       int       `json:"pid,omitempty"` // of the first process that serves
	Since     time.Time `json:"since"`
	Starts    int       `json:"starts"`
	Crashes   int       `json:"crashes"`
	InFlight  int       `json:"in_flight"`
	Waiting   int       `json:"waiting"` // calls that wait for their turn
	Calls     uint64    `json:"calls"`
	Failures  uint64    `json:"failures"`

	// Interpreter ran its last process; nil if that is an executable of the
	// package.
	Interpreter *PluginInterpreter `json:"interpreter,omitempty"`
	// Announced is what a plugin of agentkms.plugin.v1 says that it can do; nil if it
	// says nothing.
	Announced *PluginAnnounced `json:"announced,omitempty"`
	// Instances are its processes; none for a plugin that must not run.
	Instances []PluginInstance `json:"instances"`
}

// PluginInterpreter is the program of the server's machine that runs a plugin.
type PluginInterpreter struct {
	Name   string `json:"name"` // as the manifest names it
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// PluginAnnounced is what a plugin says of itself. Nothing follows from it.
type PluginAnnounced struct {
	Capabilities []string `json:"capabilities"`
	APIVersion   uint32   `json:"api_version"` // of its contract; 0 if it does not say
}

// PluginInstance is one process of a plugin, or its place while there is none.
type PluginInstance struct {
	State    string    `json:"state"`
	Reason   string    `json:"reason"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"`
	Starts   int       `json:"starts"`
	Crashes  int       `json:"crashes"`
	InFlight int       `json:"in_flight"`
}

// Plugins is what is installed and how it does.
type Plugins struct {
	Items  []InstalledPlugin `json:"items"`
	Status []PluginStatus    `json:"status"`
}

// Plugins lists the installed plugins.
func (c *Client) Plugins(ctx context.Context) (Plugins, error) {
	var out Plugins
	r := get("/v1/plugins")
	r.limit = maxList
	_, err := c.do(ctx, r, &out)
	return out, err
}

// InstallRequest is what the operator has agreed to. The zero value takes the
// package that comes, if it is no older than the one that is installed.
type InstallRequest struct {
	Digest         string // of the package: another one is refused
	AllowDowngrade bool   // accept an older version
}

func (r InstallRequest) query() url.Values {
	down := ""
	if r.AllowDowngrade {
		down = "true"
	}
	return set("digest", r.Digest, "allow_downgrade", down)
}

// InstallPlugin sends a package, which the server verifies and starts. The stream
// is sent once: a caller that gets [Unavailable] may send the package again.
// Installing what is installed changes nothing; [WithIdempotencyKey] guards
// against a package that was removed meanwhile.
func (c *Client) InstallPlugin(ctx context.Context, pack io.Reader, r InstallRequest) (InstalledPlugin, error) {
	var out InstalledPlugin
	_, err := c.do(ctx, call{
		method: http.MethodPost, path: "/v1/plugins", query: r.query(), stream: pack, kind: "application/octet-stream", keyed: true,
	}, &out)
	return out, err
}

// BarePlugin describes an executable that AgentKMS has signed.
type BarePlugin struct {
	Name      string
	Publisher string
	Signature []byte   // raw Ed25519 over the executable
	Version   string   // 0.0.0 if empty
	Kind      string   // of credential; asked of the executable if empty
	Roles     []string // asked of the executable if empty
	Network   []string // what it may reach: host:port
}

// InstallBarePlugin is [Client.InstallPlugin] for an executable that AgentKMS has
// signed.
func (c *Client) InstallBarePlugin(ctx context.Context, executable io.Reader, b BarePlugin, r InstallRequest) (InstalledPlugin, error) {
	q := r.query()
	for name, value := range set("name", b.Name, "publisher", b.Publisher, "signature", base64.StdEncoding.EncodeToString(b.Signature),
		"version", b.Version, "kind", b.Kind, "roles", strings.Join(b.Roles, ","), "network", strings.Join(b.Network, ",")) {
		q[name] = value
	}
	var out InstalledPlugin
	_, err := c.do(ctx, call{
		method: http.MethodPost, path: "/v1/plugins/agentkms", query: q, stream: executable, kind: "application/octet-stream", keyed: true,
	}, &out)
	return out, err
}

// PluginFloor is the lowest version of a package that may run.
type PluginFloor struct {
	Name   string    `json:"name"`
	Lowest string    `json:"lowest"`
	Origin string    `json:"origin"` // operator, or the digest of the package that demanded it
	At     time.Time `json:"at"`
	Author string    `json:"author"`
}

// PluginFloors lists the lowest versions.
func (c *Client) PluginFloors(ctx context.Context) (Page[PluginFloor], error) {
	return list[PluginFloor](ctx, c, get("/v1/plugins/floors"))
}

// SetPluginFloor demands a lowest version of a package; with lower it may go
// down.
func (c *Client) SetPluginFloor(ctx context.Context, name, lowest string, lower bool) (PluginFloor, error) {
	body := struct {
		Lowest string `json:"lowest"`
		Lower  bool   `json:"lower,omitempty"`
	}{lowest, lower}
	var out PluginFloor
	_, err := c.do(ctx, call{method: http.MethodPut, path: join("/v1/plugins/{}/floor", name), body: body, keyed: true}, &out)
	return out, err
}

// RemovePlugin stops a plugin.
func (c *Client) RemovePlugin(ctx context.Context, name string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: join("/v1/plugins/{}", name), keyed: true}, nil)
	return err
}
