package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
)

// External lists backends, in the words of existing brokers.
type External struct {
	Backends []ExternalBackend `yaml:"backends"`
}

// ExternalBackend is what answers below one name: an address, or, without an
// endpoint, the installed package of that name.
type ExternalBackend struct {
	Name     string `yaml:"name"`
	Endpoint string `yaml:"endpoint"` // https://host:port, or http://host:port without TLS
	// CACertPath has the only authorities that are believed for https.
	CACertPath string `yaml:"ca_cert_path"`
	TimeoutMS  int    `yaml:"timeout_ms"` // for each of the three calls; 5000 if absent
	// ClientCertPath and ClientKeyPath are shown to a plugin that asks who calls.
	ClientCertPath string `yaml:"client_cert_path"`
	ClientKeyPath  string `yaml:"client_key_path"`
	Concurrency    int    `yaml:"concurrency"` // calls in flight; 256 if absent
	// Routes are floors, the first that fits a request counts.
	Routes []ExternalRoute `yaml:"routes"`
	// Encrypt is ask (default), or always: guests' answers are sealed whatever the
	// plugin says.
	Encrypt string `yaml:"encrypt"`
	// Rich passes the plugin's status and content type on.
	Rich bool `yaml:"rich"`
}

// ExternalRoute is a floor; see [manifest.KBSRoute].
type ExternalRoute struct {
	Path    string   `yaml:"path"`
	Methods []string `yaml:"methods"`
	Floor   string   `yaml:"floor"`
}

func (e *External) paths() []*string {
	if e == nil {
		return nil
	}
	var out []*string
	for i := range e.Backends {
		b := &e.Backends[i]
		out = append(out, &b.CACertPath, &b.ClientCertPath, &b.ClientKeyPath)
	}
	return out
}

// validate refuses what could only be a mistake; endpoints and files are judged
// when they are used.
func (e *External) validate() error {
	if e == nil {
		return nil
	}
	if len(e.Backends) == 0 {
		return fault.Invalidf("kbs.external has no backends: name some, or leave it out")
	}
	seen := map[string]bool{}
	for _, b := range e.Backends {
		switch {
		case !manifest.ValidName(b.Name):
			return fault.Invalidf("kbs.external: the name %q must be lower-case letters, digits and inner hyphens", b.Name)
		case b.Name == flow.CredentialBackend:
			return fault.Invalidf("kbs.external: the name %s is that of the credentials that this server vends to guests; choose another", b.Name)
		case seen[b.Name]:
			return fault.Invalidf("kbs.external: two backends are called %s; give each a name of its own", b.Name)
		case b.TimeoutMS < 0 || b.TimeoutMS > 600_000:
			return fault.Invalidf("kbs.external: timeout_ms of %s must be 1 to 600000", b.Name)
		case b.Concurrency < 0 || b.Concurrency > 16<<10:
			return fault.Invalidf("kbs.external: concurrency of %s must be 1 to %d", b.Name, 16<<10)
		case b.Endpoint == "" && (b.CACertPath != "" || b.ClientCertPath != "" || b.ClientKeyPath != "" || b.TimeoutMS != 0 || b.Concurrency != 0):
			return fault.Invalidf("kbs.external: %s has settings of an address and no endpoint; an installed package needs routes, encrypt and rich alone", b.Name)
		}
		seen[b.Name] = true
		if err := b.rules().Configured.Validate(); err != nil {
			return fault.Invalidf("kbs.external: %s: %s", b.Name, err)
		}
	}
	return nil
}

// addresses are the names of the backends that others run.
func (e *External) addresses() map[string]bool {
	out := map[string]bool{}
	if e == nil {
		return out
	}
	for _, b := range e.Backends {
		if b.Endpoint != "" {
			out[b.Name] = true
		}
	}
	return out
}

func (b ExternalBackend) rules() external.Rules {
	k := &manifest.KBS{Encrypt: b.Encrypt}
	for _, r := range b.Routes {
		k.Routes = append(k.Routes, manifest.KBSRoute(r))
	}
	return external.Rules{Configured: k, Rich: b.Rich}
}

// openExternal makes the gateway. It waits for nobody: a plugin that is down is
// down for its own requests.
func (a *App) openExternal(ctx context.Context) (*external.Gateway, error) {
	c := external.Config{Packages: a.host, Rules: map[string]external.Rules{}, Metrics: a.metrics, Now: time.Now}
	if e := a.cfg.KBS.External; e != nil {
		for _, b := range e.Backends {
			if b.Endpoint == "" {
				c.Rules[b.Name] = b.rules()
				continue
			}
			at := external.Address{
				Name: b.Name, Endpoint: b.Endpoint, CA: b.CACertPath, Certificate: b.ClientCertPath, Key: b.ClientKeyPath,
				Timeout: time.Duration(b.TimeoutMS) * time.Millisecond, Concurrency: b.Concurrency, Rules: b.rules(),
			}
			if at.Plain() {
				a.log.WarnContext(ctx, "an external plugin is called without TLS", slog.String("plugin", b.Name), slog.String("endpoint", b.Endpoint))
				a.weak = append(a.weak, "kbs.external: "+b.Name+" is called without TLS: whoever is on the way reads and changes what it answers")
			}
			c.Addresses = append(c.Addresses, at)
		}
	}
	return external.New(c)
}
