// Package conformance holds a plugin to what its host expects: it starts the
// plugin as a server does, by the same code and in the same sandbox, and looks
// at what it does when it is called rightly, wrongly and not any more. For
// Python packages with extensions and CLI plugins it reads the sources by the
// checklists of their guides.
//
// It needs no server and changes nothing outside of a temporary folder. A check
// passes, fails, or is skipped with the reason; each that fails says what to do.
// docs/plugins/conformance.md lists them.
package conformance

import (
	"context"
	"crypto/ed25519"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Result of a check.
type Result string

// The results.
const (
	Pass    Result = "pass"
	Fail    Result = "fail"
	Skipped Result = "skipped"
)

// Check is one expectation and what became of it.
type Check struct {
	ID     string `json:"id"` // stable
	Name   string `json:"name"`
	Result Result `json:"result"`
	Reason string `json:"reason,omitempty"` // what was seen, or why it was skipped
	Do     string `json:"what_to_do,omitempty"`
}

// Report is the outcome of a run. OK says that nothing failed.
type Report struct {
	Plugin  string  `json:"plugin"`
	Version string  `json:"version"`
	Digest  string  `json:"digest"`
	Sandbox string  `json:"sandbox"`
	OK      bool    `json:"ok"`
	Passed  int     `json:"passed"`
	Failed  int     `json:"failed"`
	Skipped int     `json:"skipped"`
	Checks  []Check `json:"checks"`
}

// Config says what to look at. Package is required.
type Config struct {
	// Package is the package file. It is not changed.
	Package string
	// Key is the key by which its signature is judged. Without one a copy is
	// signed with a key of this run, as only the check of the signature needs it.
	Key ed25519.PublicKey
	// Again builds the package anew from its source, into a file; nil if there is
	// no source.
	Again func(file string) error
	// Requests are tried; without any they are made up from the manifest's forms.
	Requests Requests
	// Sandbox confines the plugin; nil runs it as this user.
	Sandbox plugin.Sandbox
	// Help runs COMMAND --help of a package that the key has signed, as a command
	// line does; nil skips what needs that.
	Help func(ctx context.Context, file string, key plugin.Key, command string) error
	// Calls bounds one call; default 5 s, as at a server.
	Calls time.Duration
}

// run is one run: what is known of the package, and the checks so far.
type run struct {
	Config
	dir    string // temporary
	short  string // likewise, for sockets, whose names are short by nature
	m      manifest.Manifest
	digest string
	log    *journal
	report Report
}

// Run makes all checks. Its error says that they could not be made at all: there
// is no such package, or it is malformed (Invalid), or the machine is at its end
// (Unavailable).
func Run(ctx context.Context, c Config) (Report, error) {
	if c.Calls <= 0 {
		c.Calls = 5 * time.Second
	}
	seen, err := plugin.Inspect(c.Package)
	if err != nil {
		return Report{}, err
	}
	dir, err := os.MkdirTemp("", "sallyport-conformance-")
	if err != nil {
		return Report{}, fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	short, err := shortFolder()
	if err != nil {
		return Report{}, fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	defer func() { _ = os.RemoveAll(short) }()
	r := &run{
		Config: c, dir: dir, short: short, m: seen.Manifest, digest: seen.Digest, log: &journal{},
		report: Report{Plugin: seen.Manifest.Name, Version: seen.Manifest.Version, Digest: seen.Digest, Sandbox: "off"},
	}
	r.packageChecks()
	if err := r.processChecks(ctx); err != nil {
		return Report{}, err
	}
	if err := r.checklists(ctx); err != nil {
		return Report{}, err
	}
	r.report.OK = r.report.Failed == 0
	return r.report, nil
}

// add notes the outcome of a check.
func (r *run) add(e expectation, result Result, reason string) {
	c := Check{ID: e.id, Name: e.name, Result: result, Reason: reason}
	switch result {
	case Pass:
		r.report.Passed++
	case Fail:
		r.report.Failed++
		c.Do = e.do
	case Skipped:
		r.report.Skipped++
	}
	r.report.Checks = append(r.report.Checks, c)
}

// expectation is what a check is about, and what an author does when it fails.
type expectation struct{ id, name, do string }

// judge notes a pass for an empty problem.
func (r *run) judge(e expectation, problem, seen string) {
	if problem != "" {
		r.add(e, Fail, problem)
		return
	}
	r.add(e, Pass, seen)
}

// signedCopy gives the package with a signature of this run's own key, and that
// key.
func (r *run) signedCopy() (string, ed25519.PublicKey, error) {
	file := filepath.Join(r.dir, "package-"+id.New())
	if err := copyFile(r.Package, file); err != nil {
		return "", nil, err
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", nil, fault.Wrap(err, "make key")
	}
	if _, err := plugin.Sign(file, private); err != nil {
		return "", nil, err
	}
	return file, public, nil
}

// shortFolder makes a folder for sockets: among the temporary files, or, where
// their folder has a long name, in /tmp (unix(7)).
func shortFolder() (string, error) {
	parent := os.TempDir()
	if len(parent) > 24 && runtime.GOOS != "windows" {
		parent = "/tmp"
	}
	return os.MkdirTemp(parent, "sp-")
}

func copyFile(from, to string) error {
	in, err := os.Open(filepath.Clean(from))
	if err != nil {
		return fault.Wrap(err, "open package")
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // in our own folder
	if err != nil {
		return fault.Wrap(err, "create copy")
	}
	_, err = io.Copy(out, in)
	if closed := out.Close(); err == nil {
		err = closed
	}
	return fault.Wrap(err, "copy package")
}
