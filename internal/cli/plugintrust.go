package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func pluginTrust(s *shell) *cobra.Command {
	return group("trust", "Whose packages are run",
		`The publishers whose signatures a server accepts, their keys, and how many of
these must have signed. Taking a key away acts on running plugins within seconds.
With --for cli: those that you accept for this command line.`,
		`  sallyport plugin trust add acme acme-1.pub --names 'acme-*' --expires 2028-01-31
  sallyport plugin trust add acme acme-2.pub --names 'acme-*' --expires 2028-01-31
  sallyport plugin trust threshold acme 2`,
		trustAdd(s), trustList(s), trustRemove(s), trustRetire(s), trustRevoke(s), trustThreshold(s),
		trustStatement(s), trustSign(s), trustRotate(s))
}

func trustAdd(s *shell) *cobra.Command {
	var names []string
	var from, until string
	var agentkms bool
	c := &cobra.Command{
		Use: "add PUBLISHER PUBLIC-KEY-FILE", Short: "Trust a publisher's key", Args: cobra.ExactArgs(2),
		Long: `Let a key sign packages in the name of a publisher, all of them or those whose
names match. With --expires the key counts for no installation and no start from
that day on; what runs then runs until it ends. A key that is trusted already gets
the new terms. A key that was revoked is never trusted again.

With --agentkms the key is trusted for bare executables that AgentKMS has signed,
and for nothing else; the file may hold the 32 raw bytes. Such a signature binds
no name, so --names must list the plugins themselves.`,
		Example: `  sallyport plugin trust add acme acme.pub --names 'acme-*' --expires 2028-01-31
  sallyport plugin trust add old-vendor vendor.key --agentkms --names honeytoken`,
		RunE: func(c *cobra.Command, args []string) error {
			r := sallyport.TrustRequest{Publisher: args[0], Names: names}
			if agentkms {
				r.Use = string(plugin.UseAgentKMS)
			}
			var err error
			if r.PublicKey, err = s.publicKey(args[1], agentkms); err != nil {
				return err
			}
			if r.NotBefore, err = s.day("--not-before", from); err != nil {
				return err
			}
			if r.Expires, err = s.day("--expires", until); err != nil {
				return err
			}
			return s.at(c.Context(), func(client host) error {
				k, err := client.TrustPublisher(c.Context(), r)
				if err != nil {
					return err
				}
				return s.print(k, func() error {
					return s.facts("publisher", k.Publisher, "key id", k.KeyID, "for", k.Use, "packages", strings.Join(k.Names, " "),
						"not before", when(k.NotBefore), "expires", when(k.Expires))
				})
			})
		},
	}
	f := c.Flags()
	f.StringSliceVar(&names, "names", nil, "patterns of package names (default: all)")
	f.StringVar(&from, "not-before", "", "day, time (RFC 3339) or time from now (90d) from which the key counts")
	f.StringVar(&until, "expires", "", "day, time (RFC 3339) or time from now (90d) from which it counts no more")
	f.BoolVar(&agentkms, "agentkms", false, "for bare executables signed by AgentKMS")
	return repeatable(sided(s, c), "finds the key trusted")
}

// publicKey reads a public key as PEM; raw allows the bare 32 bytes.
func (s *shell) publicKey(path string, raw bool) (string, error) {
	text, err := s.readFile(path, maxSecret)
	if bytes.Contains(text, []byte("PRIVATE KEY")) { // which must not leave this machine
		return "", fault.Invalidf("%s is a private key: give the public one, which plugin keygen wrote beside it as NAME.pub", path)
	}
	if err != nil || !raw || len(text) != ed25519.PublicKeySize {
		return string(text), err
	}
	der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(text))
	if err != nil {
		return "", fault.Wrap(err, "encode public key")
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// day reads a day, a time, or a number of days from now; empty is the zero time.
func (s *shell) day(option, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	if n, err := strconv.Atoi(strings.TrimSuffix(text, "d")); err == nil && n > 0 && strings.HasSuffix(text, "d") {
		return s.Now().UTC().AddDate(0, 0, n).Truncate(time.Second), nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return s.Now().UTC().Add(d).Truncate(time.Second), nil
	}
	return time.Time{}, fault.Invalidf("%s is a day such as 2028-01-31, a time such as 2028-01-31T12:00:00Z, or a time from now such as 90d", option)
}

func trustList(s *shell) *cobra.Command {
	return sided(s, &cobra.Command{
		Use: "list", Short: "List the trusted publishers and their keys", Args: cobra.NoArgs,
		Long: "List the publishers that are trusted, with their keys: also those that were retired or revoked.", Example: "  sallyport plugin trust list",
		RunE: func(c *cobra.Command, _ []string) error {
			return s.at(c.Context(), func(client host) error {
				list, err := client.Publishers(c.Context())
				if err != nil {
					return err
				}
				return s.print(list.Items, func() error {
					var rows [][]string
					for _, p := range list.Items {
						for _, k := range p.Keys {
							rows = append(rows, []string{
								first(p.Name, "(development)"), strconv.Itoa(p.Threshold), k.KeyID, k.Use, strings.Join(k.Names, " "), k.State,
								first(when(k.Expires), "never"), k.Reason,
							})
						}
					}
					return s.rows([]string{"PUBLISHER", "MUST SIGN", "KEY ID", "FOR", "PACKAGES", "STATE", "EXPIRES", "REASON"}, rows)
				})
			})
		},
	})
}

// keyEnd is a command that takes one key back in one way.
func keyEnd(s *shell, c *cobra.Command, done string, end func(context.Context, host, string) error) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		return s.at(c.Context(), func(client host) error {
			if err := end(c.Context(), client, args[0]); err != nil {
				return err
			}
			return s.print(map[string]string{done: args[0]}, func() error { return s.line("%s is %s", args[0], done) })
		})
	}
	return sided(s, c)
}

func trustRemove(s *shell) *cobra.Command {
	return keyEnd(s, &cobra.Command{
		Use: "remove KEY-ID", Short: "Trust a key no longer",
		Long:    "Trust a key no longer. Plugins that do not run without its signature stop. It can be trusted again.",
		Example: "  sallyport plugin trust remove 3f1c...",
	}, "removed", func(ctx context.Context, client host, id string) error {
		return client.DistrustPublisher(ctx, id)
	})
}

func trustRetire(s *shell) *cobra.Command {
	return keyEnd(s, &cobra.Command{
		Use: "retire KEY-ID", Short: "Let a key sign nothing new",
		Long:    "Let a key that was replaced sign nothing new. What it signed and is installed goes on until the key expires.",
		Example: "  sallyport plugin trust retire 3f1c...",
	}, "retired", func(ctx context.Context, client host, id string) error {
		return client.RetirePublisherKey(ctx, id)
	})
}

func trustRevoke(s *shell) *cobra.Command {
	var reason string
	c := keyEnd(s, &cobra.Command{
		Use: "revoke KEY-ID --reason TEXT", Short: "Revoke a key that may be in the wrong hands",
		Long: `Revoke a key for ever. Plugins that do not run without its signature are killed
within seconds, on every replica, and show REVOKED; calls to them fail. It cannot
be taken back: the publisher signs anew, with another key.`,
		Example: `  sallyport plugin trust revoke 3f1c... --reason "found on a stolen laptop"`,
	}, "revoked", func(ctx context.Context, client host, id string) error {
		if reason == "" {
			return fault.Invalidf("say why, for the ledger and for whoever asks later: --reason TEXT")
		}
		return client.RevokePublisherKey(ctx, id, reason)
	})
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	return c
}

func trustThreshold(s *shell) *cobra.Command {
	return sided(s, &cobra.Command{
		Use: "threshold PUBLISHER NUMBER", Short: "Set how many keys of a publisher must have signed", Args: cobra.ExactArgs(2),
		Long: `Set how many distinct keys of a publisher must have signed a package. It acts at
once on what is installed: a plugin with fewer signatures stops.`,
		Example: "  sallyport plugin trust threshold acme 2",
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil {
				return fault.Invalidf("the threshold is a number, for example 2")
			}
			return s.at(c.Context(), func(client host) error {
				if err := client.SetPublisherThreshold(c.Context(), args[0], n); err != nil {
					return err
				}
				return s.print(map[string]any{"publisher": args[0], "threshold": n}, func() error {
					return s.line("packages of %s need %d signatures", args[0], n)
				})
			})
		},
	})
}
