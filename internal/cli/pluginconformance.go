package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/conformance"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
	"github.com/sallyport-project/sallyport/internal/plugin/local"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

// requestsFile is where an author keeps what plugin conformance tries.
const requestsFile = "conformance.json"

// judging are the files that a run is given.
type judging struct{ key, requests, wheels string }

func pluginConformance(s *shell) *cobra.Command {
	var j judging
	var address, ca string
	c := &cobra.Command{
		Use: "conformance FILE|DIR | --address HOST:PORT", Short: "Hold a plugin to what its host expects", Args: cobra.MaximumNArgs(1),
		Long: `Start a package as a server would, in the same sandbox, and check what it does when
it is called rightly, wrongly and not any more; of extensions and CLI plugins in
Python, read the sources by the checklists of their guides. It needs no server. A
folder is built first, twice. Requests that the plugin grants, and a
configuration, are read from conformance.json in the folder, or from --requests;
without them simple requests are made up. --address checks a plugin of the key broker
(kbs.plugin.v1) that runs elsewhere, over TLS with --plugin-ca. The exit code is 4 if a
check fails.`,
		Example: `  sallyport plugin conformance .
  sallyport plugin conformance my.spk --key acme.pub --requests conformance.json --output json
  sallyport plugin conformance --address 127.0.0.1:50051`,
		RunE: func(c *cobra.Command, args []string) error {
			if (address == "") == (len(args) == 0) {
				return fault.Invalidf("name a package or a folder, or an address with --address")
			}
			if address != "" {
				return s.conformanceOfAddress(c.Context(), address, ca)
			}
			config, clean, err := s.conformance(c.Context(), args[0], j)
			if err != nil {
				return err
			}
			defer clean()
			box, err := sandbox.New(sandbox.Config{})
			if err != nil {
				return err
			}
			defer func() { _ = box.Close() }()
			config.Sandbox = box
			stop := s.busy("checking " + args[0])
			r, err := conformance.Run(c.Context(), config)
			stop()
			if err != nil {
				return err
			}
			return s.reportConformance(r)
		},
	}
	f := c.Flags()
	f.StringVar(&j.key, "key", "", "public key of the publisher, to check the signature")
	f.StringVar(&address, "address", "", "host:port of a plugin of the key broker that runs already")
	f.StringVar(&ca, "plugin-ca", "", "PEM file with the authorities of that plugin's certificate (default: no TLS)")
	f.StringVar(&j.requests, "requests", "", "file with requests and configuration (default: "+requestsFile+" in the folder)")
	f.StringVar(&j.wheels, "wheels", "", "folder with the locked wheels of a project in Python, in place of downloading them")
	return c
}

// conformanceOfAddress holds what runs at an address to kbs.plugin.v1.
func (s *shell) conformanceOfAddress(ctx context.Context, address, ca string) error {
	a := external.Address{Name: "plugin", Endpoint: "http://" + address, CA: ca}
	if ca != "" {
		a.Endpoint = "https://" + address
	}
	stop := s.busy("checking " + address)
	r, err := conformance.RunAddress(ctx, a, 0)
	stop()
	if err != nil {
		return err
	}
	return s.reportConformance(r)
}

func (s *shell) reportConformance(r conformance.Report) error {
	if err := s.print(r, func() error { return s.showConformance(r) }); err != nil {
		return err
	}
	if !r.OK {
		return fault.Deniedf("%d of %d checks failed", r.Failed, len(r.Checks))
	}
	return nil
}

// conformance makes the configuration of a run. A folder is built into a
// temporary one, which clean removes.
func (s *shell) conformance(ctx context.Context, path string, j judging) (c conformance.Config, clean func(), err error) {
	clean = func() {}
	c.Package, c.Help = path, s.helpOf
	if info, serr := os.Stat(path); serr == nil && info.IsDir() {
		temp, err := os.MkdirTemp("", "sallyport-conformance-")
		if err != nil {
			return c, clean, fault.Unavailablef("no temporary folder can be made").Because(err)
		}
		clean = func() { _ = os.RemoveAll(temp) }
		c.Package = filepath.Join(temp, "package.spk")
		c.Again = func(file string) error { return s.buildFolder(ctx, path, file, j.wheels) }
		if err := c.Again(c.Package); err != nil {
			clean()
			return c, func() {}, err
		}
		if _, err := os.Stat(filepath.Join(path, requestsFile)); err == nil && j.requests == "" {
			j.requests = filepath.Join(path, requestsFile)
		}
	}
	if err := s.conformanceFiles(&c, j.key, j.requests); err != nil {
		clean()
		return c, func() {}, err
	}
	return c, clean, nil
}

// conformanceFiles reads the files that a run is given.
func (s *shell) conformanceFiles(c *conformance.Config, key, requests string) error {
	if requests != "" {
		text, err := s.readFile(requests, conformance.MaxRequests)
		if err != nil {
			return err
		}
		if c.Requests, err = conformance.ReadRequests(text); err != nil {
			return err
		}
	}
	if key == "" {
		return nil
	}
	text, err := s.readFile(key, maxSecret)
	if err != nil {
		return err
	}
	var public ed25519.PublicKey
	if public, err = plugin.ParsePublicKey(text); err == nil {
		c.Key = public
	}
	return err
}

// buildFolder builds the package of a folder, as plugin build does. A project
// that says nowhere who publishes it is judged all the same.
func (s *shell) buildFolder(ctx context.Context, dir, out, wheels string) error {
	_, err := s.build(ctx, dir, building{out: out, wheels: wheels, publisher: "conformance", platforms: []string{runtime.GOOS + "/" + runtime.GOARCH}})
	return err
}

func (s *shell) showConformance(r conformance.Report) error {
	rows := make([][]string, 0, len(r.Checks))
	for _, c := range r.Checks {
		rows = append(rows, []string{c.ID, string(c.Result), c.Name, c.Reason})
	}
	if err := s.facts("plugin", r.Plugin+" "+r.Version, "digest", r.Digest, "sandbox", r.Sandbox); err != nil {
		return err
	}
	if err := s.rows([]string{"CHECK", "RESULT", "WHAT", "SEEN"}, rows); err != nil {
		return err
	}
	for _, c := range r.Checks {
		if c.Result != conformance.Fail {
			continue
		}
		if err := s.line("%s: %s", c.ID, c.Do); err != nil {
			return err
		}
	}
	return s.line("%s", fmt.Sprintf("%d checks: %d pass, %d fail, %d skipped", len(r.Checks), r.Passed, r.Failed, r.Skipped))
}

// helpOf lets a command of a package say how it is used: in a home of its own,
// and as every CLI plugin runs.
func (s *shell) helpOf(ctx context.Context, file string, key plugin.Key, command string) error {
	temp, err := os.MkdirTemp("", "sallyport-conformance-")
	if err != nil {
		return fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	var said bytes.Buffer
	apart := &shell{Env: s.Env, in: strings.NewReader(""), out: &said, err: &said, output: formats[0]}
	apart.Getenv = func(name string) string {
		if name == "SALLYPORT_HOME" {
			return temp
		}
		return ""
	}
	home, err := apart.tools()
	if err != nil {
		return err
	}
	if _, err := home.Trust(local.Key{Publisher: key.Publisher, Public: key.Public}); err != nil {
		return err
	}
	f, err := os.Open(file) //nolint:gosec // made for this run
	if err != nil {
		return fileFault(file, err)
	}
	t, err := home.Install(f, local.Request{})
	_ = f.Close()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, helpWithin)
	defer cancel()
	err = apart.runTool(ctx, home, t.Name, command, []string{"--help"})
	if e, ok := errors.AsType[exited](err); ok {
		const most = 200
		text := strings.Join(strings.Fields(visible(said.String())), " ")
		return fault.Deniedf("%s; it says: %s", e.state.String(), text[:min(len(text), most)])
	}
	return err
}

// helpWithin is how long a command may take to say how it is used.
const helpWithin = 5 * time.Second
