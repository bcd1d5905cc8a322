package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/repository"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// offer is a release and where it is.
type offer struct {
	Repository string `json:"repository"`
	plugin.Release
}

func pluginSearch(s *shell) *cobra.Command {
	var from string
	var every bool
	c := &cobra.Command{
		Use: "search [TEXT]", Short: "Find packages in the repositories", Args: cobra.MaximumNArgs(1),
		Long: `Find packages whose name, summary, publisher or kinds have the text in them: the
newest version of each that can be installed, or all with --all.`,
		Example: "  sallyport plugin search\n  sallyport plugin search ssh --all",
		RunE: func(c *cobra.Command, args []string) error {
			return s.at(c.Context(), func(client host) error {
				list, err := s.search(c.Context(), client, from, strings.Join(args, ""), every)
				if err != nil {
					return err
				}
				return s.print(list, func() error { return s.showOffers(list) })
			})
		},
	}
	c.Flags().StringVar(&from, "repository", "", "search in this one alone")
	c.Flags().BoolVar(&every, "all", false, "show every version, withdrawn ones too")
	return sided(s, c)
}

func (s *shell) search(ctx context.Context, client host, from, text string, every bool) ([]offer, error) {
	stands, err := s.stands(ctx, client, from)
	if err != nil {
		return nil, err
	}
	list := []offer{}
	for _, st := range stands {
		if err := s.look(ctx, client, &st); err != nil {
			return nil, err
		}
		shown := map[string]bool{}
		for _, r := range st.view.Releases {
			if !matches(r, text) || !every && (shown[r.Name] || r.Installable(st.view.Releases) != nil) {
				continue
			}
			shown[r.Name] = true
			list = append(list, offer{st.row.Name, r})
		}
	}
	return list, nil
}

func matches(r plugin.Release, text string) bool {
	all := strings.ToLower(strings.Join(append([]string{r.Name, r.Summary, r.Publisher}, r.Kinds...), "\n"))
	return strings.Contains(all, strings.ToLower(text))
}

func (s *shell) showOffers(list []offer) error {
	var rows [][]string
	for _, o := range list {
		note := o.Summary
		if o.Yanked != "" {
			note = "WITHDRAWN: " + o.Yanked
		}
		rows = append(rows, []string{o.Name, o.Version, o.Publisher, strings.Join(o.Kinds, " "), o.Repository, note})
	}
	return s.rows([]string{"NAME", "VERSION", "PUBLISHER", "KINDS", "REPOSITORY", "SUMMARY"}, rows)
}

// nameAtVersion is NAME or NAME@VERSION.
var nameAtVersion = regexp.MustCompile(`^([a-z0-9][a-z0-9-]{0,63})(?:@([0-9A-Za-z.+-]{1,64}))?$`)

// named reads NAME[@VERSION]; false for anything else, such as the name of a
// file.
func named(text string) (name, version string, ok bool) {
	m := nameAtVersion.FindStringSubmatch(text)
	if m == nil || m[2] != "" && !manifest.ValidVersion(m[2]) {
		return "", "", false
	}
	return m[1], m[2], true
}

// find looks a package up. A name that two repositories have is nobody's: who
// adds a repository must not be surprised by what it calls its packages.
func (s *shell) find(ctx context.Context, client host, from, name, version string) (stand, plugin.Release, error) {
	stands, err := s.stands(ctx, client, from)
	if err != nil {
		return stand{}, plugin.Release{}, err
	}
	var found []stand
	for _, st := range stands {
		if err := s.look(ctx, client, &st); err != nil {
			return stand{}, plugin.Release{}, err
		}
		for _, r := range st.view.Releases {
			if r.Name == name {
				found = append(found, st)
				break
			}
		}
	}
	switch len(found) {
	case 0:
		r, err := repository.Find(nil, name, version)
		return stand{}, r, err
	case 1:
		r, err := repository.Find(found[0].view.Releases, name, version)
		return found[0], r, err
	}
	return stand{}, plugin.Release{}, fault.Conflictf("the repositories %s and %s both have a package %s: choose one with --repository",
		found[0].row.Name, found[1].row.Name, name)
}

// fetched is a package on this machine.
type fetched struct {
	release plugin.Release
	file    string
}

func (f fetched) packed() repository.Packed {
	return repository.Packed{Release: f.release, Open: func() (io.ReadCloser, error) { return os.Open(f.file) }}
}

// fetch downloads packages into a temporary folder.
func (s *shell) fetch(ctx context.Context, source repository.Source, releases ...plugin.Release) (list []fetched, clean func(), err error) {
	dir, err := os.MkdirTemp("", "sallyport-fetch-*")
	if err != nil {
		return nil, nil, fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	clean = func() { _ = os.RemoveAll(dir) }
	for _, r := range releases {
		f := fetched{r, filepath.Join(dir, r.SHA256+".spk")}
		if err := s.download(ctx, source, f); err != nil {
			clean()
			return nil, nil, err
		}
		list = append(list, f)
	}
	return list, clean, nil
}

func (s *shell) download(ctx context.Context, source repository.Source, f fetched) error {
	out, err := os.OpenFile(f.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.Unavailablef("no temporary file can be made").Because(err)
	}
	stop := s.busy("fetching " + f.release.Name + " " + f.release.Version)
	err = repository.Download(ctx, source, f.release, out)
	stop()
	if closed := out.Close(); err == nil && closed != nil {
		err = fault.Unavailablef("the package cannot be kept in a temporary file").Because(closed)
	}
	return err
}

// deliver sends metadata and packages to the server, which judges both.
func (s *shell) deliver(
	ctx context.Context, client host, name string, files []repository.File, packs []fetched, downgrade bool,
) (sallyport.Delivery, error) {
	packages := make([]repository.Packed, 0, len(packs))
	for _, p := range packs {
		packages = append(packages, p.packed())
	}
	reader, writer := io.Pipe()
	go func() { _ = writer.CloseWithError(repository.WriteBundle(writer, files, packages)) }()
	defer func() { _ = reader.Close() }()
	return client.DeliverBundle(ctx, name, reader, downgrade)
}

// installNamed installs a package by its name.
func (s *shell) installNamed(ctx context.Context, client host, from, name, version string, a agreement) error {
	st, r, err := s.find(ctx, client, from, name, version)
	if err != nil {
		return err
	}
	packs, clean, err := s.fetch(ctx, st.source, r)
	if err != nil {
		return err
	}
	defer clean()
	for _, p := range packs {
		if _, err := s.acceptFile(ctx, client, p.file, a); err != nil {
			return err
		}
	}
	stop := s.busy("installing " + r.Name + " " + r.Version)
	d, err := s.deliver(ctx, client, st.row.Name, st.view.Files, packs, a.downgrade)
	stop()
	if err != nil {
		return err
	}
	return s.showDelivery(d)
}

func (s *shell) showDelivery(d sallyport.Delivery) error {
	return s.print(d.Installed, func() error {
		for _, p := range d.Installed {
			if err := s.facts("installed", p.Name+" "+p.Version, "from", d.Repository, "publisher", p.Publisher, "digest", p.Digest,
				"kinds", strings.Join(p.Offer.Kinds, " ")); err != nil {
				return err
			}
		}
		return nil
	})
}
