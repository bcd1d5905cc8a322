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
workloads which policy allows, sealed to their keys. That is their way out: a new
installation lets nobody read them here, until a policy of yours does. What stood
at a path before is kept as an older version, which no guest is given.`,
		"  sallyport resource put default/key/1 --file disk.key",
		resourcePut(s), resourceGet(s), resourceList(s), resourceVersions(s), resourceDelete(s))
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
path before is kept as an older version.`,
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
					rows = append(rows, []string{r.Path, strconv.FormatInt(r.Version, 10), strconv.FormatInt(r.Bytes, 10), r.Author, when(r.ChangedAt)})
				}
				return s.rows([]string{"PATH", "VERSION", "BYTES", "AUTHOR", "CHANGED"}, rows)
			})
		},
	}
}

func resourceGet(s *shell) *cobra.Command {
	var version int64
	var out string
	c := &cobra.Command{
		Use: "get PATH [--version N] [--out FILE]", Short: "Read a secret, or an older version of it", Args: cobra.ExactArgs(1),
		Long: `Read a stored secret in the clear, byte for byte, to standard output (in base64 with
--output json or yaml) or a file with mode 0600. A new installation allows it to
nobody; a policy of kind sallyport may:

  package sallyport

  administer := {"allow": true, "reasons": ["alice brings secrets back"]} if {
      input.subject.name == "alice"
      input.action == "read"
      input.target.kind == "resource"
  }

Each time is in the ledger, as resource.read.`,
		Example: "  sallyport resource get default/key/1 --version 3 --out disk.key\n" +
			"  sallyport resource get default/key/1 --version 3 | sallyport resource put default/key/1   # bring it back",
		RunE: func(c *cobra.Command, args []string) error {
			repository, kind, tag, err := path(args[0])
			if err != nil {
				return err
			}
			if version < 0 {
				return fault.Invalidf("versions are numbers from 1: sallyport resource versions %s", args[0])
			}
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			got, err := client.ReadResource(c.Context(), repository, kind, tag, version)
			if err != nil {
				return err
			}
			if out == "" {
				value := []byte(got.Value.Reveal())
				return s.raw(value, map[string]any{"path": got.Path, "version": got.Version, "bytes": len(value)})
			}
			if err := replace(out, []byte(got.Value.Reveal()), 0o600); err != nil {
				return err
			}
			return s.print(map[string]any{"file": out, "path": got.Path, "version": got.Version}, func() error {
				return s.line("%s, version %d, is in %s", got.Path, got.Version, out)
			})
		},
	}
	c.Flags().Int64Var(&version, "version", 0, "which version (default: the present one)")
	c.Flags().StringVar(&out, "out", "", "file for the value (default: standard output)")
	return c
}

func resourceVersions(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "versions PATH", Short: "List what is and was stored at a path", Args: cobra.ExactArgs(1),
		Long: `List what is and was stored at a path, the newest first, without values: kept ones can
be read, of others the value is gone. Deletions count as versions.`,
		Example: "  sallyport resource versions default/key/1",
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
			all, err := pages(func(after string) (sallyport.Page[sallyport.ResourceVersion], error) {
				return client.ResourceVersions(c.Context(), repository, kind, tag, after, 0)
			}, 0)
			if err != nil {
				return err
			}
			return s.print(all, func() error {
				var rows [][]string
				for _, v := range all {
					rows = append(rows, []string{strconv.FormatInt(v.Version, 10), v.State, strconv.FormatInt(v.Bytes, 10), v.Author, when(v.StoredAt)})
				}
				return s.rows([]string{"VERSION", "STATE", "BYTES", "AUTHOR", "STORED"}, rows)
			})
		},
	}
}

func resourceDelete(s *shell) *cobra.Command {
	var erase bool
	c := &cobra.Command{
		Use: "delete PATH [--erase]", Short: "Delete a secret", Args: cobra.ExactArgs(1),
		Long: `Delete a secret: no guest is given it any more. Its versions stay, for whom policy
lets read them, until --erase takes all their values away for good; that works on a
path that was deleted before, too. The records of who got it stay, and versions go on
counting: what is stored at the path later has a version of its own.`,
		Example: "  sallyport resource delete default/key/1\n  sallyport resource delete default/key/1 --erase",
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
			if err := client.DeleteResource(c.Context(), repository, kind, tag, erase); err != nil {
				return err
			}
			return s.print(map[string]any{"deleted": args[0], "erased": erase}, func() error {
				if erase {
					return s.line("%s is deleted, and its values are gone for good", args[0])
				}
				return s.line("%s is deleted; its versions are kept: sallyport resource versions %s", args[0], args[0])
			})
		},
	}
	c.Flags().BoolVar(&erase, "erase", false, "take the values of all versions away for good")
	return c
}
