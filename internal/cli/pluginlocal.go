package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"path/filepath"
	"slices"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/local"
	"github.com/sallyport-project/sallyport/internal/plugin/repository"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// toolsDir has the plugins of this command line, below the home folder.
const toolsDir = "cli"

// tools is the home of this command line's plugins. Nothing is opened.
func (s *shell) tools() (*local.Home, error) {
	home, err := s.home()
	if err != nil {
		return nil, err
	}
	return local.At(filepath.Join(home, toolsDir), s.Now), nil
}

// workstation is this command line as a host: what a server answers, from the
// user's own decisions.
type workstation struct {
	s    *shell
	home *local.Home
}

var _ host = workstation{}

func (w workstation) Publishers(context.Context) (sallyport.Page[sallyport.Publisher], error) {
	var out sallyport.Page[sallyport.Publisher]
	st, err := w.home.Read()
	if err != nil {
		return out, err
	}
	for _, p := range append(slices.Clone(st.Publishers), plugin.Publisher{Threshold: 1}) {
		row := sallyport.Publisher{Name: p.Name, Threshold: p.Threshold, Serial: p.Serial}
		for _, k := range st.Keys {
			development := k.Use == plugin.UseDevelopment
			if k.State != plugin.Removed && (development && p.Name == "" || !development && k.Publisher == p.Name) {
				row.Keys = append(row.Keys, shownKey(k))
			}
		}
		if len(row.Keys) > 0 {
			out.Items = append(out.Items, row)
		}
	}
	return out, nil
}

func shownKey(k plugin.Key) sallyport.PublisherKey {
	return sallyport.PublisherKey{
		KeyID: k.ID, Publisher: k.Publisher, Use: string(k.Use), PublicKey: publicPEM(k.Public), Names: k.Names,
		NotBefore: k.NotBefore, Expires: k.Expires, State: string(k.State), Reason: k.Reason, Author: k.Author, At: k.At,
	}
}

func publicPEM(public ed25519.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (w workstation) TrustPublisher(_ context.Context, r sallyport.TrustRequest) (sallyport.PublisherKey, error) {
	public, err := plugin.ParsePublicKey([]byte(r.PublicKey))
	if err != nil {
		return sallyport.PublisherKey{}, err
	}
	k, err := w.home.Trust(local.Key{
		Publisher: r.Publisher, Public: public, Names: r.Names, Use: plugin.Use(r.Use), NotBefore: r.NotBefore, Expires: r.Expires,
	})
	return shownKey(k), err
}

func (w workstation) DistrustPublisher(_ context.Context, id string) error {
	return w.home.Distrust(id)
}

func (w workstation) RetirePublisherKey(_ context.Context, id string) error { return w.home.Retire(id) }

func (w workstation) RevokePublisherKey(_ context.Context, id, reason string) error {
	return w.home.Revoke(id, reason)
}

func (w workstation) SetPublisherThreshold(_ context.Context, publisher string, threshold int) error {
	return w.home.Demand(publisher, threshold)
}

func (w workstation) RotatePublisher(_ context.Context, statement []byte) (sallyport.PublisherRotation, error) {
	r, err := w.home.Rotate(statement)
	out := sallyport.PublisherRotation{
		Publisher: r.Publisher.Name, Serial: r.Publisher.Serial, Threshold: r.Publisher.Threshold, Signers: r.Signers,
	}
	for _, k := range r.Added {
		out.Added = append(out.Added, shownKey(k))
	}
	for _, k := range r.Ended {
		out.Ended = append(out.Ended, shownKey(k))
	}
	return out, err
}

func shownFloor(f plugin.Floor) sallyport.PluginFloor {
	return sallyport.PluginFloor{Name: f.Name, Lowest: f.Lowest, Origin: f.Origin, At: f.At, Author: f.Author}
}

func (w workstation) PluginFloors(context.Context) (sallyport.Page[sallyport.PluginFloor], error) {
	var out sallyport.Page[sallyport.PluginFloor]
	st, err := w.home.Read()
	for _, f := range st.Floors {
		out.Items = append(out.Items, shownFloor(f))
	}
	return out, err
}

func (w workstation) SetPluginFloor(_ context.Context, name, lowest string, lower bool) (sallyport.PluginFloor, error) {
	f, err := w.home.SetFloor(name, lowest, lower)
	return shownFloor(f), err
}

// Plugins lists what is installed, and judges each anew.
func (w workstation) Plugins(context.Context) (sallyport.Plugins, error) {
	st, err := w.home.Read()
	out := sallyport.Plugins{Items: []sallyport.InstalledPlugin{}, Status: []sallyport.PluginStatus{}}
	for _, t := range st.Active() {
		out.Items = append(out.Items, shownTool(t))
		out.Status = append(out.Status, w.status(t))
	}
	return out, err
}

func shownTool(t local.Tool) sallyport.InstalledPlugin {
	return sallyport.InstalledPlugin{
		Name: t.Name, Version: t.Package, Digest: t.Digest, Publisher: t.Publisher, KeyIDs: t.KeyIDs, SignedFor: string(t.Use),
		Offer:    sallyport.PluginOffer{Contract: t.Offer.Contract, Roles: t.Offer.Roles, Kinds: t.Offer.Kinds},
		Accepted: t.Asks, State: string(t.State), At: t.At, Author: t.Author,
	}
}

// status is how a tool would do if it were started now.
func (w workstation) status(t local.Tool) sallyport.PluginStatus {
	out := sallyport.PluginStatus{
		Name: t.Name, Version: t.Package, Publisher: t.Publisher, Digest: t.Digest, SignedFor: string(t.Use), Contract: t.Offer.Contract,
		Roles: t.Offer.Roles, Kinds: t.Offer.Kinds, State: "idle", Reason: string(plugin.ReasonOK), Sandbox: sandbox.ToolReport(), Since: t.At,
	}
	ready, _, err := w.home.Tool(t.Name)
	if err != nil {
		out.State, out.Reason, out.Detail = "refused", string(plugin.ReasonOf(err)), fault.Public(err)
		return out
	}
	defer ready.Close()
	if i := ready.Interpreter; i != nil {
		out.Interpreter = &sallyport.PluginInterpreter{Name: i.Name, Path: i.Path, SHA256: i.SHA256}
	}
	return out
}

func (w workstation) Installations(context.Context) ([]sallyport.Installation, error) {
	st, err := w.home.Read()
	var out []sallyport.Installation
	for _, i := range st.Installations {
		out = append(out, sallyport.Installation{
			Name: i.Name, Version: i.Package, Digest: i.Digest, Repository: i.Repository, At: i.At, Author: i.Author,
		})
	}
	return out, err
}

func (w workstation) InstallPlugin(_ context.Context, pack io.Reader, r sallyport.InstallRequest) (sallyport.InstalledPlugin, error) {
	t, err := w.home.Install(pack, local.Request{Digest: r.Digest, AllowDowngrade: r.AllowDowngrade, Taken: w.s.taken})
	return shownTool(t), err
}

func (w workstation) RemovePlugin(_ context.Context, name string) error { return w.home.Remove(name) }

func (w workstation) RollbackPlugin(_ context.Context, name, version string) (sallyport.InstalledPlugin, error) {
	t, err := w.home.Rollback(name, version, w.s.taken)
	return shownTool(t), err
}

func shownRepository(r plugin.Repository) sallyport.Repository {
	return sallyport.Repository{
		Name: r.Name, URL: r.URL, Root: r.Seen.Root, Timestamp: r.Seen.Timestamp, Snapshot: r.Seen.Snapshot, At: r.At, Author: r.Author,
	}
}

func (w workstation) Repositories(context.Context) ([]sallyport.Repository, error) {
	st, err := w.home.Read()
	var out []sallyport.Repository
	for _, r := range st.Repositories {
		out = append(out, shownRepository(r))
	}
	return out, err
}

func (w workstation) AddRepository(_ context.Context, name, place string, root []byte) (sallyport.Repository, error) {
	if _, err := repository.Pin(root); err != nil {
		return sallyport.Repository{}, fault.Invalidf("this root cannot be pinned: %s", fault.Public(err)).Because(err)
	}
	r, err := w.home.Pin(name, place, root)
	return shownRepository(r), err
}

func (w workstation) RemoveRepository(_ context.Context, name string) error {
	return w.home.Unpin(name)
}

// DeliverBundle judges a bundle as a server does: by the pinned root, and by what
// was seen before.
func (w workstation) DeliverBundle(ctx context.Context, name string, bundle io.Reader, downgrade bool) (sallyport.Delivery, error) {
	b, err := repository.OpenBundle(bundle)
	if err != nil {
		return sallyport.Delivery{}, err
	}
	_, view, err := w.home.See(name, func(seen plugin.Seen) (plugin.View, error) { return b.Walk(ctx, seen, w.s.Now().UTC()) })
	if err != nil {
		return sallyport.Delivery{}, err
	}
	out := sallyport.Delivery{Repository: name, Versions: view.Versions, Expires: view.Expires}
	for {
		r, content, err := b.Package(view.Releases)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err == nil {
			err = r.Installable(view.Releases)
		}
		if err != nil {
			return out, err
		}
		t, err := w.home.Install(content, local.Request{AllowDowngrade: downgrade, Repository: name, Accept: r.Offers, Taken: w.s.taken})
		if content.Err() != nil {
			err = content.Err()
		}
		if err != nil {
			return out, err
		}
		out.Installed = append(out.Installed, shownTool(t))
	}
}
