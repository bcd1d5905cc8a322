package plugin

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Probe is one process of a package that is looked at closely, by package
// conformance. It was started as every other process of the host is: verified,
// sealed, confined and asked who it is. It serves no calls of the host.
type Probe struct{ i *instance }

// Probe starts a process of a package in the store that trust covers. Faults are
// those of a start; see [ReasonOf].
func (h *Host) Probe(ctx context.Context, digest string, trust Trust) (*Probe, error) {
	e, err := h.store.judge(digest, trust)
	if err != nil {
		return nil, err
	}
	i, err := h.launch(ctx, e)
	if err != nil {
		return nil, err
	}
	return &Probe{i}, nil
}

// ProbeStranger starts a process of a package without the cookie of the
// handshake, as somebody would who is no host. It is empty if the process ended by
// itself without serving, as it must, and else says what it did.
func (h *Host) ProbeStranger(ctx context.Context, digest string, trust Trust) (string, error) {
	e, err := h.store.judge(digest, trust)
	if err != nil {
		return "", err
	}
	var p *process
	i, err := h.launchAs(ctx, e, beginning{
		handshake: stranger(e.Manifest), made: func(made *process) { p = made },
		introduce: func(ctx context.Context, i *instance) error { return i.introduce(ctx, h.cfg.Settings) },
	})
	switch {
	case err == nil:
		i.stop(false)
		return "it serves whoever starts it", nil
	case p == nil || p.pid() == 0:
		return "", err
	}
	<-p.exited
	if code, signal := p.outcome(); signal != 0 {
		return "it did not end by itself", nil
	} else if code == 0 {
		return "it ends with exit code 0, as if all were well", nil
	}
	return "", nil
}

// outcome is how an ended process ended: its exit code, or the signal that ended
// it.
func (p *process) outcome() (code int, signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.waitError.(*exec.ExitError) //nolint:errorlint // exec's own, never wrapped
	if !ok {
		return 0, 0
	}
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return -1, s.Signal()
	}
	return e.ExitCode(), 0
}

// Conn is the connection over which the host would call. Its calls know no
// limit of time but their context's.
func (p *Probe) Conn() grpc.ClientConnInterface { return p.i.conn }

// Dial opens a further connection to the address that the plugin announced,
// below gRPC and TLS.
func (p *Probe) Dial(ctx context.Context) (net.Conn, error) { return p.i.proc.dial(ctx, "") }

// Address is what the plugin announced.
func (p *Probe) Address() net.Addr {
	p.i.proc.mu.Lock()
	defer p.i.proc.mu.Unlock()
	return p.i.proc.address
}

// Sandbox says what confines it and what does not; "off" for nothing.
func (p *Probe) Sandbox() string {
	if p.i.proc.box == nil {
		return "off"
	}
	return p.i.proc.box.Report()
}

// PID is the process id, as this machine sees it.
func (p *Probe) PID() int { return p.i.proc.pid() }

// Check asks for its health as the host does; see docs/plugins.
func (p *Probe) Check(ctx context.Context) error { return p.i.check(ctx) }

// Gone is closed when the process has ended.
func (p *Probe) Gone() <-chan struct{} { return p.i.proc.exited }

// Stop ends the process as a host does that drains it: it asks, and kills what
// has not ended after two seconds.
func (p *Probe) Stop() Ending {
	begun := time.Now()
	p.i.stop(true)
	_, signal := p.i.proc.outcome()
	return Ending{Took: time.Since(begun), ByItself: signal != syscall.SIGKILL, Stdout: p.i.proc.extra}
}

// Ending is what is known of a process that has ended.
type Ending struct {
	Took     time.Duration // from being asked
	ByItself bool          // it was not killed
	Stdout   int64         // bytes on standard output after the line of the handshake
}

// Contents reads the files of a package that want names, whole, and trusts
// nothing of it. A file of more than limit bytes is Invalid.
func Contents(file string, limit int64, want func(manifest.File) bool) (map[string][]byte, error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return nil, missingFile(err, file)
	}
	defer func() { _ = f.Close() }()
	a := &archiveReader{r: f}
	h, err := a.readHead()
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(h.manifestBytes)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	return out, a.readFiles(m, func(f manifest.File) (io.Writer, func(bool) error, error) {
		if !want(f) {
			return discardFile(f)
		}
		if f.Size > limit {
			return nil, nil, fault.Invalidf("%s has %d bytes, and only files of at most %d are looked at", f.Path, f.Size, limit)
		}
		b := &bytes.Buffer{}
		return b, func(bool) error { out[f.Path] = b.Bytes(); return nil }, nil
	})
}
