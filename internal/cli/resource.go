package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func newResource(s *shell) *cobra.Command {
	return group("resource", "Secrets for guests of the key broker",
		`Resources are secrets at REPOSITORY/TYPE/TAG that the key broker hands to
workloads which policy allows, sealed to their keys. They can be put and listed
here, not read: their only way out is sallyport kbs get.`,
		"  sallyport resource put default/key/1 --file disk.key",
		resourcePut(s), resourceList(s), resourceDelete(s))
}

// path splits a resource's path.
func path(text string) (repository, kind, tag string, err error) {
	parts := strings.Split(text, "/")
	if len(parts) == 2 {
		parts = append([]string{"default"}, parts...)
	}
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return "", "", "", fault.Invalidf("a resource has the path REPOSITORY/TYPE/TAG, for example default/key/1")
	}
	return parts[0], parts[1], parts[2], nil
}

func resourcePut(s *shell) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "put PATH [--file FILE]", Short: "Store a secret", Args: cobra.ExactArgs(1),
		Long: `Store a secret, from a file or standard input, byte for byte. What stood at the
path before is replaced.`,
		Example: "  sallyport resource put default/key/1 --file disk.key\n  head -c 32 /dev/urandom | sallyport resource put default/key/2",
		RunE: func(c *cobra.Command, args []string) error {
			repository, kind, tag, err := path(args[0])
			if err != nil {
				return err
			}
			value, err := s.readFile(first(file, "-"), maxSecret)
			if err != nil {
				return err
			}
			defer clear(value)
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			r, err := client.PutResource(c.Context(), repository, kind, tag, value)
			if err != nil {
				return err
			}
			return s.print(r, func() error { return s.line("%s is stored, version %d", r.Path, r.Version) })
		},
	}
	c.Flags().StringVar(&file, "file", "", "file with the value (default: standard input)")
	return repeatable(c, "makes no second version")
}

func resourceList(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list [PREFIX]", Short: "List what is stored, without values", Args: cobra.MaximumNArgs(1),
		Long:    "List what is stored below a prefix, without values.",
		Example: "  sallyport resource list default/key",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			all, err := pages(func(after string) (sallyport.Page[sallyport.Resource], error) {
				return client.Resources(c.Context(), strings.Join(args, ""), after, 0)
			}, 0)
			if err != nil {
				return err
			}
			return s.print(all, func() error {
				var rows [][]string
				for _, r := range all {
					rows = append(rows, []string{r.Path, strconv.FormatInt(r.Version, 10), r.Author, when(r.ChangedAt)})
				}
				return s.rows([]string{"PATH", "VERSION", "AUTHOR", "CHANGED"}, rows)
			})
		},
	}
}

func resourceDelete(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "delete PATH", Short: "Delete a secret", Args: cobra.ExactArgs(1),
		Long:    "Delete a secret. The records of who got it stay, and versions go on counting: what\nis stored at the path later has a version of its own.",
		Example: "  sallyport resource delete default/key/1",
		RunE: func(c *cobra.Command, args []string) error {
			repository, kind, tag, err := path(args[0])
			if err != nil {
				return err
			}
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.DeleteResource(c.Context(), repository, kind, tag); err != nil {
				return err
			}
			return s.print(map[string]string{"deleted": args[0]}, func() error { return s.line("%s is deleted", args[0]) })
		},
	}
}
