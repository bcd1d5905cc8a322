package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// pluginStep does what a publisher and an operator do with a package.
func (d *demo) pluginStep(ctx context.Context, n *demoNotes) error {
	exe, spec, err := d.pluginSource()
	if err != nil {
		return err
	}
	key, err := plugin.Keygen(d.at("publisher"))
	if err != nil {
		return err
	}
	n.say("the publisher makes a key: %s", key.ID)
	if err := d.buildTwice(n, exe, spec); err != nil {
		return err
	}
	private, err := d.s.readFile(key.Private, maxContext)
	if err != nil {
		return err
	}
	signer, err := plugin.ParsePrivateKey(private)
	if err != nil {
		return err
	}
	signed, err := plugin.Sign(d.pack, signer)
	if err != nil {
		return err
	}
	n.say("signed (DSSE, Ed25519), manifest %s", signed.Digest)

	_, err = d.install(ctx, d.pack)
	why, err := demoRefused(err, "a package of an unknown publisher", fault.Denied, fault.Invalid)
	if err != nil {
		return err
	}
	n.say("before its key is trusted: %s", why)
	public, err := d.s.readFile(key.Public, maxContext)
	if err != nil {
		return err
	}
	trusted, err := d.operator.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: spec.Publisher, PublicKey: string(public), Names: []string{spec.Name}})
	if err != nil {
		return err
	}
	n.say("the operator trusts %s for packages of %s named %v", trusted.KeyID, trusted.Publisher, trusted.Names)
	if err := d.tampered(ctx, n); err != nil {
		return err
	}
	got, err := d.install(ctx, d.pack)
	if err != nil {
		return err
	}
	n.say("the package as signed is installed: %s %s of %s for %v", got.Name, got.Version, got.Publisher, got.Offer.Kinds)
	return d.pluginReady(ctx, n, got.Name)
}

// pluginSource finds the executable and what the plugin.json beside it says.
func (d *demo) pluginSource() (string, manifest.Manifest, error) {
	path := d.pluginFile
	if path == "" {
		path = filepath.Join(filepath.Dir(d.exe), "plugins", "sshcert")
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && d.pluginFile == "":
		return "", manifest.Manifest{}, demoSkip("the plugin sshcert: run make demo, or give --plugin-file")
	case err != nil:
		return "", manifest.Manifest{}, fileFault(path, err)
	}
	folder := path
	if !info.IsDir() {
		folder = filepath.Dir(path)
	}
	_, spec, err := d.s.spec(folder, building{})
	if info.IsDir() {
		path = filepath.Join(folder, spec.Name+"-"+runtime.GOOS+"-"+runtime.GOARCH)
	}
	return path, spec, err
}

// buildTwice makes the package two times and compares.
func (d *demo) buildTwice(n *demoNotes, exe string, spec manifest.Manifest) error {
	var sums [2][sha256.Size]byte
	for i, name := range []string{"first.package", "second.package"} {
		_, err := plugin.Build(plugin.Spec{
			Manifest: spec, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: exe}},
		}, d.at(name))
		if err != nil {
			return err
		}
		text, err := os.ReadFile(d.at(name))
		if err != nil {
			return fileFault(d.at(name), err)
		}
		sums[i] = sha256.Sum256(text)
	}
	d.pack = d.at("first.package")
	n.say("%s %s is built from %s, twice:", spec.Name, spec.Version, filepath.Base(exe))
	n.say("  sha256 %x", sums[0])
	n.say("  sha256 %x", sums[1])
	return demoMust(sums[0] == sums[1], "two builds of one package differ")
}

func (d *demo) install(ctx context.Context, file string) (sallyport.InstalledPlugin, error) {
	f, err := os.Open(file) //nolint:gosec // our own file
	if err != nil {
		return sallyport.InstalledPlugin{}, fileFault(file, err)
	}
	defer func() { _ = f.Close() }()
	return d.operator.InstallPlugin(ctx, f, sallyport.InstallRequest{})
}

// tampered flips one bit of the executable in a copy of the signed package.
func (d *demo) tampered(ctx context.Context, n *demoNotes) error {
	text, err := os.ReadFile(d.pack)
	if err != nil {
		return fileFault(d.pack, err)
	}
	at := len(text) / 2 // the executable is by far the largest part
	was := text[at]
	text[at] ^= 1
	bad := d.at("tampered.package")
	if err := create(bad, text, 0o600); err != nil {
		return err
	}
	n.say("in a copy, byte %d of %d, within the executable, becomes %02x instead of %02x", at, len(text), text[at], was)
	_, err = d.install(ctx, bad)
	why, err := demoRefused(err, "a tampered package", fault.Denied, fault.Invalid)
	if err != nil {
		return err
	}
	n.say("the copy is refused: %s", why)
	return nil
}

// pluginReady waits until the plugin's process serves, and shows its status.
func (d *demo) pluginReady(ctx context.Context, n *demoNotes, name string) error {
	d.pluginName = name
	var s sallyport.PluginStatus
	err := demoWait(ctx, 10*time.Second, "the start of the plugin", func() (bool, error) {
		var err error
		if s, err = d.plugin(ctx); err != nil {
			return false, err
		}
		if s.State == string(plugin.Broken) || s.State == string(plugin.Refused) {
			return false, fault.Unavailablef("the plugin is %s: %s %s", s.State, s.Reason, s.Detail)
		}
		return s.State == string(plugin.Ready), nil
	})
	if err != nil {
		if s.Detail != "" {
			n.say("status: %s, %s: %s", s.State, s.Reason, s.Detail)
		}
		d.pluginName = ""
		return err
	}
	n.say("status: %s, reason %s, contract %s, process %d", s.State, s.Reason, s.Contract, s.PID)
	n.say("  sandbox: %s", s.Sandbox)
	n.say("  manifest %s", s.Digest)
	return demoMust(s.PID > 0, "the plugin is ready and has no process")
}
