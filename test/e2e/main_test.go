package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/store/storetest"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// workshop is where the programs of this run are built.
var workshop string

func TestMain(m *testing.M) {
	code := 1
	func() {
		var err error
		if workshop, err = os.MkdirTemp("", "sallyport-e2e"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		defer func() { _ = os.RemoveAll(workshop) }()
		code = m.Run()
		if databaseStarted {
			if p, _ := database(); p != nil {
				if err := p.Stop(); err != nil {
					fmt.Fprintln(os.Stderr, err)
					code = 1
				}
			}
		}
	}()
	os.Exit(code)
}

// programs are built by the first test that needs them.
var programs = sync.OnceValues(func() (Programs, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return Build(ctx, workshop)
})

var databaseStarted bool

// database is started by the first test that needs it.
var database = sync.OnceValues(func() (*storetest.Server, string) {
	p, reason, err := storetest.NewServer()
	if err != nil {
		reason = err.Error()
	}
	return p, reason
})

// need skips loudly, and fails where nothing may be skipped.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s", what)
	}
	t.Skipf("skipped: needs %s", what)
}

// quick skips what takes long when only a quick look is wanted (-short).
func quick(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped: takes long")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected: %v", err)
	}
}

// unlike is an error if one of the statuses is not the wanted one.
func unlike(want int, statuses ...int) error {
	for _, got := range statuses {
		if got != want {
			return fmt.Errorf("statuses %d, want %d", statuses, want)
		}
	}
	return nil
}

// done is for calls of which only the error counts.
func done[T any](_ T, err error) error { return err }

// world is a house with a running server and its operator.
type world struct {
	*Server
	t       testing.TB
	admin   *sallyport.Client
	clients map[*tls.Certificate]*http.Client // for plain requests
}

// found sets a house up.
func found(t testing.TB, o Options) *House {
	t.Helper()
	p, err := programs()
	must(t, err)
	h, err := Found(t.Context(), p, filepath.Join(t.TempDir(), "house"), o)
	must(t, err)
	return h
}

// start runs a server until the test ends.
func start(t testing.TB, h *House) *world {
	t.Helper()
	s, err := h.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	admin, err := s.Client(h.Operator)
	must(t, err)
	t.Cleanup(admin.Close)
	w := &world{Server: s, t: t, admin: admin, clients: map[*tls.Certificate]*http.Client{}}
	t.Cleanup(func() {
		for _, c := range w.clients {
			c.CloseIdleConnections()
		}
	})
	return w
}

// equipped is a fresh house that vends certificates.
func equipped(t testing.TB, o Options) *world {
	t.Helper()
	w := start(t, found(t, o))
	must(t, w.Equip(t.Context()))
	return w
}

// restart stops the server and starts it again.
func (w *world) restart() *world {
	w.t.Helper()
	must(w.t, w.Stop())
	return start(w.t, w.House)
}

// person is somebody who was enrolled.
type person struct {
	sallyport.Enrolment
	client *sallyport.Client
}

// enrol brings a newcomer in.
func (w *world) enrol(kind, role, name string) person {
	w.t.Helper()
	who, err := w.Enrol(w.t.Context(), kind, role, name)
	must(w.t, err)
	return w.meet(person{Enrolment: who})
}

// meet gives somebody a fresh client at this server.
func (w *world) meet(p person) person {
	w.t.Helper()
	var err error
	p.client, err = w.Client(p.Certificate)
	must(w.t, err)
	w.t.Cleanup(p.client.Close)
	return p
}

// vend gets a certificate that lives for a while.
func (w *world) vend(p person, ttl time.Duration) sallyport.Credential {
	w.t.Helper()
	c, err := p.client.Vend(w.t.Context(), SSH(ttl))
	must(w.t, err)
	return c
}

// shown is a request as somebody sends it.
type shown struct {
	method, path, body string
	kind               string // content type; JSON if there is a body
	certificate        *tls.Certificate
	token              string
	header             map[string]string
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   string
}

// send sends one request. Who sends several shares their connection.
func (w *world) send(r shown) reply {
	w.t.Helper()
	got, err := w.try(r)
	if err != nil {
		w.t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	return got
}

func (w *world) try(r shown) (reply, error) {
	client := w.clients[r.certificate]
	if client == nil {
		client = w.HTTP(r.certificate)
		w.clients[r.certificate] = client
	}
	req, err := http.NewRequestWithContext(w.t.Context(), r.method, "https://"+w.Main+r.path, strings.NewReader(r.body))
	if err != nil {
		return reply{}, err
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	return exchange(client, req)
}

func exchange(client *http.Client, req *http.Request) (reply, error) {
	res, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	return reply{res.StatusCode, res.Header, string(body)}, err
}

// refused demands that an error of the SDK is of a kind.
func refused(t testing.TB, what string, err error, kinds ...sallyport.Kind) {
	t.Helper()
	for _, k := range kinds {
		if sallyport.Is(err, k) {
			return
		}
	}
	t.Errorf("%s: got %v, want a refusal of kind %v", what, err, kinds)
}

// queryOne asks for the first record of the ledger.
var queryOne = sallyport.RecordQuery{Limit: 1}

// queryInvite invites an agent that the base policy knows.
var queryInvite = sallyport.InviteRequest{Kind: "agent", Role: "reporter"}
