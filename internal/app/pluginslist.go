package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Listed is a plugin that the configuration demands. The server is not ready
// before it is installed and verified.
type Listed struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
	Digest  string `yaml:"digest"` // as plugin inspect shows it
	// Source is the package file, a folder that has it as NAME-VERSION.spk, or the
	// folder of a repository.
	Source string `yaml:"source"`
}

func (l Listed) validate() error {
	if !manifest.ValidName(l.Name) || !manifest.ValidVersion(l.Version) || l.Digest == "" || l.Source == "" {
		return fault.Invalidf("plugins.install: each plugin needs name, version, digest (sallyport plugin inspect shows it) and source")
	}
	return nil
}

// file is where the package lies. In the folder of a repository its name begins
// with a digest of the file; which of several it is the digest of the package
// says. The metadata is not judged: the list names the one package that is right,
// and nothing newer is looked for (docs/decisions/0026).
func (l Listed) file() string {
	if info, err := os.Stat(l.Source); err != nil || !info.IsDir() {
		return l.Source
	}
	found, _ := filepath.Glob(filepath.Join(l.Source, "targets", l.Name, strings.Repeat("[0-9a-f]", 64)+"."+l.Version+".spk")) // the pattern is well-formed
	for _, file := range found {
		if r, err := plugin.Inspect(file); err == nil && r.Digest == l.Digest {
			return file
		}
	}
	return filepath.Join(l.Source, l.Name+"-"+l.Version+".spk")
}

// readLock reads the lock file, nil without one.
func (p Plugins) readLock() (*plugin.Lock, error) {
	if p.Lock == "" {
		return nil, nil //nolint:nilnil // none is configured
	}
	text, err := os.ReadFile(p.Lock)
	if err != nil {
		return nil, fault.Unavailablef("plugins.lock: %s cannot be read", p.Lock).Because(err)
	}
	l, err := plugin.ParseLock(text)
	return &l, err
}

// settlePlugins installs what the configuration lists, and refuses to start
// where what is installed is not what the lock file names. What cannot be
// installed yet keeps the server from being ready, not from starting: the
// publisher's key may have to be trusted first, at this server.
func (a *App) settlePlugins(ctx context.Context) error {
	a.installListed(ctx)
	if a.lock == nil {
		return nil
	}
	rows, err := a.store.Plugins(ctx)
	if err != nil {
		return err
	}
	return a.lock.Drift(rows)
}

// installListed tries to install all that is listed, and keeps why it could not.
func (a *App) installListed(ctx context.Context) {
	var failed error
	for _, l := range a.cfg.Plugins.Install {
		if err := a.installOne(ctx, l); err != nil {
			failed = errors.Join(failed, fault.Unavailablef("plugins.install: %s %s is not installed: %s", l.Name, l.Version, fault.Public(err)).Because(err))
		}
	}
	a.unlisted.Store(&failed)
}

func (a *App) installOne(ctx context.Context, l Listed) error {
	f, err := os.Open(l.file())
	if err != nil {
		return fault.Unavailablef("%s cannot be read", l.file()).Because(err)
	}
	defer func() { _ = f.Close() }()
	_, err = a.gate.InstallConfigured(ctx, f, flow.InstallRequest{Name: l.Name, Version: l.Version, Digest: l.Digest})
	return err
}

// listed reports why the server is not ready for the sake of its list.
func (a *App) listed() error {
	if err := a.unlisted.Load(); err != nil && *err != nil {
		return fault.Unavailablef("%s", fault.Public(firstOf(*err))).Because(*err)
	}
	return nil
}

// firstOf is the first of joined errors.
func firstOf(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // exactly what errors.Join made
		return firstOf(joined.Unwrap()[0])
	}
	return err
}

// retryListed tries again until everything is installed.
func (a *App) retryListed(ctx context.Context) {
	const pause = 5 * time.Second
	for a.listed() != nil {
		a.log.WarnContext(ctx, "not ready: a plugin of the configuration is missing", slog.Any("err", a.listed()))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		a.installListed(ctx)
	}
}
