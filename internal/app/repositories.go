package app

import (
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/repository"
)

// repositories hands the judgement of plugin repositories to flow.
type repositories struct{}

var _ flow.Repositories = repositories{}

func (repositories) Pin(root []byte) (int64, error) { return repository.Pin(root) }

func (repositories) Open(r io.Reader) (flow.Bundle, error) {
	b, err := repository.OpenBundle(r)
	if err != nil {
		return nil, err
	}
	return bundle{b}, nil
}

type bundle struct{ *repository.Bundle }

func (b bundle) Package(all []plugin.Release) (plugin.Release, flow.Content, error) {
	r, content, err := b.Bundle.Package(all)
	if err != nil {
		return r, nil, err
	}
	return r, content, nil
}

// depot hands the server's own repository to flow.
type depot struct{ *repository.Depot }

var _ flow.Depot = depot{}

func (d depot) Receive(ctx context.Context, pack io.Reader, trust plugin.Trust) (flow.Parcel, error) {
	p, err := d.Depot.Receive(ctx, pack, trust)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (d depot) File(name string) (io.ReadCloser, int64, error) { return d.Depot.File(name) }

// openDepot opens the server's own repository, nil if none is configured.
func (a *App) openDepot(ctx context.Context) (flow.Depot, error) {
	c := a.cfg.Plugins.Repository
	if c.Dir == "" {
		return nil, nil
	}
	var keys []ed25519.PrivateKey
	for _, role := range []string{repository.RoleSnapshot, repository.RoleTimestamp, repository.RoleUploads} {
		key, err := onlineKey(filepath.Join(c.Keys, role+".key"))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	opened, err := repository.OpenDepot(ctx, c.Dir, repository.NewKeys(keys...), time.Now)
	if err != nil {
		return nil, err
	}
	a.depot = opened
	return depot{opened}, nil
}

// onlineKey reads a key file that nobody but its owner may read.
func onlineKey(file string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fault.Unavailablef("the repository key %s cannot be read", file).Because(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.Invalidf("the repository key %s can be read by others: chmod 600 it", file)
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fault.Unavailablef("the repository key %s cannot be read", file).Because(err)
	}
	defer clear(text)
	return plugin.ParsePrivateKey(text)
}

// keepDepot writes to the repository on one replica at a time.
func (a *App) keepDepot(ctx context.Context) {
	a.store.Lead(ctx, "repository", func(ctx context.Context) {
		a.depot.Lead(ctx, func(err error) {
			a.log.ErrorContext(ctx, "the plugin repository could not be refreshed, it is tried again", slog.Any("err", err))
		})
	})
}
