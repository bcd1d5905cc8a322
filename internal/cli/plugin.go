package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

func newPlugin(s *shell) *cobra.Command {
	return group("plugin", "Make, sign, check and install plugins",
		`A plugin is a signed package: a manifest, signatures over it, and an executable
per platform. A server runs it only if a trusted publisher signed exactly these
bytes, and checks that again before every start.`,
		`  sallyport plugin keygen --out acme
  sallyport plugin build ./myplugin --out myplugin.spk
  sallyport plugin sign myplugin.spk --key acme.key
  sallyport plugin trust add acme acme.pub
  sallyport plugin install myplugin.spk`,
		pluginInit(s), pluginKeygen(s), pluginBuild(s), pluginSign(s), pluginVerify(s), pluginInspect(s), pluginConformance(s),
		pluginTrust(s), pluginFloor(s), pluginLock(s), pluginInstall(s), pluginList(s), pluginStatus(s), pluginRemove(s), pluginPurge(s),
		pluginRepository(s), pluginPublish(s), pluginUploadToken(s), pluginSearch(s), pluginUpgrade(s), pluginRollback(s), pluginBundle(s))
}

func pluginKeygen(s *shell) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "keygen --out PREFIX", Short: "Make a publisher key", Args: cobra.NoArgs,
		Long:    "Make an Ed25519 key: PREFIX.key (keep it offline) and PREFIX.pub (give it to those who trust you). Nothing is overwritten.",
		Example: "  sallyport plugin keygen --out acme",
		RunE: func(*cobra.Command, []string) error {
			if out == "" {
				return fault.Invalidf("say where the key goes: --out PREFIX makes PREFIX.key and PREFIX.pub")
			}
			k, err := plugin.Keygen(out)
			if err != nil {
				return err
			}
			return s.print(k, func() error { return s.facts("key id", k.ID, "private key", k.Private, "public key", k.Public) })
		},
	}
	c.Flags().StringVar(&out, "out", "", "prefix of the two files")
	return c
}

func pluginSign(s *shell) *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "sign FILE --key KEY", Short: "Sign a package", Args: cobra.ExactArgs(1),
		Long:    "Add a signature to a package, offline. Where several must sign, each signs with their own key; who signs again replaces the own signature.",
		Example: "  sallyport plugin sign my.spk --key acme.key",
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return fault.Invalidf("say which key signs: --key PREFIX.key, see: sallyport plugin keygen")
			}
			text, err := s.readFile(key, maxSecret)
			if err != nil {
				return err
			}
			defer clear(text)
			private, err := plugin.ParsePrivateKey(text)
			if err != nil {
				return err
			}
			defer clear(private)
			r, err := plugin.Sign(args[0], private)
			if err != nil {
				return err
			}
			return s.print(r, func() error { return s.showReport(r) })
		},
	}
	c.Flags().StringVar(&key, "key", "", "private key, as plugin keygen makes it")
	return c
}

func pluginVerify(s *shell) *cobra.Command {
	var keys, names []string
	var publisher string
	var threshold int
	c := &cobra.Command{
		Use: "verify FILE --key PUB --publisher NAME", Short: "Judge a package as a server would, offline", Args: cobra.ExactArgs(1),
		Long: `Judge a package by the same code as a server: archive, manifest, signatures and
every file. The exit code is 4 if it would be refused; --output json has the
reason as a code.`,
		Example: "  sallyport plugin verify my.spk --key acme.pub --publisher acme",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(keys) == 0 || publisher == "" {
				return fault.Invalidf("say whom you trust: --key FILE.pub --publisher NAME")
			}
			trust := plugin.Trust{Thresholds: map[string]int{publisher: threshold}, Now: s.Now}
			for _, k := range keys {
				text, err := s.readFile(k, maxSecret)
				if err != nil {
					return err
				}
				public, err := plugin.ParsePublicKey(text)
				if err != nil {
					return err
				}
				row, err := plugin.NewKey(public, publisher, names, "", s.Now())
				if err != nil {
					return err
				}
				trust.Keys = append(trust.Keys, row)
			}
			r, err := plugin.Verify(args[0], trust)
			if err != nil {
				return refusedPackage(s, r, err)
			}
			return s.print(r, func() error { return s.showReport(r) })
		},
	}
	f := c.Flags()
	f.StringArrayVar(&keys, "key", nil, "public key of the publisher; may be given several times")
	f.StringVar(&publisher, "publisher", "", "the publisher's name")
	f.StringSliceVar(&names, "names", nil, "patterns of package names that the keys may sign (default: all)")
	f.IntVar(&threshold, "threshold", 1, "how many of the keys must have signed")
	return c
}

// refusedPackage prints the report for machines beside the error. A package
// that exists and is not right is Denied, however it is broken.
func refusedPackage(s *shell, r plugin.Report, err error) error {
	if r.Reason == "" {
		return err
	}
	if s.output != "table" {
		if printed := s.print(r, nil); printed != nil {
			return printed
		}
	}
	return fault.Deniedf("refused (%s): %s", r.Reason, fault.Public(err)).Because(err)
}

func pluginInspect(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE", Short: "Show what a package says of itself", Args: cobra.ExactArgs(1),
		Long:    "Show what a package says of itself, and check that it is complete. Nothing of it is trusted: see plugin verify.",
		Example: "  sallyport plugin inspect my.spk --output json",
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := plugin.Inspect(args[0])
			if err != nil {
				return err
			}
			return s.print(r, func() error { return s.showReport(r) })
		},
	}
}

func (s *shell) showReport(r plugin.Report) error {
	m := r.Manifest
	from := manifest.Provenance{}
	if m.Provenance != nil {
		from = *m.Provenance
	}
	return s.facts("package", m.Name+" "+m.Version, "publisher", m.Publisher, "summary", m.Summary, "contract", m.Contract,
		"roles", strings.Join(m.Roles, " "), "kinds", strings.Join(m.Kinds, " "), "platforms", platforms(m), "runs", runLine(m),
		"entry points", entryPoints(m), "source", strings.TrimSpace(from.Source+" "+from.Revision), "files", strconv.Itoa(len(m.Files)),
		"digest", r.Digest, "file", r.File, "signatures", strings.Join(r.Signers, " "), "verified by", strings.Join(r.Verified, " "))
}

// busy shows, on a terminal, that something takes longer than a second.
func (s *shell) busy(what string) (stop func()) {
	if !terminal(s.err) {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		shown := false
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for began := time.Now(); ; {
			select {
			case <-done:
				if shown {
					_, _ = s.err.Write([]byte("\r\x1b[K"))
				}
				return
			case <-tick.C:
				shown = true
				_, _ = s.err.Write([]byte("\r\x1b[K" + visible(what) + ", " + time.Since(began).Round(time.Second).String()))
			}
		}
	}()
	return func() { close(done); <-ended }
}
