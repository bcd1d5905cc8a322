package cli

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/project"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// sourceFlags are those of a package that is built when it is installed.
type sourceFlags struct {
	building
	key, spec string
}

func (b *sourceFlags) flags(c *cobra.Command) {
	b.building.flags(c)
	f := c.Flags()
	f.StringVar(&b.key, "key", "", "your private key, which signs a package that is built here")
	f.StringVar(&b.spec, "manifest", "", "plugin.json for a wheel")
}

// isSource reports whether an argument names sources, and not a package.
func isSource(arg string) bool {
	return strings.HasPrefix(arg, "git+") || strings.HasSuffix(arg, ".whl")
}

// installSource builds a package here from a wheel or a commit, shows it, asks,
// signs it with the operator's own key, and installs it.
func (s *shell) installSource(ctx context.Context, client host, arg string, b sourceFlags, a agreement) error {
	if b.key == "" {
		return fault.Invalidf("nobody has signed sources: say with which key of yours to sign what is built from them: --key FILE.key, see: sallyport plugin keygen")
	}
	text, err := s.readFile(b.key, maxSecret)
	if err != nil {
		return err
	}
	defer clear(text)
	private, err := plugin.ParsePrivateKey(text)
	if err != nil {
		return err
	}
	defer clear(private)
	temp, err := os.MkdirTemp("", "sallyport-source-*")
	if err != nil {
		return fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	b.out, b.platforms = filepath.Join(temp, "built.spk"), []string{runtime.GOOS + "/" + runtime.GOARCH}
	report, err := s.buildSource(ctx, arg, b)
	if err != nil {
		return err
	}
	m := report.Manifest
	id := plugin.KeyID(private.Public().(ed25519.PublicKey)) //nolint:forcetypeassert // of an Ed25519 key
	if err := s.mayPublish(ctx, client, m.Publisher, id, b.key); err != nil {
		return err
	}
	p := proposal{
		name: m.Name, version: m.Version, publisher: m.Publisher, digest: report.Digest, signers: "you, if you agree: " + id,
		asks: s.asks(m), summary: m.Summary, from: visible(arg),
	}
	if m.Provenance != nil {
		p.from = strings.TrimSpace(m.Provenance.Source + " " + m.Provenance.Revision)
	}
	if err := s.accept(ctx, client, p, a); err != nil {
		return err
	}
	if _, err := plugin.Sign(b.out, private); err != nil {
		return err
	}
	return s.sendPackage(ctx, client, b.out, report.Digest, a)
}

// buildSource makes an unsigned package from a wheel or a commit.
func (s *shell) buildSource(ctx context.Context, arg string, b sourceFlags) (plugin.Report, error) {
	if !strings.HasPrefix(arg, "git+") {
		return s.buildWheel(ctx, arg, b)
	}
	source, ref, err := project.ParseGit(arg)
	if err != nil {
		return plugin.Report{}, err
	}
	stop := s.busy("fetching")
	folder, revision, err := project.Fetch(ctx, source, ref)
	stop()
	if err != nil {
		return plugin.Report{}, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	dir, m, err := s.spec(folder, b.building)
	if err != nil {
		return plugin.Report{}, err
	}
	m.Publisher = first(b.publisher, m.Publisher)
	content, clean, err := s.content(ctx, dir, m, b.building)
	if err != nil {
		return plugin.Report{}, err
	}
	defer clean()
	content.FromCommit(source, revision)
	return s.finish(content, b.building)
}

func (s *shell) buildWheel(ctx context.Context, file string, b sourceFlags) (plugin.Report, error) {
	m := project.Undeclared(b.publisher)
	switch {
	case b.spec != "":
		text, err := s.readFile(b.spec, manifest.MaxBytes)
		if err != nil {
			return plugin.Report{}, err
		}
		if m, err = plugin.ReadSpec(text); err != nil {
			return plugin.Report{}, err
		}
		m.Publisher = first(b.publisher, m.Publisher)
	case b.publisher == "":
		return plugin.Report{}, fault.Invalidf("a wheel names no publisher: say in whose name you sign it with --publisher NAME, or give its --manifest plugin.json")
	}
	stop := s.busy("packing " + file)
	content, err := project.Python{Folder: project.Folder{Manifest: m, SearchPath: b.search}, Lock: b.lock, Wheels: b.wheels, Python: b.python}.Wheel(ctx, file)
	stop()
	if err != nil {
		return plugin.Report{}, err
	}
	return s.finish(content, b.building)
}

// mayPublish reports in time, and with what to do, that the server does not trust
// a key for a publisher. Whether it does is judged by the server alone.
func (s *shell) mayPublish(ctx context.Context, client host, publisher, id, file string) error {
	list, err := client.Publishers(ctx)
	if sallyport.Is(err, sallyport.Denied) {
		return nil
	}
	if err != nil {
		return err
	}
	hint := ""
	for _, p := range list.Items {
		for _, k := range p.Keys {
			if k.KeyID != id || k.Use != string(plugin.UsePackage) || k.State != string(plugin.Active) {
				continue
			}
			if p.Name != publisher {
				hint = "sign it in the name of " + p.Name + ", for which it is trusted: --publisher " + p.Name + "; or "
				continue
			}
			if p.Threshold > 1 {
				return fault.Deniedf("packages of %s need the signatures of %d keys: use plugin build, plugin sign by each, and install the file", publisher, p.Threshold)
			}
			return nil
		}
	}
	return fault.Deniedf("the package says that its publisher is %s, and your key is not trusted for that: %slet it be trusted: sallyport plugin trust add %s %s%s",
		publisher, hint, publisher, strings.TrimSuffix(file, ".key")+".pub", s.here())
}
