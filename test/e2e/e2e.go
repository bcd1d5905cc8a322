// Package e2e drives the real program as its users do: it builds sallyport,
// sets an installation up by its own init command, runs its server in a process
// of its own, and talks to it over the network with the Go client, the guest
// client and plain HTTP. No identity is injected past the front door.
//
// The files without _test in their name are the harness; the crash suite uses it
// too. Everything listens on loopback, on ports that the kernel chooses, and
// every process is ended with its whole group.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// module is where programs are built from.
const module = "github.com/sallyport-project/sallyport"

// Programs is what was built for one run of tests.
type Programs struct {
	Server    string // the sallyport binary
	Package   string // the signed sshcert package
	Publisher string // who signed it
	PublicKey string // by which key, PEM
}

// Build compiles the server and the sshcert plugin into a directory, and
// packages and signs the plugin with a fresh key.
func Build(ctx context.Context, dir string) (Programs, error) {
	p := Programs{Server: filepath.Join(dir, "sallyport"), Package: filepath.Join(dir, "sshcert.package")}
	if err := compile(ctx, p.Server, "cmd/sallyport"); err != nil {
		return p, err
	}
	binary := filepath.Join(dir, "sshcert")
	if err := compile(ctx, binary, "plugins/sshcert"); err != nil {
		return p, err
	}
	source, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", module+"/plugins/sshcert").Output()
	if err != nil {
		return p, fmt.Errorf("find the plugin's folder: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(string(source[:len(source)-1]), "plugin.json"))
	if err != nil {
		return p, fmt.Errorf("read plugin.json: %w", err)
	}
	m, err := plugin.ReadSpec(text)
	if err != nil {
		return p, fmt.Errorf("read plugin.json: %w", err)
	}
	spec := plugin.Spec{Manifest: m, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: binary}}}
	if _, err := plugin.Build(spec, p.Package); err != nil {
		return p, fmt.Errorf("build package: %w", err)
	}
	p.Publisher = m.Publisher
	p.PublicKey, err = sign(p.Package, filepath.Join(dir, "publisher"))
	return p, err
}

func compile(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-pgo=off", "-o", out, module+"/"+pkg) //nolint:gosec // constant packages
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, text)
	}
	return nil
}

// sign makes a publisher's key, signs the package, and gives the public key.
func sign(file, name string) (string, error) {
	keys, err := plugin.Keygen(name)
	if err != nil {
		return "", fmt.Errorf("make publisher's key: %w", err)
	}
	text, err := os.ReadFile(keys.Private)
	if err != nil {
		return "", fmt.Errorf("read publisher's key: %w", err)
	}
	private, err := plugin.ParsePrivateKey(text)
	if err != nil {
		return "", fmt.Errorf("read publisher's key: %w", err)
	}
	if _, err := plugin.Sign(file, private); err != nil {
		return "", fmt.Errorf("sign package: %w", err)
	}
	public, err := os.ReadFile(keys.Public)
	if err != nil {
		return "", fmt.Errorf("read publisher's key: %w", err)
	}
	return string(public), nil
}
