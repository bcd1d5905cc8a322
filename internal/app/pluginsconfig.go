package app

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/annex"
)

// Plugins says how this server runs its plugins.
type Plugins struct {
	// Sandbox says how plugins are confined: required, preferred (default) or
	// off, which weakens.
	Sandbox string `yaml:"sandbox"`
	// Interpreters are the programs that run interpreted plugins, absolute paths
	// by the name that a manifest uses. python3 and python3.N need none: they are
	// looked for in /usr/bin and /usr/local/bin.
	Interpreters map[string]string `yaml:"interpreters"`
	// Scale is how wide plugins run on this node, by their names; those that are
	// not named run by the defaults.
	Scale map[string]Scale `yaml:"scale"`
	// Repository is the plugin repository that this server keeps itself; none
	// without a folder.
	Repository OwnRepository `yaml:"repository"`
	// Install are the plugins that must be there before the server is ready.
	Install []Listed `yaml:"install"`
	// Lock names a lock file, as plugin lock writes it: nothing else runs, and the
	// server does not start where something else is installed or something is
	// missing.
	Lock string `yaml:"lock"`
	// Gates names the extensions that are asked before decisions, by the gates of
	// each: release, admit. While one of them does not run, or does not answer, what
	// it would be asked about is refused.
	Gates map[string][]string `yaml:"gates"`
	// ExtensionBytes is the largest size of an extension's database, with SQLite;
	// 256 MiB if 0.
	ExtensionBytes int64 `yaml:"extension_bytes"`
	// Development accepts packages that a developer's own key has signed. It
	// weakens, and is for nobody's production.
	Development bool `yaml:"development"`
}

// OwnRepository is a repository that takes packages in (POST /plugins/upload) and
// serves them (GET /plugins/repository/).
type OwnRepository struct {
	// Dir is the folder, as plugin repository init makes it, with names for
	// uploads.
	Dir string `yaml:"dir"`
	// Keys is the folder of snapshot.key, timestamp.key and uploads.key, outside of
	// Dir and readable by the server's user alone.
	Keys string `yaml:"keys"`
}

func (r OwnRepository) validate() error {
	if (r.Dir == "") != (r.Keys == "") {
		return fault.Invalidf("plugins.repository needs both dir and keys")
	}
	if r.Dir == "" {
		return nil
	}
	if in, err := filepath.Rel(r.Dir, r.Keys); err == nil && filepath.IsLocal(in) {
		return fault.Invalidf("plugins.repository: the keys must not lie inside of dir, which is public")
	}
	return nil
}

// Scale is how wide one plugin runs. A member that is not given, or 0, is the
// default of [plugin.Scale].
type Scale struct {
	Instances   int `yaml:"instances"`   // processes, 1 to 32
	Concurrency int `yaml:"concurrency"` // calls in flight over all of them, at most 16384
	Queue       int `yaml:"queue"`       // calls that may wait for their turn, at most 65536
}

// validate refuses what the machine could not mean.
func (p Plugins) validate() error {
	switch p.Sandbox {
	case string(sandbox.Required), string(sandbox.Preferred), off:
	default:
		return fault.Invalidf("plugins.sandbox is %q: use required, preferred or off", p.Sandbox)
	}
	for name, path := range p.Interpreters {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return fault.Invalidf("plugins.interpreters: %s must be an absolute path without detours", name)
		}
	}
	for name, s := range p.Scale {
		for _, m := range []struct {
			name        string
			value, most int
		}{{"instances", s.Instances, 32}, {"concurrency", s.Concurrency, 16 << 10}, {"queue", s.Queue, 64 << 10}} {
			if m.value < 0 || m.value > m.most {
				return fault.Invalidf("plugins.scale: %s of %s must be 1 to %d", m.name, name, m.most)
			}
		}
	}
	for name, gates := range p.Gates {
		for _, gate := range gates {
			if !slices.Contains(manifest.Gates(), gate) {
				return fault.Invalidf("plugins.gates: %s of %s is no gate; use %s", gate, name, strings.Join(manifest.Gates(), ", "))
			}
		}
	}
	for _, l := range p.Install {
		if err := l.validate(); err != nil {
			return err
		}
	}
	return p.Repository.validate()
}

func (p Plugins) scale() map[string]plugin.Scale {
	out := make(map[string]plugin.Scale, len(p.Scale))
	for name, s := range p.Scale {
		out[name] = plugin.Scale(s)
	}
	return out
}

// gates are the names of extensions by gate, sorted.
func (p Plugins) gates() map[string][]string {
	out := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(p.Gates)) {
		for _, gate := range p.Gates[name] {
			out[gate] = append(out[gate], name)
		}
	}
	return out
}

// openAnnexes makes the databases of extensions ready to be opened, where our own
// is.
func (a *App) openAnnexes() (*annex.Annexes, error) {
	cfg := annex.Config{
		Driver: a.cfg.Storage.Driver, Dir: filepath.Join(a.cfg.DataDir, "extensions"), MaxBytes: a.cfg.Plugins.ExtensionBytes, Log: a.log,
		Password: func(name string) (secret.Bytes, error) { return a.keys().vault.Password("extension", name) },
		Installed: func(ctx context.Context, name, publisher string) error {
			return a.gate.PluginInstalled(ctx, name, publisher)
		},
	}
	if cfg.Driver == store.PostgreSQL {
		var err error
		if cfg.DSN, err = connection(a.cfg.Storage); err != nil {
			return nil, err
		}
	}
	return annex.New(cfg)
}

// openSandbox finds out how plugins can be confined here, and says what cannot
// be had.
func (a *App) openSandbox(ctx context.Context) (plugin.Sandbox, error) {
	if a.cfg.Plugins.Sandbox == off {
		a.weak = append(a.weak, "plugins.sandbox is off: plugins run as the server's user and are not confined")
		return nil, nil //nolint:nilnil // none is wanted
	}
	box, err := sandbox.New(sandbox.Config{Mode: sandbox.Mode(a.cfg.Plugins.Sandbox), Private: a.cfg.private(), Log: a.log})
	if err != nil {
		return nil, err
	}
	a.sandbox = box
	for _, m := range box.Missing() {
		a.log.WarnContext(ctx, "plugins are confined in part", slog.String("missing", m), slog.String("mode", a.cfg.Plugins.Sandbox))
	}
	if lacks := box.Lacks(); lacks != "" && a.cfg.Plugins.Sandbox == string(sandbox.Preferred) {
		a.weak = append(a.weak, "plugins.sandbox is preferred, and this host has no "+lacks+": plugins are confined without")
	}
	return box, nil
}

// private are the files and folders that no plugin is given: the data, and keys.
func (c *Config) private() []string {
	list := append([]string{c.DataDir, c.StateDir, c.KEK.File, c.Storage.DSNFile, c.Plugins.Repository.Keys, c.Listen.Main.Key}, c.KEK.Old...)
	for _, l := range c.Listen.Further {
		list = append(list, l.Key)
	}
	return slices.DeleteFunc(list, func(p string) bool { return p == "" })
}
