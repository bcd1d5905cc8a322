package cli

import (
	"context"
	"os"
	"path/filepath"
	"runtime"

	"github.com/sallyport-project/sallyport/internal/attester/guest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/seal"
)

const (
	demoHello  = "hello" // a plugin of the key broker, in Go
	demoGreets = demoHello + "/greeting/bob"
)

// demoPluginPolicy decides alone about what guests may ask that plugin.
const demoPluginPolicy = `package policy

applies_to := "external/hello/greeting"

allow if data.method == "GET"
`

// beside is the folder in which further plugins lie.
func (d *demo) beside() string {
	if d.pluginFile != "" {
		return filepath.Dir(filepath.Clean(d.pluginFile))
	}
	return filepath.Join(filepath.Dir(d.exe), "plugins")
}

// packGo packs an executable that lies beside its plugin.json.
func (d *demo) packGo(name string) (plugin.Spec, error) {
	folder := filepath.Join(d.beside(), name)
	_, spec, err := d.s.spec(folder, building{})
	return plugin.Spec{Manifest: spec, Binaries: []plugin.Binary{{
		OS: runtime.GOOS, Arch: runtime.GOARCH, File: filepath.Join(folder, name+"-"+runtime.GOOS+"-"+runtime.GOARCH),
	}}}, err
}

// guestStep has a plugin of the key broker answer a confidential guest.
func (d *demo) guestStep(ctx context.Context, n *demoNotes) error {
	if _, err := os.Stat(filepath.Join(d.beside(), demoHello, "plugin.json")); err != nil {
		return demoSkip("the plugin hello: run make demo")
	}
	hello, err := d.packGo(demoHello)
	if err != nil {
		return err
	}
	if err := d.installAll(ctx, n, hello); err != nil {
		return err
	}
	tap, end := d.tap()
	defer end()
	workload, err := d.workload(tap, func(*guest.Config) {})
	if err != nil {
		return err
	}
	_, _, err = workload.External(ctx, demoGreets, nil)
	why, err := demoRefused(err, "the plugin's answer, without a policy for it,", fault.Denied)
	if err != nil {
		return err
	}
	n.say("a guest asks kbs+external:///%s: %s", demoGreets, why)
	if _, err := d.operator.SetPolicy(ctx, "greetings", "kbs-resource", demoPluginPolicy); err != nil {
		return err
	}
	plain, sealed, err := workload.External(ctx, demoGreets, nil)
	if err != nil {
		return err
	}
	defer plain.Wipe()
	if err := demoMust(sealed != (seal.JWE{}), "the plugin's answer is not sealed"); err != nil {
		return err
	}
	n.say("with a policy for external/hello/greeting it gets a JWE: ciphertext %s", sealed.Ciphertext)
	n.say("opened with its key: %s", plain.Reveal())
	return demoMust(string(plain.Reveal()) == "hello, bob", "the plugin answered something else")
}
