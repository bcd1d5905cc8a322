package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
		pluginTrust(s), pluginFloor(s), pluginLock(s), pluginInstall(s), pluginList(s), pluginStatus(s), pluginRemove(s),
		pluginRepository(s), pluginPublish(s), pluginSearch(s), pluginUpgrade(s), pluginRollback(s), pluginBundle(s))
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

func pluginBuild(s *shell) *cobra.Command {
	var out string
	var binaries, platforms []string
	c := &cobra.Command{
		Use: "build SPEC|DIR --out FILE", Short: "Make a package", Args: cobra.ExactArgs(1),
		Long: `Make an unsigned package from a plugin.json, or the folder that holds it, and
executables: those given with --binary, else the files NAME-OS-ARCH beside
plugin.json, else what the Go compiler makes of the folder, for --platform. Equal
input gives equal bytes.`,
		Example: `  sallyport plugin build ./plugins/sshcert --out sshcert.spk
  sallyport plugin build plugin.json --binary linux/amd64=./build/x --binary linux/arm64=./build/y --out my.spk`,
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return fault.Invalidf("say where the package goes: --out FILE")
			}
			dir, text, err := s.spec(args[0])
			if err != nil {
				return err
			}
			m, err := plugin.ReadSpec(text)
			if err != nil {
				return err
			}
			list, clean, err := executables(c.Context(), s, dir, m.Name, binaries, platforms)
			if err != nil {
				return err
			}
			defer clean()
			r, err := plugin.Build(plugin.Spec{Manifest: m, Binaries: list}, out)
			if err != nil {
				return err
			}
			return s.print(r, func() error { return s.showReport(r) })
		},
	}
	c.Flags().StringVar(&out, "out", "", "file to make")
	c.Flags().StringArrayVar(&binaries, "binary", nil, "executable as OS/ARCH=FILE, or FILE for this machine's platform")
	c.Flags().StringSliceVar(&platforms, "platform", []string{runtime.GOOS + "/" + runtime.GOARCH}, "OS/ARCH to compile for, with Go sources")
	return c
}

// spec reads plugin.json, given by itself or by its folder.
func (s *shell) spec(path string) (dir string, text []byte, err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "plugin.json")
	}
	text, err = s.readFile(path, manifest.MaxBytes)
	return filepath.Dir(path), text, err
}

// executables finds or makes what goes into a package.
func executables(ctx context.Context, s *shell, dir, name string, given, platforms []string) ([]plugin.Binary, func(), error) {
	none := func() {}
	var list []plugin.Binary
	for _, b := range given {
		platform, file, ok := strings.Cut(b, "=")
		if !ok {
			platform, file = runtime.GOOS+"/"+runtime.GOARCH, b
		}
		system, arch, ok := strings.Cut(platform, "/")
		if !ok || file == "" {
			return nil, none, fault.Invalidf("--binary is OS/ARCH=FILE, for example linux/amd64=./build/%s", name)
		}
		list = append(list, plugin.Binary{OS: system, Arch: arch, File: file})
	}
	if len(list) > 0 {
		return list, none, nil
	}
	beside, err := filepath.Glob(filepath.Join(dir, name+"-*-*"))
	if err != nil {
		return nil, none, fault.Wrap(err, "look for executables")
	}
	for _, file := range beside {
		parts := strings.Split(strings.TrimPrefix(filepath.Base(file), name+"-"), "-")
		if len(parts) == 2 && !strings.Contains(parts[1], ".") {
			list = append(list, plugin.Binary{OS: parts[0], Arch: parts[1], File: file})
		}
	}
	if len(list) > 0 {
		return list, none, nil
	}
	if sources, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(sources) == 0 {
		return nil, none, fault.Invalidf("%s has no executables (%s-OS-ARCH) and no Go sources: give --binary OS/ARCH=FILE", dir, name)
	}
	return compile(ctx, s, dir, name, platforms)
}

// compile runs the Go compiler, reproducibly, into a temporary folder.
func compile(ctx context.Context, s *shell, dir, name string, platforms []string) ([]plugin.Binary, func(), error) {
	temp, err := os.MkdirTemp("", "sallyport-build-*")
	if err != nil {
		return nil, func() {}, fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	clean := func() { _ = os.RemoveAll(temp) }
	var list []plugin.Binary
	for _, p := range platforms {
		system, arch, ok := strings.Cut(p, "/")
		if !ok {
			clean()
			return nil, func() {}, fault.Invalidf("--platform is OS/ARCH, for example linux/arm64")
		}
		file := filepath.Join(temp, name+"-"+system+"-"+arch)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", file, ".") //nolint:gosec // fixed words and the user's platform
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch)
		cmd.Stderr = s.err
		stop := s.busy("compiling for " + p)
		err := cmd.Run()
		stop()
		if errors.Is(err, exec.ErrNotFound) {
			clean()
			return nil, func() {}, fault.Unavailablef("there is no Go compiler here: install Go, or give --binary OS/ARCH=FILE").Because(err)
		}
		if err != nil {
			clean()
			return nil, func() {}, fault.Invalidf("%s does not compile for %s", dir, p).Because(err)
		}
		list = append(list, plugin.Binary{OS: system, Arch: arch, File: file})
	}
	return list, clean, nil
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
	var platforms []string
	for _, f := range m.Files {
		platforms = append(platforms, f.OS+"/"+f.Arch)
	}
	return s.facts("package", m.Name+" "+m.Version, "publisher", m.Publisher, "summary", m.Summary, "contract", m.Contract,
		"roles", strings.Join(m.Roles, " "), "kinds", strings.Join(m.Kinds, " "), "platforms", strings.Join(platforms, " "),
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
