package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/repository"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// step is what an upgrade does to one plugin.
type step struct {
	Name       string `json:"name"`
	From       string `json:"from"`
	To         string `json:"to,omitempty"` // empty if nothing is newer
	Repository string `json:"repository,omitempty"`
	Why        string `json:"why,omitempty"` // why it must, or cannot, be upgraded

	stand   *stand
	release plugin.Release
}

func pluginUpgrade(s *shell) *cobra.Command {
	var every, dry bool
	a := agreement{known: true}
	c := &cobra.Command{
		Use: "upgrade NAME | --all", Short: "Install newer versions", Args: cobra.MaximumNArgs(1),
		Long: `Install the newest version of a plugin, or of all, from the repository that it came
from. A version that asks for more than the installed one is installed only when you
say yes. --dry-run shows what would happen. A plugin that came as a file has no
repository: install it by name once.`,
		Example: "  sallyport plugin upgrade sshcert\n  sallyport plugin upgrade --all --dry-run",
		RunE: func(c *cobra.Command, args []string) error {
			if every == (len(args) == 1) {
				return fault.Invalidf("name one plugin, or say --all")
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return s.at(c.Context(), func(client host) error {
				steps, err := s.upgrades(c.Context(), client, name)
				if err != nil {
					return err
				}
				if !dry {
					if err := s.climb(c.Context(), client, steps, a); err != nil {
						return err
					}
				}
				return s.print(steps, func() error { return s.showSteps(steps) })
			})
		},
	}
	c.Flags().BoolVar(&every, "all", false, "upgrade all plugins")
	c.Flags().BoolVar(&dry, "dry-run", false, "show what would happen")
	c.Flags().BoolVarP(&a.yes, "yes", "y", false, "do not ask, also where a version asks for more than the installed one")
	return repeatable(sided(s, c), "finds the upgrades done")
}

func (s *shell) showSteps(steps []step) error {
	var rows [][]string
	for _, st := range steps {
		rows = append(rows, []string{st.Name, st.From, first(st.To, "-"), first(st.Repository, "-"), st.Why})
	}
	return s.rows([]string{"NAME", "FROM", "TO", "REPOSITORY", "WHY"}, rows)
}

// upgrades finds what is newer, for one plugin or for all.
func (s *shell) upgrades(ctx context.Context, client host, name string) ([]step, error) {
	list, err := client.Plugins(ctx)
	if err != nil {
		return nil, err
	}
	came, err := client.Installations(ctx)
	if err != nil {
		return nil, err
	}
	origins := map[string]string{}
	for _, i := range came {
		origins[i.Digest] = i.Repository
	}
	looked := map[string]*stand{}
	steps := []step{}
	for _, p := range list.Items {
		if name != "" && p.Name != name {
			continue
		}
		st, err := s.upgrade(ctx, client, p, origins[p.Digest], looked)
		if err != nil {
			return nil, err
		}
		steps = append(steps, st)
	}
	if name != "" && len(steps) == 0 {
		return nil, fault.NotFoundf("no plugin %q is installed; see: sallyport plugin list", name)
	}
	return steps, nil
}

func (s *shell) upgrade(
	ctx context.Context, client host, p sallyport.InstalledPlugin, origin string, looked map[string]*stand,
) (step, error) {
	out := step{Name: p.Name, From: p.Version, Repository: origin}
	if origin == "" {
		out.Why = "it came as a file: plugin install " + p.Name + " takes a newer one from a repository"
		return out, nil
	}
	if looked[origin] == nil {
		stands, err := s.stands(ctx, client, origin)
		if fault.Is(err, fault.NotFound) {
			out.Why = "its repository was removed"
			return out, nil
		}
		if err != nil {
			return out, err
		}
		if err := s.look(ctx, client, &stands[0]); err != nil {
			return out, err
		}
		looked[origin] = &stands[0]
	}
	out.stand = looked[origin]
	all := out.stand.view.Releases
	for _, r := range all {
		if r.Name == p.Name && r.Version == p.Version {
			if err := r.Installable(all); err != nil {
				out.Why = fault.Public(err)
			}
		}
	}
	r, err := repository.Find(all, p.Name, "")
	switch {
	case fault.Is(err, fault.NotFound) || fault.Is(err, fault.Denied):
		out.Why = first(out.Why, fault.Public(err))
	case err != nil:
		return out, err
	case manifest.CompareVersions(r.Version, p.Version) > 0:
		out.To, out.release = r.Version, r
	}
	return out, nil
}

// climb installs what is newer, one plugin after the other.
func (s *shell) climb(ctx context.Context, client host, steps []step, a agreement) error {
	for _, st := range steps {
		if st.To == "" {
			continue
		}
		packs, clean, err := s.fetch(ctx, st.stand.source, st.release)
		if err != nil {
			return err
		}
		for _, p := range packs {
			if _, err := s.acceptFile(ctx, client, p.file, a); err != nil {
				clean()
				return err
			}
		}
		stop := s.busy("upgrading " + st.Name)
		_, err = s.deliver(ctx, client, st.Repository, st.stand.view.Files, packs, false)
		stop()
		clean()
		if err != nil {
			return err
		}
	}
	return nil
}

func pluginRollback(s *shell) *cobra.Command {
	var to string
	c := &cobra.Command{
		Use: "rollback NAME", Short: "Go back to an earlier version", Args: cobra.ExactArgs(1),
		Long: `Go back to a version that was installed before, by default the newest that is older
than the present one. It is verified again, and needs no repository.`,
		Example: "  sallyport plugin rollback sshcert\n  sallyport plugin rollback sshcert --to 1.0.0",
		RunE: func(c *cobra.Command, args []string) error {
			return s.at(c.Context(), func(client host) error {
				p, err := client.RollbackPlugin(c.Context(), args[0], to)
				if err != nil {
					return err
				}
				return s.print(p, func() error {
					return s.facts("installed", p.Name+" "+p.Version, "publisher", p.Publisher, "digest", p.Digest)
				})
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "the version to go back to")
	return repeatable(sided(s, c), "finds the rollback done")
}
