package cli

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// agreement is how an operator agrees to an installation.
type agreement struct {
	yes       bool
	downgrade bool
	known     bool // what the installed version may do already needs no question
}

func (a *agreement) flags(c *cobra.Command) {
	c.Flags().BoolVarP(&a.yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&a.downgrade, "allow-downgrade", false, "accept an older version than the one that is or was installed")
}

const installLong = `Show who made a package and what it asks for, ask, and send it to the server,
which verifies it and runs it from now on: a file, a package of a pinned
repository, or those in a bundle. A package of the same name is replaced; what is
new compared with it is marked. Where nobody can be asked, --yes accepts what is
shown. An older version than the installed one is refused unless --allow-downgrade
says that it is meant, and one below the lowest secure version in any case.

A wheel, or a commit of a git repository (https, ssh or file URL, or a folder), is
built here as plugin build does, shown with its commit, and signed with your own
key (--key) after you agreed, in the name of a publisher for whom the server trusts
that key. Hooks, filters and submodules of a repository do not run. A wheel
that is no extension needs --manifest with a plugin.json.

With --for cli the package's commands are added to this command line: it is judged
by the keys that you trust here (plugin trust add ... --for cli), no server is
asked, and only what is for the command line is unpacked. A file that has nothing
for a server is installed here without being told to.

With --dev it builds a folder and signs it with a key of this machine's own, made on
the spot, which counts only at servers with plugins.development: nobody's
production. With --agentkms it installs a bare executable with the signature beside
it (FILE.sig), by a key that is trusted for that.`

func pluginInstall(s *shell) *cobra.Command {
	var a agreement
	var bare bareFlags
	var source sourceFlags
	var bundle, from string
	var develop bool
	c := &cobra.Command{
		Use: "install FILE | NAME[@VERSION] | FILE.whl | git+URL@REF | --bundle FILE | DIR --dev", Short: "Install a package", Args: cobra.MaximumNArgs(1),
		Long: installLong,
		Example: "  sallyport plugin install my.spk\n  sallyport plugin install sshcert@1.2.0 --yes\n  sallyport plugin install --bundle plugins.bundle\n" +
			"  sallyport plugin install git+https://example.org/acme/token.git@v1.2.0 --key ops.key --publisher ops\n" +
			"  sallyport plugin install tags.spk --for cli",
		RunE: func(c *cobra.Command, args []string) error {
			if (bundle == "") != (len(args) == 1) {
				return fault.Invalidf("say what to install: a file, NAME or NAME@VERSION, or --bundle FILE")
			}
			if source.key != "" && (bundle != "" || !isSource(args[0])) {
				return fault.Invalidf("--key signs what is built from FILE.whl or git+URL@REF; a package is signed with: sallyport plugin sign")
			}
			source.publisher = bare.about.Publisher
			if bare.on {
				if s.side == manifest.ForCLI {
					return fault.Invalidf("executables that AgentKMS has signed are plugins of a server: leave out --for cli")
				}
				return s.calling(c.Context(), func(client *sallyport.Client) error {
					return s.installBare(c.Context(), client, args[0], bare, a)
				})
			}
			if bundle == "" {
				s.chooseSide(args[0], develop)
			}
			return s.at(c.Context(), func(client host) error {
				switch {
				case bundle != "":
					return s.installBundle(c.Context(), client, bundle, from, a)
				case develop:
					return s.installDevelopment(c.Context(), client, args[0], a)
				case isSource(args[0]):
					return s.installSource(c.Context(), client, args[0], source, a)
				}
				if name, version, ok := named(args[0]); ok && !isFile(args[0]) {
					return s.installNamed(c.Context(), client, from, name, version, a)
				}
				return s.installPackage(c.Context(), client, args[0], a)
			})
		},
	}
	c.Flags().StringVar(&bundle, "bundle", "", "install the packages in this bundle")
	c.Flags().StringVar(&from, "repository", "", "the repository, if there are several")
	c.Flags().BoolVar(&develop, "dev", false, "build the folder DIR and sign it with this machine's development key")
	a.flags(c)
	bare.flags(c)
	source.flags(c)
	return repeatable(sided(s, c), "finds the package installed")
}

// chooseSide decides for who has not said --for: a file or folder that has
// nothing for a server is for this command line.
func (s *shell) chooseSide(arg string, develop bool) {
	var m manifest.Manifest
	switch {
	case s.side != "":
		return
	case develop:
		_, m, _ = s.spec(arg, building{publisher: developmentKeys})
	case isFile(arg) && !isSource(arg):
		r, _ := plugin.Inspect(arg)
		m = r.Manifest
	}
	if len(m.Roles) > 0 && len(m.RolesFor(manifest.ForServer)) == 0 {
		s.side = manifest.ForCLI
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

// installPackage shows a package file, asks, and installs it: exactly the one
// that was shown.
func (s *shell) installPackage(ctx context.Context, client host, file string, a agreement) error {
	report, err := s.acceptFile(ctx, client, file, a)
	if err != nil {
		return err
	}
	return s.sendPackage(ctx, client, file, report.Digest, a)
}

// sendPackage installs a package file, if it is the one of the digest.
func (s *shell) sendPackage(ctx context.Context, client host, file, digest string, a agreement) error {
	f, err := os.Open(file) //nolint:gosec // the user names it, or it was made here
	if err != nil {
		return fileFault(file, err)
	}
	defer func() { _ = f.Close() }()
	stop := s.busy("installing " + file)
	p, err := client.InstallPlugin(ctx, f, sallyport.InstallRequest{Digest: digest, AllowDowngrade: a.downgrade})
	stop()
	if err != nil {
		return err
	}
	return s.showInstalled(p)
}

// acceptFile shows a package file and asks.
func (s *shell) acceptFile(ctx context.Context, client host, file string, a agreement) (plugin.Report, error) {
	report, err := plugin.Inspect(file)
	if err != nil {
		return report, err
	}
	m := report.Manifest
	if s.side != manifest.ForCLI && len(m.RolesFor(manifest.ForServer)) == 0 {
		return report, plugin.Supported(m) // no server takes it: nobody needs to be asked
	}
	who, err := s.vouchers(ctx, client, file)
	if err != nil {
		return report, err
	}
	if s.side != manifest.ForCLI && m.Has(manifest.RoleCLI) {
		s.note("%s has commands for the command line too; to have them here: sallyport plugin install --for cli", m.Name)
	}
	return report, s.accept(ctx, client, proposal{
		name: m.Name, version: m.Version, publisher: m.Publisher, digest: report.Digest, signers: who, asks: s.asks(m), summary: m.Summary,
	}, a)
}

// asks are what a package asks for on the side where it is installed.
func (s *shell) asks(m manifest.Manifest) []string {
	side := s.side
	if side == "" {
		side = manifest.ForServer
	}
	return plugin.Asks(m, side)
}

func (s *shell) showInstalled(p sallyport.InstalledPlugin) error {
	return s.print(p, func() error {
		return s.facts("installed", p.Name+" "+p.Version, "publisher", p.Publisher, "signed for", signedFor(p.SignedFor), "digest", p.Digest,
			"kinds", strings.Join(p.Offer.Kinds, " "))
	})
}

// signedFor is how people read what keys are trusted for.
func signedFor(use string) string {
	switch plugin.Use(use) {
	case plugin.UseAgentKMS:
		return "legacy (agentkms)"
	case plugin.UseDevelopment:
		return "DEVELOPMENT"
	}
	return ""
}

// vouchers says who has signed, by the keys that the server trusts: the same
// judgement that the server makes, for people to read before.
func (s *shell) vouchers(ctx context.Context, client host, file string) (string, error) {
	list, err := client.Publishers(ctx)
	if sallyport.Is(err, sallyport.Denied) {
		return "not known here: the list of publishers is not shown to you", nil
	}
	if err != nil {
		return "", err
	}
	trust := plugin.Trust{Thresholds: map[string]int{}, Development: true, Now: s.Now}
	for _, p := range list.Items {
		trust.Thresholds[p.Name] = p.Threshold
		for _, k := range p.Keys {
			public := publicOf(k.PublicKey)
			trust.Keys = append(trust.Keys, plugin.Key{
				ID: k.KeyID, Publisher: k.Publisher, Use: plugin.Use(k.Use), Public: public, Names: k.Names,
				NotBefore: k.NotBefore, Expires: k.Expires, State: plugin.RowState(k.State),
			})
		}
	}
	verified, err := plugin.Verify(file, trust)
	if err != nil && plugin.ReasonOf(err) != plugin.ReasonIncompatible {
		return "", fault.Deniedf("refused (%s): %s", verified.Reason, fault.Public(err)).Because(err)
	}
	return strings.Join(verified.Verified, " "), nil
}

// proposal is what an operator is asked to accept.
type proposal struct {
	name, version, publisher, digest, summary string
	signers                                   string
	from                                      string // what it was built from, if it was built here
	asks                                      []string
}

// accept shows a proposal, with what is new compared with what is installed, and
// asks.
func (s *shell) accept(ctx context.Context, client host, p proposal, a agreement) error {
	list, err := client.Plugins(ctx)
	if err != nil && !sallyport.Is(err, sallyport.Denied) {
		return err
	}
	var before sallyport.InstalledPlugin
	for _, i := range list.Items {
		if i.Name == p.name {
			before = i
		}
	}
	for _, line := range p.lines(before) {
		s.note("%s", line)
	}
	fresh := plugin.NewAsks(p.asks, before.Accepted)
	switch {
	case a.yes, a.known && before.Publisher == p.publisher && len(fresh) == 0:
		return nil
	case !terminal(s.in):
		return fault.Invalidf("nothing was installed: read what the plugin asks for above, and accept it with --yes, or run this on a terminal")
	case !s.agrees("Install %s %s and let it do that?", p.name, p.version):
		return fault.Invalidf("nothing was installed: answer yes, or add --yes")
	}
	return nil
}

// lines are the proposal as text.
func (p proposal) lines(before sallyport.InstalledPlugin) []string {
	out := []string{"package     " + p.name + " " + p.version}
	add := func(name, value string) {
		if value != "" {
			out = append(out, (name + "            ")[:12]+value)
		}
	}
	add("summary", p.summary)
	publisher := p.publisher
	if before.Publisher != "" && before.Publisher != p.publisher {
		publisher += "   NEW: it was " + before.Publisher
	}
	add("publisher", publisher)
	add("signed by", p.signers)
	add("built from", p.from)
	add("digest", p.digest)
	if before.Name != "" {
		change := "upgrade of "
		switch {
		case before.Digest == p.digest:
			change = "the same as installed, "
		case plugin.Older(p.version, before.Version):
			change = "DOWNGRADE from "
		case !plugin.Older(before.Version, p.version):
			change = "other content under the same version, "
		}
		add("replaces", change+before.Version)
	}
	for _, ask := range p.asks {
		if before.Name != "" && !slices.Contains(before.Accepted, ask) {
			ask += "   NEW"
		}
		add("asks for", ask)
	}
	if p.asks != nil && before.Name != "" {
		for _, had := range plugin.NewAsks(before.Accepted, p.asks) {
			add("no longer", had)
		}
	}
	return out
}
