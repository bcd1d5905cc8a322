package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/repository"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func pluginBundle(s *shell) *cobra.Command {
	return group("bundle", "Carry packages to where no network is",
		`A bundle is one file with a repository's metadata and packages from it. The server
that it is carried to judges it as if it had come from the network: by the root
that is pinned there, and only until the metadata expires.`,
		`  sallyport plugin bundle create sshcert --out plugins.bundle
  sallyport plugin install --bundle plugins.bundle`,
		bundleCreate(s))
}

// bundled is what a new bundle is.
type bundled struct {
	File     string           `json:"file"`
	Packages []plugin.Release `json:"packages"`
	Expires  time.Time        `json:"expires"`
}

func bundleCreate(s *shell) *cobra.Command {
	var out, from, place, root string
	c := &cobra.Command{
		Use: "create NAME[@VERSION]... --out FILE", Short: "Make a bundle", Args: cobra.MinimumNArgs(1),
		Long: `Make a bundle of packages, from a repository that is pinned at the server, or without
a server from --from and --root. It is good until the repository's metadata
expires, as is shown: a publisher can refresh with a longer life for the way.`,
		Example: "  sallyport plugin bundle create sshcert@1.2.0 --out plugins.bundle\n" +
			"  sallyport plugin bundle create sshcert --from ./plugins --root root.json --out plugins.bundle",
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return fault.Invalidf("say where the bundle goes: --out FILE")
			}
			st, err := s.bundleFrom(c.Context(), from, place, root)
			if err != nil {
				return err
			}
			b, err := s.bundle(c.Context(), st, args, out)
			if err != nil {
				return err
			}
			return s.print(b, func() error {
				return s.facts("bundle", b.File, "packages", strconv.Itoa(len(b.Packages)), "good until", when(b.Expires))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&out, "out", "", "file to make")
	f.StringVar(&from, "repository", "", "the pinned repository, if there are several")
	f.StringVar(&place, "from", "", "URL or folder of a repository, without a server")
	f.StringVar(&root, "root", "", "root.json of that repository")
	return sided(s, c)
}

// bundleFrom opens the repository that a bundle is made from, and reads it.
func (s *shell) bundleFrom(ctx context.Context, from, place, root string) (stand, error) {
	if (place == "") != (root == "") || place != "" && from != "" {
		return stand{}, fault.Invalidf("without a server give both --from and --root, else --repository alone")
	}
	if place == "" {
		var st stand
		return st, s.at(ctx, func(client host) error {
			stands, err := s.stands(ctx, client, from)
			if err != nil {
				return err
			}
			if len(stands) > 1 {
				return fault.Invalidf("several repositories are pinned: choose one with --repository")
			}
			st = stands[0]
			return s.look(ctx, client, &st)
		})
	}
	text, err := s.readFile(root, maxRoot)
	if err != nil {
		return stand{}, err
	}
	if abs, err := filepath.Abs(place); err == nil && isFolder(place) {
		place = abs
	}
	st := stand{row: sallyport.Repository{URL: place, Root: text}}
	if st.source, err = s.source(place); err != nil {
		return stand{}, err
	}
	st.view, err = repository.Walk(ctx, st.seen(), repository.From(st.source), s.Now())
	return st, err
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (s *shell) bundle(ctx context.Context, st stand, refs []string, out string) (bundled, error) {
	b := bundled{File: out, Packages: []plugin.Release{}, Expires: st.view.Expires}
	for _, ref := range refs {
		name, version, ok := named(ref)
		if !ok {
			return b, fault.Invalidf("%.80q is not NAME or NAME@VERSION", ref)
		}
		r, err := repository.Find(st.view.Releases, name, version)
		if err != nil {
			return b, err
		}
		b.Packages = append(b.Packages, r)
	}
	files, err := repository.History(ctx, st.source, st.view)
	if err != nil {
		return b, err
	}
	packs, clean, err := s.fetch(ctx, st.source, b.Packages...)
	if err != nil {
		return b, err
	}
	defer clean()
	packages := make([]repository.Packed, 0, len(packs))
	for _, p := range packs {
		packages = append(packages, p.packed())
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // the user names it, and it is public
	if err != nil {
		return b, fileFault(out, err)
	}
	err = repository.WriteBundle(f, files, packages)
	if closed := f.Close(); err == nil && closed != nil {
		err = fault.Unavailablef("%s cannot be written", out).Because(closed)
	}
	if err != nil {
		_ = os.Remove(out)
	}
	return b, err
}

// installBundle installs what was carried here.
func (s *shell) installBundle(ctx context.Context, client host, file, from string, a agreement) error {
	stands, err := s.stands(ctx, client, from)
	if err != nil {
		return err
	}
	if len(stands) > 1 {
		return fault.Invalidf("several repositories are pinned: say whose bundle this is, with --repository")
	}
	f, err := os.Open(file) //nolint:gosec // the user names it
	if err != nil {
		return fileFault(file, err)
	}
	defer func() { _ = f.Close() }()
	if err := s.acceptBundle(ctx, client, stands[0], f, a); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fileFault(file, err)
	}
	stop := s.busy("installing " + file)
	d, err := client.DeliverBundle(ctx, stands[0].row.Name, f, a.downgrade)
	stop()
	if err != nil {
		return err
	}
	return s.showDelivery(d)
}

// acceptBundle shows each package of a bundle and asks, as if it had come by
// itself. What is installed afterwards is judged anew.
func (s *shell) acceptBundle(ctx context.Context, client host, st stand, file io.Reader, a agreement) error {
	b, err := repository.OpenBundle(file)
	if err != nil {
		return err
	}
	view, err := b.Walk(ctx, st.seen(), s.Now())
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "sallyport-bundle-*")
	if err != nil {
		return fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	for {
		r, content, err := b.Package(view.Releases)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Join(temp, r.SHA256+".spk")
		out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // in our own folder, by a digest
		if err != nil {
			return fileFault(name, err)
		}
		_, err = io.Copy(out, content)
		if closed := out.Close(); err == nil {
			err = closed
		}
		if content.Err() != nil {
			err = content.Err()
		}
		if err != nil {
			return err
		}
		if _, err := s.acceptFile(ctx, client, name, a); err != nil {
			return err
		}
	}
}
