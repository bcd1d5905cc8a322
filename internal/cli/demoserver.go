package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

const demoOperatorName = "operator"

// foundStep founds an installation with this very program and starts its
// server, both as processes of their own.
func (d *demo) foundStep(ctx context.Context, n *demoNotes) error {
	args := []string{
		"init", "--dir", d.home, "--name", demoOperatorName, "--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0",
		"--insecure-sample-verifier",
	}
	n.say("$ sallyport %s", strings.Join(args, " "))
	out, said, err := d.command(ctx, d.exe, append(args, "--output", "json")...)
	if err != nil {
		return fault.Unavailablef("init: %s", strings.TrimSpace(said)).Because(err)
	}
	var made founded
	if err := canon.Lenient([]byte(out), maxContext, 8, &made); err != nil {
		return fault.Wrap(err, "read what init printed")
	}
	d.ledgerKey = made.LedgerKey
	n.say("operator    %s, certificate until %s", made.Operator, when(made.NotAfter))
	n.say("CA          %s", made.CAHash)
	n.say("ledger key  %s", made.LedgerKey)
	n.say("SSH CA      %s", made.SSHCA)
	if err := d.serve(ctx, n); err != nil {
		return err
	}
	if d.operator, err = d.me.client(ctx); err != nil {
		return err
	}
	who, err := d.operator.Whoami(ctx)
	if err != nil {
		return err
	}
	n.say("it knows %s as %s %s, by certificate over mutual TLS", who.Subject.Name, who.Subject.Kind, who.Subject.Role)
	return d.banner(ctx, n)
}

// serve starts the server and lets the operator's context find its port.
func (d *demo) serve(ctx context.Context, n *demoNotes) error {
	ready := d.at("ready.json")
	config := filepath.Join(d.home, configFile)
	n.say("$ sallyport serve --config %s --ready-file %s", config, ready)
	begun := time.Now()
	var err error
	if d.server, err = d.start(d.at("server.log"), d.exe, "serve", "--config", config, "--ready-file", ready); err != nil {
		return err
	}
	var bound struct{ Main, Operations string }
	err = demoWait(ctx, 15*time.Second, "the server's start", func() (bool, error) {
		if d.server.gone() {
			return false, fault.Unavailablef("the server ended: %s", strings.TrimSpace(d.server.said()))
		}
		text, err := os.ReadFile(ready)                               //nolint:gosec // in the demo's folder
		return err == nil && json.Unmarshal(text, &bound) == nil, nil // else it is not written yet
	})
	if err != nil {
		return err
	}
	d.url = "https://" + bound.Main
	n.say("serving at %s after %d ms, process %d, operations at http://%s", d.url, time.Since(begun).Milliseconds(), d.server.pid(), bound.Operations)
	c, err := d.me.open(d.home, demoOperatorName)
	if err != nil {
		return err
	}
	if d.roots, err = c.roots(); err != nil {
		return err
	}
	c.URL = d.url
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fault.Wrap(err, "encode context")
	}
	return replace(filepath.Join(c.folder, "context.json"), append(text, '\n'), 0o644)
}

// banner demands that the switch that weakens is shown, at start and in the
// status, and remembers the first head of the ledger.
func (d *demo) banner(ctx context.Context, n *demoNotes) error {
	shown := ""
	for _, line := range strings.Split(d.server.said(), "\n") {
		if strings.Contains(line, "INSECURE") {
			shown = line
		}
	}
	if err := demoMust(shown != "", "the server does not warn that the sample verifier is on"); err != nil {
		return err
	}
	n.say("server: %s", shown)
	status, err := d.operator.Status(ctx)
	if err != nil {
		return err
	}
	if err := demoMust(strings.Contains(strings.Join(status.Weak, "\n"), "INSECURE"), "the status does not show that the sample verifier is on"); err != nil {
		return err
	}
	return demoWait(ctx, 10*time.Second, "the first checkpoint", func() (bool, error) {
		d.firstNote, err = d.operator.Checkpoint(ctx)
		if sallyport.Is(err, sallyport.NotFound) || sallyport.Is(err, sallyport.Unavailable) {
			return false, nil
		}
		return err == nil && d.firstNote != "", err
	})
}

// stopStep sends SIGTERM while a request is half sent: that one is answered,
// new ones find nobody, and the process ends with 0.
func (d *demo) stopStep(ctx context.Context, n *demoNotes) error {
	finish := func() error { return nil }
	if d.pluginName != "" {
		var err error
		if finish, err = d.halfSent(ctx, n); err != nil {
			return err
		}
	}
	n.say("SIGTERM to process %d", d.server.pid())
	begun := time.Now()
	if err := endGroup(d.server.cmd.Process, false); err != nil {
		return fault.Wrap(err, "signal server")
	}
	if err := d.deaf(ctx); err != nil {
		return err
	}
	n.say("new connections are refused after %d ms", time.Since(begun).Milliseconds())
	if err := finish(); err != nil {
		return err
	}
	d.operator.Close()
	select {
	case <-d.server.ended:
	case <-time.After(10 * time.Second):
		return fault.Unavailablef("the server did not exit within ten seconds")
	}
	n.say("exit code %d, %d ms after SIGTERM", d.server.cmd.ProcessState.ExitCode(), time.Since(begun).Milliseconds())
	return demoMust(d.server.err == nil, "the server did not exit with 0: %v", d.server.err)
}

// halfSent uploads half of the installed package, and gives how to go on.
func (d *demo) halfSent(ctx context.Context, n *demoNotes) (finish func() error, err error) {
	pack, err := os.ReadFile(d.pack)
	if err != nil {
		return nil, fileFault(d.pack, err)
	}
	body, feed := io.Pipe()
	var installed sallyport.InstalledPlugin
	answered := make(chan error, 1)
	go func() {
		var err error
		installed, err = d.operator.InstallPlugin(ctx, body, sallyport.InstallRequest{})
		_ = body.CloseWithError(io.ErrClosedPipe)
		answered <- err
	}()
	if _, err := feed.Write(pack[:len(pack)/2]); err != nil {
		_ = feed.Close()
		return nil, fault.Wrap(<-answered, "send half a request")
	}
	n.say("half of the package is uploaded once more, %d of %d bytes", len(pack)/2, len(pack))
	return func() error {
		if d.server.gone() {
			return fault.Internalf("the server went away with a request in flight")
		}
		if _, err := feed.Write(pack[len(pack)/2:]); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			return fault.Wrap(err, "send the other half")
		}
		_ = feed.Close()
		if err := <-answered; err != nil {
			return fault.Wrap(err, "the answer to the request in flight")
		}
		n.say("the other half is sent, and answered all the same: %s %s is %s", installed.Name, installed.Version, installed.State)
		return nil
	}, nil
}

// deaf waits until nobody accepts connections at the server's address.
func (d *demo) deaf(ctx context.Context) error {
	return demoWait(ctx, 5*time.Second, "the end of listening", func() (bool, error) {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", strings.TrimPrefix(d.url, "https://"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil, nil
	})
}
