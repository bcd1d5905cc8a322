package cli

import (
	"crypto/ed25519"
	"encoding/pem"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// maxStatement bounds a rotation file.
const maxStatement = 256 << 10

func trustStatement(s *shell) *cobra.Command {
	var r plugin.Rotation
	var files, names []string
	var until, out string
	c := &cobra.Command{
		Use: "statement PUBLISHER --serial N --key PUB... --out FILE", Short: "Say, as a publisher, which keys are yours", Args: cobra.ExactArgs(1),
		Long: `Make, offline, a publisher's statement which keys are its own from now on: all
of them, the present ones that stay and the new ones. Those that servers know and
that are not named are retired; those given with --revoked are revoked. Present
keys, as many as must sign a package, sign it with: plugin trust sign; every new
key signs it too. Servers take it with: plugin trust rotate, without asking
anybody whether the new key is genuine. The serial grows with each statement.`,
		Example: `  sallyport plugin trust statement acme --serial 1 --key acme-1.pub --key acme-3.pub --out rotation.json
  sallyport plugin trust sign rotation.json --key acme-1.key
  sallyport plugin trust sign rotation.json --key acme-2.key
  sallyport plugin trust sign rotation.json --key acme-3.key`,
		RunE: func(_ *cobra.Command, args []string) error {
			if out == "" {
				return fault.Invalidf("say where the statement goes: --out FILE")
			}
			end, err := s.day("--expires", until)
			if err != nil {
				return err
			}
			r.Publisher, r.Keys = args[0], nil
			for _, file := range files {
				public, err := s.readPublic(file)
				if err != nil {
					return err
				}
				k := plugin.RotationKey{Public: public, Names: names}
				if !end.IsZero() {
					k.Expires = new(time.Time)
					*k.Expires = end
				}
				r.Keys = append(r.Keys, k)
			}
			text, err := plugin.NewRotation(r)
			if err != nil {
				return err
			}
			if err := create(out, text, 0o644); err != nil {
				return err
			}
			return s.showRotation(text, out)
		},
	}
	f := c.Flags()
	f.Int64Var(&r.Serial, "serial", 0, "number of the statement, more than that of the last")
	f.StringArrayVar(&files, "key", nil, "public key that is the publisher's from now on; may be given several times")
	f.StringArrayVar(&r.Revoked, "revoked", nil, "id of a key that is in the wrong hands; may be given several times")
	f.IntVar(&r.Threshold, "threshold", 0, "how many keys sign packages from now on (default: as before)")
	f.StringSliceVar(&names, "names", nil, "patterns of package names for new keys (default: those of the keys that introduce them)")
	f.StringVar(&until, "expires", "", "when new keys expire: a day, or time from now such as 400d (default: with those of the keys that introduce them)")
	f.StringVar(&out, "out", "", "file to make")
	return c
}

func (s *shell) readPublic(file string) (ed25519.PublicKey, error) {
	text, err := s.readFile(file, maxSecret)
	if err != nil {
		return nil, err
	}
	return plugin.ParsePublicKey(text)
}

func (s *shell) showRotation(text []byte, file string) error {
	r, signers, err := plugin.ReadRotation(text)
	if err != nil {
		return err
	}
	ids := make([]string, 0, len(r.Keys))
	for _, k := range r.Keys {
		ids = append(ids, plugin.KeyID(k.Public))
	}
	out := struct {
		File     string          `json:"file"`
		Rotation plugin.Rotation `json:"rotation"`
		Keys     []string        `json:"key_ids"`
		Signers  []string        `json:"signers"` // they prove nothing here
	}{file, r, ids, signers}
	return s.print(out, func() error {
		threshold := "as before"
		if r.Threshold > 0 {
			threshold = strconv.Itoa(r.Threshold)
		}
		facts := []string{"publisher", r.Publisher, "serial", strconv.FormatInt(r.Serial, 10), "threshold", threshold}
		for i, k := range r.Keys {
			facts = append(facts, "key", ids[i], "if new", termsOf(k))
		}
		return s.facts(append(facts, "revoked", strings.Join(r.Revoked, " "), "file", file, "signatures", strings.Join(signers, " "))...)
	})
}

// termsOf says on what terms a statement introduces a key.
func termsOf(k plugin.RotationKey) string {
	names, ends := "the packages of who introduces it", "for as long as who introduces it"
	if len(k.Names) > 0 {
		names = strings.Join(k.Names, " ")
	}
	if k.Expires != nil {
		ends = "until " + when(*k.Expires)
	}
	if k.NotBefore != nil {
		ends = "from " + when(*k.NotBefore) + ", " + ends
	}
	return names + "; " + ends
}

func trustSign(s *shell) *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "sign FILE --key KEY", Short: "Sign a publisher's statement", Args: cobra.ExactArgs(1),
		Long:    "Add a signature to a statement, offline. It prints what the statement says: read it before you hand it on.",
		Example: "  sallyport plugin trust sign rotation.json --key acme-1.key",
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return fault.Invalidf("say which key signs: --key PREFIX.key, see: sallyport plugin keygen")
			}
			text, err := s.readFile(args[0], maxStatement)
			if err != nil {
				return err
			}
			secret, err := s.readFile(key, maxSecret)
			if err != nil {
				return err
			}
			defer clear(secret)
			private, err := plugin.ParsePrivateKey(secret)
			if err != nil {
				return err
			}
			defer clear(private)
			if text, err = plugin.SignRotation(text, private); err != nil {
				return err
			}
			if err := replace(args[0], text, 0o644); err != nil {
				return err
			}
			return s.showRotation(text, args[0])
		},
	}
	c.Flags().StringVar(&key, "key", "", "private key, as plugin keygen makes it")
	return c
}

func trustRotate(s *shell) *cobra.Command {
	return sided(s, &cobra.Command{
		Use: "rotate FILE...", Short: "Apply a publisher's statement which keys are its own", Args: cobra.MinimumNArgs(1),
		Long: `Send statements of publishers to the server, in this order. Each counts if as
many present keys of its publisher have signed it as must sign a package, none of
them past its time, and every new key too. New keys may sign what those who
introduce them may sign, and for as long. After a long absence give all statements that were
missed; one that was applied already is skipped.`,
		Example: "  sallyport plugin trust rotate acme-1.json acme-2.json",
		RunE: func(c *cobra.Command, args []string) error {
			return s.at(c.Context(), func(client host) error {
				done := []sallyport.PublisherRotation{}
				for _, file := range args {
					text, err := s.readFile(file, maxStatement)
					if err != nil {
						return err
					}
					r, err := client.RotatePublisher(c.Context(), text)
					if is(err, fault.Conflict) && len(args) > 1 {
						s.note("%s: %s", file, describe(err).Detail)
						continue
					}
					if err != nil {
						return err
					}
					done = append(done, r)
				}
				return s.print(done, func() error {
					var rows [][]string
					for _, r := range done {
						for _, k := range append(r.Added, r.Ended...) {
							rows = append(rows, []string{r.Publisher, strconv.FormatInt(r.Serial, 10), k.KeyID, k.State, strings.Join(k.Names, " "), when(k.Expires)})
						}
					}
					return s.rows([]string{"PUBLISHER", "SERIAL", "KEY ID", "IS NOW", "PACKAGES", "EXPIRES"}, rows)
				})
			})
		},
	})
}

func pluginFloor(s *shell) *cobra.Command {
	var lower bool
	c := &cobra.Command{
		Use: "floor [NAME VERSION]", Short: "Set the lowest version of a plugin that may run", Args: cobra.RangeArgs(0, 2),
		Long: `Demand a lowest version of a package, for good: what is below stops, and is not
installed any more, not even with --allow-downgrade. Packages demand it by
themselves too, with min_secure_version. Without arguments it lists what is
demanded. --lower allows the number to go down, for one that was set too high.`,
		Example: "  sallyport plugin floor\n  sallyport plugin floor sshcert 1.2.0",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return fault.Invalidf("say which version is the lowest: sallyport plugin floor %s VERSION", args[0])
			}
			return s.at(c.Context(), func(client host) error {
				if len(args) == 2 {
					f, err := client.SetPluginFloor(c.Context(), args[0], args[1], lower)
					if err != nil {
						return err
					}
					return s.print(f, func() error { return s.line("%s must be at least %s", f.Name, f.Lowest) })
				}
				list, err := client.PluginFloors(c.Context())
				if err != nil {
					return err
				}
				return s.print(list.Items, func() error {
					var rows [][]string
					for _, f := range list.Items {
						rows = append(rows, []string{f.Name, f.Lowest, f.Origin, f.Author, when(f.At)})
					}
					return s.rows([]string{"NAME", "LOWEST", "BY", "AUTHOR", "AT"}, rows)
				})
			})
		},
	}
	c.Flags().BoolVar(&lower, "lower", false, "allow the number to go down")
	return sided(s, c)
}

// publicOf reads one PEM key of a list, nil if it is none.
func publicOf(text string) ed25519.PublicKey {
	if block, _ := pem.Decode([]byte(text)); block == nil {
		return nil
	}
	public, err := plugin.ParsePublicKey([]byte(text))
	if err != nil {
		return nil
	}
	return public
}
