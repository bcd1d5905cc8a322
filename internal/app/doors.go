package app

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/api/extension"
	"github.com/sallyport-project/sallyport/internal/api/rest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// restDoor makes the REST door, once: all listeners that have it share it.
func (a *App) restDoor() (http.Handler, error) {
	return rest.New(rest.Config{
		Gate: a.gate, Log: a.log, Metrics: a.metrics, Now: time.Now, Version: a.version,
		Root:      func() []byte { return []byte(a.keys().authority.Bundle()) },
		JoinToken: a.joinToken, UploadToken: a.uploadToken, ReadUploadToken: readUploadToken,
		SSHAuthority: func(context.Context) ([]byte, error) {
			return []byte(strings.Join(a.keys().sshTrust, "\n") + "\n"), nil
		},
		SSHRevocations: func(ctx context.Context) ([]byte, error) {
			return sshRevocations{store: a.store, lines: a.keys().sshLines, now: time.Now}.List(ctx)
		},
		SignedHere: func(kind string) bool { return kind == sshKind },
		LedgerKeys: func(context.Context) (rest.LedgerKeys, error) {
			return rest.LedgerKeys{Keys: a.keys().auditors.Strings(), Origin: a.keys().origin()}, nil
		},
		Status: a.status,
	})
}

// doors is the handler of a listener: the named doors, or all of them.
func (a *App) doors(names []string) http.Handler {
	open := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	mux := http.NewServeMux()
	if open("kbs") {
		mux.Handle("/kbs/v0/", a.kbs)
		mux.HandleFunc("GET /.well-known/jwks.json", a.keySet)
		mux.HandleFunc("GET "+contextKeysPath, a.contextKeySet)
	}
	if open("rest") {
		mux.Handle("/", a.rest)
		mux.Handle(extension.Base, a.ext)
	} else {
		// A listener of the key broker alone has the root that its users know.
		mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
		mux.Handle("GET /metrics", a.metrics.Handler())
	}
	return mux
}

// announced is where others find the main listener: what it is bound to, or the
// first of its names where that is every address of this machine.
func (a *App) announced() string {
	host, port, err := net.SplitHostPort(a.bound[mainListener])
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return a.bound[mainListener]
	}
	return net.JoinHostPort(a.cfg.Listen.Main.names()[0], port)
}

// joinToken writes an invitation's secret down with what a newcomer must know
// to find and recognise this server.
func (a *App) joinToken(value []byte, role, address string, expires time.Time) (string, error) {
	text, err := ca.JoinToken{
		Address: cmp.Or(address, a.announced()), KeyHash: a.keys().authority.KeyHash(), Secret: secret.New(value), Role: role,
		Expires: expires.UTC().Truncate(time.Second),
	}.Text()
	if err != nil {
		return "", err
	}
	return string(text.Reveal()), nil
}

// uploadToken does the same for the secret of an upload token.
func (a *App) uploadToken(value []byte, id, address string, expires time.Time) (string, error) {
	text, err := ca.UploadToken{
		Address: cmp.Or(address, a.announced()), KeyHash: a.keys().authority.KeyHash(), Secret: secret.New(value), ID: id,
		Expires: expires.UTC().Truncate(time.Second),
	}.Text()
	if err != nil {
		return "", err
	}
	return string(text.Reveal()), nil
}

// readUploadToken takes the text of an upload token apart.
func readUploadToken(text string) (id string, value secret.Bytes, ok bool) {
	if !ca.IsUploadToken(text) {
		return "", secret.Bytes{}, false
	}
	t, err := ca.ParseUploadToken(secret.FromString(text))
	if err != nil {
		return "", secret.Bytes{}, true
	}
	return t.ID, t.Secret, true
}

// status is what an operator sees of this server.
func (a *App) status(ctx context.Context) (rest.Status, error) {
	out := rest.Status{Version: a.version, Storage: a.cfg.Storage.Driver, Weak: a.weak, BrokenRows: a.store.Broken()}
	endorsements, values := a.gate.ReferenceMaterial()
	out.Reference = reference.Warnings(endorsements, values, time.Now())
	head, err := a.store.Head(ctx)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return out, err
	}
	out.Ledger.Size = head.Size
	if out.PolicyGeneration, err = a.store.Generation(ctx, "policy"); err != nil {
		return out, err
	}
	out.Plugins = rest.PluginStatuses(a.host.Status())
	unready, refused, ledger := a.health(ctx)
	out.Ready = unready == nil && len(refused) == 0
	_, full := a.store.Refusing()
	out.Writable = full == nil
	for _, err := range append(append([]error{unready}, refused...), ledger) {
		if err != nil && !slices.Contains(out.Trouble, fault.Public(err)) {
			out.Trouble = append(out.Trouble, fault.Public(err))
		}
	}
	return out, nil
}

// operations is the handler of the operations listener: no authentication, so
// loopback only, and nothing on it that is worth protecting.
func (a *App) operations() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		unready, refused, ledger := a.health(r.Context())
		if unready != nil {
			http.Error(w, fault.Public(unready), http.StatusServiceUnavailable)
			return
		}
		text := "ready"
		if but := cmp.Or(append(refused, ledger)...); but != nil {
			text += ", but " + fault.Public(but)
		}
		_, _ = w.Write([]byte(text + "\n"))
	})
	mux.Handle("GET /metrics", a.metrics.Handler())
	return mux
}

// health tells what keeps this server from serving, what it refuses although it
// serves, and why its ledger stands still; nil for nothing. A disk that only takes
// what takes away is of the second kind: who reports a leak must still reach the
// server, so that a balancer must not leave it out.
func (a *App) health(ctx context.Context) (unready error, refused []error, ledger error) {
	everything, full := a.store.Refusing()
	switch unready = a.healthy(ctx); {
	case full == nil:
		ledger = a.store.Behind()
	case !everything:
		refused = append(refused, full)
	case unready == nil:
		unready = full
	}
	for gate, names := range a.cfg.Plugins.gates() {
		for _, name := range names {
			if err := a.host.Gate(name, gate); err != nil {
				refused = append(refused, fault.Unavailablef("%s, and plugins.gates demands that it is asked: nothing passes %s until it is installed, or taken out of the configuration",
					fault.Public(err), gate).Because(err))
			}
		}
	}
	return unready, refused, ledger
}

// healthy asks every part that a safe answer needs: the clock, the store, and
// the policies.
func (a *App) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := a.store.CheckClock(ctx); err != nil {
		return err
	}
	if _, err := a.store.Generation(ctx, "policy"); err != nil {
		return err
	}
	if err := a.keysErr.Load(); err != nil && *err != nil {
		return fault.Unavailablef("the keys of the store have changed and cannot be opened: look at the log").Because(*err)
	}
	if err := a.listed(); err != nil {
		return err
	}
	return a.gate.Reload(ctx)
}
