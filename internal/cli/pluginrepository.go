package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/repository"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// maxRoot bounds a root.json that is handed in.
const maxRoot = 64 << 10

func pluginRepository(s *shell) *cobra.Command {
	return group("repository", "Choose, or make, a plugin repository",
		`A repository offers packages, and proves that it hides none (TUF). An operator
pins one by its root: add, list, remove. A publisher makes one in a folder, which
any web server can serve: init, key, sign, refresh, yank, status.`,
		`  sallyport plugin repository add acme https://plugins.example --root root.json
  sallyport plugin repository init ./plugins --keys ./keys`,
		repositoryAdd(s), repositoryList(s), repositoryRemove(s),
		repositoryInit(s), repositoryKey(s), repositorySign(s), repositoryRefresh(s), repositoryYank(s), repositoryStatus(s))
}

func repositoryAdd(s *shell) *cobra.Command {
	var root string
	c := &cobra.Command{
		Use: "add NAME URL|FOLDER --root FILE", Short: "Pin a repository", Args: cobra.ExactArgs(2),
		Long: `Pin a repository at the server by its root, a file that its publisher hands over by
a way that you trust. The server never fetches: commands on this machine do, and
deliver what they found. A folder is one on this machine.`,
		Example: "  sallyport plugin repository add acme https://plugins.example --root root.json",
		RunE: func(c *cobra.Command, args []string) error {
			if root == "" {
				return fault.Invalidf("say by which root the repository is known: --root FILE, from its publisher")
			}
			text, err := s.readFile(root, maxRoot)
			if err != nil {
				return err
			}
			place := args[1]
			if !strings.Contains(place, "://") {
				if place, err = filepath.Abs(place); err != nil {
					return fault.Wrap(err, "resolve folder")
				}
			}
			return s.at(c.Context(), func(client host) error {
				r, err := client.AddRepository(c.Context(), args[0], place, text)
				if err != nil {
					return err
				}
				return s.print(r, func() error { return s.facts("repository", r.Name, "at", r.URL, "pinned", when(r.At)) })
			})
		},
	}
	c.Flags().StringVar(&root, "root", "", "root.json of the repository, of any version")
	return repeatable(sided(s, c), "finds the repository pinned")
}

func repositoryList(s *shell) *cobra.Command {
	return sided(s, &cobra.Command{
		Use: "list", Short: "List the pinned repositories", Args: cobra.NoArgs,
		Long: "List the pinned repositories.", Example: "  sallyport plugin repository list",
		RunE: func(c *cobra.Command, _ []string) error {
			return s.at(c.Context(), func(client host) error {
				list, err := client.Repositories(c.Context())
				if err != nil {
					return err
				}
				return s.print(list, func() error {
					var rows [][]string
					for _, r := range list {
						rows = append(rows, []string{r.Name, r.URL, r.Author, when(r.At)})
					}
					return s.rows([]string{"NAME", "AT", "AUTHOR", "LAST SEEN"}, rows)
				})
			})
		},
	})
}

func repositoryRemove(s *shell) *cobra.Command {
	return sided(s, &cobra.Command{
		Use: "remove NAME", Short: "Forget a repository", Args: cobra.ExactArgs(1),
		Long:    "Forget a repository, and what was seen of it. What was installed from it stays.",
		Example: "  sallyport plugin repository remove acme",
		RunE: func(c *cobra.Command, args []string) error {
			return s.at(c.Context(), func(client host) error {
				if err := client.RemoveRepository(c.Context(), args[0]); err != nil {
					return err
				}
				return s.print(map[string]string{"removed": args[0]}, func() error { return s.line("%s is forgotten", args[0]) })
			})
		},
	})
}

// calling runs a command's work with a client.
func (s *shell) calling(ctx context.Context, do func(*sallyport.Client) error) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return do(client)
}

// stand is one repository and how to read it.
type stand struct {
	row    sallyport.Repository
	source repository.Source
	view   repository.View
}

func (st stand) seen() plugin.Seen {
	return plugin.Seen{Root: st.row.Root, Timestamp: st.row.Timestamp, Snapshot: st.row.Snapshot}
}

// stands opens the pinned repositories, or the named one.
func (s *shell) stands(ctx context.Context, client host, name string) ([]stand, error) {
	list, err := client.Repositories(ctx)
	if err != nil {
		return nil, err
	}
	var out []stand
	for _, r := range list {
		if name != "" && r.Name != name {
			continue
		}
		source, err := s.source(r.URL)
		if err != nil {
			return nil, err
		}
		out = append(out, stand{row: r, source: source})
	}
	switch {
	case len(out) > 0:
		return out, nil
	case name != "":
		return nil, fault.NotFoundf("there is no repository %s; see: sallyport plugin repository list", name)
	}
	return nil, fault.NotFoundf("no repository is pinned: sallyport plugin repository add NAME URL --root FILE")
}

// look reads a repository as it is now, and lets the server see the same, so
// that nothing older counts from now on, wherever it is shown.
func (s *shell) look(ctx context.Context, client host, st *stand) (err error) {
	stop := s.busy("reading repository " + st.row.Name)
	defer stop()
	if st.view, err = repository.Walk(ctx, st.seen(), repository.From(st.source), s.Now()); err != nil {
		return err
	}
	_, err = s.deliver(ctx, client, st.row.Name, st.view.Files, nil, false)
	return err
}

// source opens the place of a repository. Its TLS is checked by the system's
// authorities, and by those of the context: a Sallyport server is a repository
// too.
func (s *shell) source(place string) (repository.Source, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	files := []string{s.ca}
	if c, err := s.identity(); err == nil && c != nil {
		files = append(files, filepath.Join(c.folder, "ca.pem"))
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); file != "" && err == nil { //nolint:gosec // the context's, or the user names it
			pool.AppendCertsFromPEM(text)
		}
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}
	return repository.At(place, &http.Client{Transport: transport})
}
