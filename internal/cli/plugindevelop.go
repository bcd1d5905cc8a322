package cli

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// developmentKeys is the prefix of a developer's own key, below the home folder.
const developmentKeys = "development"

// installDevelopment builds a folder, signs the package with this machine's own
// development key, and installs it at a server that accepts such packages.
func (s *shell) installDevelopment(ctx context.Context, client host, folder string, a agreement) error {
	temp, err := os.MkdirTemp("", "sallyport-development-*")
	if err != nil {
		return fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	file := filepath.Join(temp, "development.spk")
	r, err := s.build(ctx, folder, building{out: file, publisher: developmentKeys, platforms: []string{runtime.GOOS + "/" + runtime.GOARCH}})
	if err != nil {
		return err
	}
	if err := s.signDevelopment(ctx, client, file); err != nil {
		return err
	}
	if s.side == manifest.ForCLI {
		s.warn("%s is signed by this machine's development key, and by nobody else: it is marked in the help", r.Manifest.Name)
	} else {
		s.warn("%s is signed by this machine's development key: it runs only where plugins.development is on, which is nobody's production", r.Manifest.Name)
	}
	return s.installPackage(ctx, client, file, a)
}

// signDevelopment signs with the development key, which is made at its first use,
// and lets the server trust it if it does not yet.
func (s *shell) signDevelopment(ctx context.Context, client host, file string) error {
	home, err := s.home()
	if err != nil {
		return err
	}
	prefix := filepath.Join(home, developmentKeys)
	if _, err := os.Stat(prefix + ".key"); os.IsNotExist(err) {
		if err := os.MkdirAll(home, 0o700); err != nil {
			return fileFault(home, err)
		}
		if _, err := plugin.Keygen(prefix); err != nil {
			return err
		}
	}
	public, err := s.readFile(prefix+".pub", maxSecret)
	if err != nil {
		return err
	}
	_, err = client.TrustPublisher(sallyport.WithIdempotencyKey(ctx, ""), sallyport.TrustRequest{
		Publisher: developmentKeys, PublicKey: string(public), Use: string(plugin.UseDevelopment),
	})
	if err != nil && !is(err, fault.Conflict) { // trusted already
		return err
	}
	secret, err := s.readFile(prefix+".key", maxSecret)
	if err != nil {
		return err
	}
	defer clear(secret)
	private, err := plugin.ParsePrivateKey(secret)
	if err != nil {
		return err
	}
	defer clear(private)
	_, err = plugin.SignDevelopment(file, private)
	return err
}

// bareFlags are those of an executable that AgentKMS has signed.
type bareFlags struct {
	on        bool
	signature string
	about     sallyport.BarePlugin
}

func (b *bareFlags) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&b.on, "agentkms", false, "FILE is a bare executable that AgentKMS has signed")
	f.StringVar(&b.signature, "sig", "", "with --agentkms: its signature (default: FILE.sig)")
	f.StringVar(&b.about.Name, "name", "", "with --agentkms: name of the plugin (default: FILE without agentkms-plugin-)")
	f.StringVar(&b.about.Publisher, "publisher", "", "with --agentkms: whose key has signed; of what is built here: in whose name you sign")
	f.StringVar(&b.about.Kind, "kind", "", "with --agentkms: kind of credential (default: FILE.manifest, else the executable is asked)")
	f.StringVar(&b.about.Version, "version", "", "with --agentkms: version (default: FILE.manifest, else 0.0.0)")
	f.StringSliceVar(&b.about.Network, "network", nil, "with --agentkms: what it may reach, host:port")
}

// installBare installs a bare executable with its .sig, and its .manifest if
// there is one.
func (s *shell) installBare(ctx context.Context, client *sallyport.Client, file string, b bareFlags, a agreement) error {
	about := b.about
	if about.Publisher == "" {
		return fault.Invalidf("say whose key has signed the executable: --publisher NAME, see: sallyport plugin trust add --agentkms")
	}
	about.Name = first(about.Name, strings.TrimPrefix(filepath.Base(file), "agentkms-plugin-"))
	var err error
	if about.Signature, err = s.readFile(first(b.signature, file+".sig"), maxSecret); err != nil {
		return err
	}
	known := plugin.Bare{Kind: about.Kind, Version: about.Version}
	if _, missing := os.Stat(file + ".manifest"); missing == nil {
		text, err := s.readFile(file+".manifest", maxSecret)
		if err != nil {
			return err
		}
		if known, err = plugin.ReadBareManifest(text, known); err != nil {
			return err
		}
	}
	about.Kind, about.Version, about.Roles = known.Kind, known.Version, known.Roles
	p := proposal{
		name: about.Name, version: first(about.Version, "0.0.0"), publisher: about.Publisher,
		summary: "a bare executable, signed as AgentKMS does (legacy): the signature binds no name, version or platform",
		signers: "judged by the server", asks: []string{"effects remote"},
	}
	for _, r := range about.Roles {
		p.asks = append(p.asks, "role "+r)
	}
	for _, n := range about.Network {
		p.asks = append(p.asks, "network "+n)
	}
	if err := s.accept(ctx, client, p, a); err != nil {
		return err
	}
	f, err := os.Open(file) //nolint:gosec // the user names it
	if err != nil {
		return fileFault(file, err)
	}
	defer func() { _ = f.Close() }()
	stop := s.busy("installing " + file)
	row, err := client.InstallBarePlugin(ctx, f, about, sallyport.InstallRequest{AllowDowngrade: a.downgrade})
	stop()
	if err != nil {
		return err
	}
	return s.showInstalled(row)
}
