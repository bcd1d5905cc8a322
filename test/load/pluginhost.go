package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

// packed is a signed plugin package, with what a host needs to run it.
type packed struct {
	binary string
	file   string
	trust  plugin.Trust
	kind   string
}

// The plugins that are measured, by their contract.
var (
	idlePlugin = struct{ pkg, kind string }{"test/load/idle", "load-idle"}
	akmsPlugin = struct{ pkg, kind string }{"test/load/agentkms", "load-token"}
)

// wrap builds, packs and signs a plugin whose executable is padded to a size; 0
// leaves it as it is.
func wrap(ctx context.Context, dir, pkg, kind string, size int64) (packed, error) {
	file, key, publisher, err := packSized(ctx, dir, pkg, size)
	if err != nil {
		return packed{}, err
	}
	public, err := plugin.ParsePublicKey(key)
	if err != nil {
		return packed{}, fmt.Errorf("read publisher's key: %w", err)
	}
	row, err := plugin.NewKey(public, publisher, nil, "load", time.Now())
	if err != nil {
		return packed{}, fmt.Errorf("trust publisher: %w", err)
	}
	return packed{filepath.Join(dir, filepath.Base(pkg)+"-built"), file, plugin.Trust{Keys: []plugin.Key{row}}, kind}, nil
}

// hosted is a plugin host in this process with one installed package.
type hosted struct {
	box *sandbox.Sandbox // as a server has it
	*plugin.Host
	row    plugin.Installed
	trust  plugin.Trust
	kind   string
	events *events
}

// house makes a host and puts the package into its store, and does not run it yet.
func (p packed) house(dir string, scale plugin.Scale) (*hosted, error) {
	at, err := os.MkdirTemp(dir, "host-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	store, err := plugin.OpenStore(filepath.Join(at, "plugins"))
	if err != nil {
		return nil, fmt.Errorf("open plugin store: %w", err)
	}
	f, err := os.Open(p.file)
	if err != nil {
		return nil, fmt.Errorf("open package: %w", err)
	}
	defer func() { _ = f.Close() }()
	entry, err := store.Install(f, p.trust)
	if err != nil {
		return nil, fmt.Errorf("install package: %w", err)
	}
	row, err := plugin.NewInstalled(entry, nil, "load", time.Now())
	if err != nil {
		return nil, fmt.Errorf("install package: %w", err)
	}
	h := &hosted{row: row, trust: p.trust, kind: p.kind, events: &events{seen: map[string][]time.Time{}}}
	if h.box, err = sandbox.New(sandbox.Config{Mode: sandbox.Preferred}); err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	h.Host, err = plugin.New(plugin.Config{
		Sandbox: h.box, Store: store, Log: slog.New(h.events), SteadyAfter: time.Nanosecond, Scale: map[string]plugin.Scale{row.Name: scale},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make plugin host: %w", err), h.box.Close())
	}
	return h, nil
}

// begin puts the package in place; it starts with the first call.
func (h *hosted) begin(ctx context.Context) error {
	if err := h.Sync(ctx, []plugin.Installed{h.row}, h.trust); err != nil {
		return fmt.Errorf("run plugin: %w", err)
	}
	h.Settle(ctx)
	return nil
}

func (h *hosted) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	return errors.Join(h.Close(ctx), h.box.Close())
}

// question is what is asked of a measured plugin.
func (h *hosted) question() grant.Scope {
	return grant.Scope{Kind: h.kind, Params: map[string]any{"places": []any{"north"}}, TTL: 300 * time.Second}
}

// vet is one unary call of agentkms.plugin.v1 through the host.
func (h *hosted) vet() (call, error) {
	p, err := h.Provider(h.kind)
	if err != nil {
		return nil, fmt.Errorf("find plugin: %w", err)
	}
	q := h.question()
	return func(ctx context.Context) error { return p.Vet(ctx, q) }, nil //nolint:wrapcheck // counted by its text
}

// issue makes a credential through the host.
func (h *hosted) issue() (call, error) {
	p, err := h.Provider(h.kind)
	if err != nil {
		return nil, fmt.Errorf("find plugin: %w", err)
	}
	q, limits := h.question(), grant.Bounds{Kind: h.kind, MaxTTL: time.Hour}
	return func(ctx context.Context) error {
		out, err := p.Issue(ctx, q, limits)
		if err == nil && out.Value.Len() == 0 {
			err = errors.New("the answer is no credential")
		}
		return err //nolint:wrapcheck // counted by its text
	}, nil
}

// events is a log that notes when the host said what.
type events struct {
	mu   sync.Mutex
	seen map[string][]time.Time
	last []string // why lives ended, for people
}

// Enabled implements slog.Handler.
func (e *events) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle notes the time of a message.
func (e *events) Handle(_ context.Context, r slog.Record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen[r.Message] = append(e.seen[r.Message], r.Time)
	if r.Message == saysDown {
		why := r.Time.Format(time.StampMicro)
		r.Attrs(func(a slog.Attr) bool { why += " " + a.String(); return true })
		e.last = append(e.last, why)
	}
	return nil
}

// WithAttrs implements slog.Handler; attributes do not count.
func (e *events) WithAttrs([]slog.Attr) slog.Handler { return e }

// WithGroup implements slog.Handler.
func (e *events) WithGroup(string) slog.Handler { return e }

// What the host says of a life.
const (
	saysDown  = "plugin is down"
	saysReady = "plugin is ready"
)

// ends says why the last lives ended.
func (e *events) ends() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.last[max(len(e.last)-3, 0):], "\n")
}

// times are when a message came, so far.
func (e *events) times(message string) []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]time.Time(nil), e.seen[message]...)
}
