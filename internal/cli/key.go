package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// purposes are those whose keys can be replaced.
var purposes = []string{"token", "ear", "cookie", "context", "pepper", "row-mac", "ledger", "ca-intermediate", "ca-root", "ssh-ca"}

func newKey(s *shell) *cobra.Command {
	return group("key", "The server's keys: list, rotate, retire, rewrap",
		`The server's own keys. Each has a purpose; of each purpose one signs (or seals, or
writes), and those before it only verify, until nothing needs them any more.
docs/operating.md has what each rotation means for others.`,
		"  sallyport key list\n  sallyport key rotate token", keyList(s), keyRotate(s), keyRetire(s), keyRewrap(s))
}

func keyList(s *shell) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "list", Short: "List the server's keys", Args: cobra.NoArgs,
		Long: `List the server's keys, and what each does now: the one that signs, seals or writes;
one that is announced and will; those that only verify, open or read. Retired
ones are shown with --all. Public parts are in --output json.`,
		Example: "  sallyport key list\n  sallyport key list --all --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Keys(c.Context())
			if err != nil {
				return err
			}
			if !all {
				list.Items = slices.DeleteFunc(list.Items, func(k sallyport.Key) bool { return k.State == "retired" })
			}
			return s.print(list.Items, func() error { return s.showKeys(list.Items) })
		},
	}
	c.Flags().BoolVar(&all, "all", false, "retired ones too")
	return c
}

func (s *shell) showKeys(list []sallyport.Key) error {
	rows := make([][]string, 0, len(list))
	for _, k := range list {
		does := k.Does
		if does == "announced" {
			does = "signs from " + when(k.SignsFrom)
		}
		rows = append(rows, []string{k.Purpose, k.ID, k.Algorithm, k.State, does, when(k.CreatedAt), first(when(k.NotAfter), "-")})
	}
	return s.rows([]string{"PURPOSE", "ID", "ALGORITHM", "STATE", "DOES", "CREATED", "NOT AFTER"}, rows)
}

func keyRotate(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "rotate PURPOSE", Short: "Replace the key that signs for a purpose", Args: cobra.ExactArgs(1),
		Long: `Replace the key of a purpose (` + strings.Join(purposes, ", ") + `).
What the old key signed stays good to its own end; it is recorded who did it. With
several replicas the new key is announced first, and used ten seconds later.

ssh-ca: let every sshd fetch TrustedUserCAKeys again. ledger: auditors follow by
themselves, from the key that they have. ca-root: the old root stays trusted until
it is retired.`,
		Example:   "  sallyport key rotate token\n  sallyport key rotate ledger",
		ValidArgs: purposes,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			turn, err := client.RotateKey(c.Context(), args[0])
			if err != nil {
				return err
			}
			return s.print(turn, func() error { return s.showKeys(slices.Concat([]sallyport.Key{turn.Key}, turn.Under, turn.Changed)) })
		},
	}
}

func keyRetire(s *shell) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "retire ID", Short: "End a key that was replaced", Args: cobra.ExactArgs(1),
		Long: `End a key that was replaced: its private part is destroyed, and nothing that it signed
is believed any more. Without --force only a key goes that nothing needs any more;
most of them go by themselves then. Use --force when a key has leaked. A root of
the authority never goes by itself: retire it when everybody trusts its successor.`,
		Example: "  sallyport key retire 01K0ABCDEFGHJKMNPQRSTVWXYZ\n  sallyport key retire 01K0ABCDEFGHJKMNPQRSTVWXYZ --force",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			k, err := client.RetireKey(c.Context(), args[0], force)
			if err != nil {
				return err
			}
			return s.print(k, func() error { return s.line("the %s key %s is retired", k.Purpose, k.ID) })
		},
	}
	c.Flags().BoolVar(&force, "force", false, "even if something good needs it still")
	return c
}

func keyRewrap(s *shell) *cobra.Command {
	var file, fresh string
	c := &cobra.Command{
		Use: "rewrap --new-kek FILE", Short: "Change the key that wraps all others, with the server stopped", Args: cobra.NoArgs,
		Long: `Change the key encryption key: make a new key file, unless it is there already, and
wrap with it what the old one wraps. Stop every server of this installation first.
All of it is one transaction, so that an interrupted run has done nothing or all,
and can be repeated. The old file stays; the output says when it may go.`,
		Example: "  sallyport key rewrap --new-kek /etc/sallyport/kek-2027",
		RunE: func(c *cobra.Command, _ []string) error {
			if fresh == "" {
				return fault.Invalidf("where is the new key to be? --new-kek FILE, outside of the data directory")
			}
			cfg, err := s.config(file)
			if err != nil {
				return err
			}
			done, err := app.Rewrap(c.Context(), cfg, fresh)
			if err != nil {
				return err
			}
			return s.print(done, func() error {
				if err := s.facts("new key", done.New, "old key", done.Old, "wrapped anew", strings.Join(done.Keys, " ")); err != nil {
					return err
				}
				text := "\nNow, on every server:\n  1. set kek.file to " + done.File + " in sallyport.yaml, with the mode 0600\n" +
					"  2. start it: sallyport serve\n" +
					"  3. keep a copy of the new file in a safe place\n" +
					"The old file " + cfg.KEK.File + " may be destroyed once the server runs and no backup from before now is to be restored;\n" +
					"until then keep it, and name it under kek.old to open such a backup.\n"
				_, err := s.out.Write([]byte(visibleLines(text)))
				return written(err)
			})
		},
	}
	c.Flags().StringVar(&fresh, "new-kek", "", "file of the new key; made if it does not exist")
	c.Flags().StringVar(&file, "config", "", "configuration (default $SALLYPORT_HOME/sallyport.yaml)")
	return c
}

// visibleLines is visible for a text of several lines.
func visibleLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = visible(lines[i])
	}
	return strings.Join(lines, "\n")
}
