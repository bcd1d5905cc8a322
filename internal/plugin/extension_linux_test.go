package plugin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/event"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func routed(name string) manifest.Manifest {
	m := testManifest(name)
	m.Roles, m.Kinds = []string{manifest.RoleExtension}, nil
	m.Extension = &manifest.Extension{
		Prefix: name, Routes: []manifest.Route{{Path: "/{rest...}", Methods: []string{"GET", "POST"}}},
		Hooks: []string{"*"}, Gates: []string{"release"},
	}
	return m
}

// gets calls a route and reads all of its answer.
func (r *rig) gets(t *testing.T, path string, body io.Reader) (*RouteAnswer, string, error) {
	t.Helper()
	q := RouteRequest{
		Method: "POST", Path: path, Query: "q=1", Headers: []Header{{"x-a", "1"}, {"x-a", "2"}},
		Principal: Principal{ID: "id", Kind: "agent", Name: "build-7", Role: "deployer"},
	}
	if body != nil {
		q.Body, q.Length = io.NopCloser(body), -1
	}
	a, err := r.Route(t.Context(), "extone", q)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = a.Body.Close() }()
	all, err := io.ReadAll(a.Body)
	return a, string(all), err
}

func TestRoute_Bodies(t *testing.T) {
	r := newRig(t, nil, routed("extone"))
	a, text, err := r.gets(t, "/echo/a%2Fb", strings.NewReader("hello"))
	if err != nil || a.Status != 202 || text != "a/b|q=1|build-7|deployer|5|<nil>|[1 2]" || a.Length != len(text) {
		t.Fatalf("%+v %q %v", a, text, err)
	}
	// Bodies beyond every buffer, in each direction and in both.
	if _, text, err = r.gets(t, "/echo/", io.LimitReader(zeros{}, 3<<20)); err != nil || !strings.Contains(text, "|3145728|<nil>") {
		t.Fatalf("%q %v", text, err)
	}
	if _, text, err = r.gets(t, "/zeros/5000000", nil); err != nil || len(text) != 5_000_000 {
		t.Fatalf("%d %v", len(text), err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			want := bytes.Repeat([]byte("0123456789"), 100_000)
			if _, got, err := r.gets(t, "/pair", bytes.NewReader(want)); err != nil || got != string(want) {
				t.Errorf("%d bytes of %d: %v", len(got), len(want), err)
			}
		})
	}
	wg.Wait()
	if _, _, err := r.gets(t, "/echo/", io.MultiReader(io.LimitReader(zeros{}, 1<<20), broken{})); !fault.Is(err, fault.Invalid) {
		t.Errorf("a body that breaks: %v", err)
	}
	if _, text, err := r.gets(t, "/drip", nil); err != nil || text != "drop\ndrop\ndrop\n" {
		t.Errorf("%q %v", text, err)
	}
}

type (
	zeros  struct{}
	broken struct{}
)

func (zeros) Read(p []byte) (int, error)  { clear(p); return len(p), nil }
func (broken) Read(p []byte) (int, error) { return 0, errors.New("gone") }

func TestRoute_Failures(t *testing.T) {
	r := newRig(t, func(c *Config) { c.RouteTimeout = time.Second }, routed("extone"), routed("exttwo"))
	if _, _, err := r.gets(t, "/counts", nil); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"/panic": ErrBroken, "/crash": ErrBroken, "/hang": ErrLate, "/status/1000": ErrBroken} {
		_, _, err := r.gets(t, path, nil)
		if !errors.Is(err, want) || !fault.Is(err, fault.Unavailable) || strings.Contains(fault.Public(err), "secret") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, text, err := r.gets(t, "/half", nil); err == nil {
		t.Errorf("half an answer looks whole: %q", text)
	}
	for late := time.After(10 * time.Second); !strings.Contains(r.log.String(), "secret detail"); { // it comes by another way than the answer
		select {
		case <-late:
			t.Fatal("the log does not say why")
		case <-time.After(5 * time.Millisecond):
		}
	}
	_, err := r.Route(t.Context(), "nobody", RouteRequest{Method: "GET", Path: "/"})
	if !Down(err) || !fault.Is(err, fault.Unavailable) {
		t.Errorf("a plugin that is not there: %v", err)
	}
	// The other one has noticed nothing.
	if a, err := r.Route(t.Context(), "exttwo", RouteRequest{Method: "GET", Path: "/status/204"}); err != nil || a.Status != 204 {
		t.Errorf("the other extension: %v", err)
	} else {
		_ = a.Body.Close()
	}
}

// The first byte of a streamed answer comes before the last, and who goes away ends
// the plugin's work.
func TestRoute_StreamsAndCancels(t *testing.T) {
	r := newRig(t, nil, routed("extone"))
	ctx, cancel := context.WithCancel(t.Context())
	a, err := r.Route(ctx, "extone", RouteRequest{Method: "GET", Path: "/drip/wait"})
	if err != nil || a.Length != -1 {
		t.Fatalf("%+v %v", a, err)
	}
	first := make([]byte, 5)
	if _, err := io.ReadFull(a.Body, first); err != nil || string(first) != "drop\n" {
		t.Fatalf("%q %v", first, err)
	}
	cancel()
	if _, err := a.Body.Read(first); err == nil {
		t.Error("a call that was given up goes on")
	}
	_ = a.Body.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, text, err := r.gets(t, "/counts", nil); err == nil && text == "0 1" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the plugin was not told: %q %v", text, err)
		}
	}
	// A reader that takes nothing makes the plugin wait, not us remember.
	slow, err := r.Route(t.Context(), "extone", RouteRequest{Method: "GET", Path: "/zeros/100000000"})
	if err != nil {
		t.Fatal(err)
	}
	if _, text, err := r.gets(t, "/counts", nil); err != nil || text != "0 1" {
		t.Errorf("beside a slow one: %q %v", text, err)
	}
	_ = slow.Body.Close()
}

func TestHost_Hooks(t *testing.T) {
	r := newRig(t, nil, routed("extone"))
	e := func(do string) event.Event {
		return event.Event{ID: "1", Type: "grant.issued", At: time.Now(), Facts: map[string]string{"do": do}}
	}
	if err := r.Hook(t.Context(), "extone", e("")); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for do, ctx := range map[string]context.Context{"fail": t.Context(), "hang": short, "crash": t.Context()} {
		err := r.Hook(ctx, "extone", e(do))
		if err == nil || Down(err) || strings.Contains(fault.Public(err), "secret") {
			t.Errorf("%s: %v", do, err)
		}
	}
	if err := r.Hook(t.Context(), "nobody", e("")); !Down(err) {
		t.Errorf("nobody: %v", err)
	}
}

func TestHost_Gates(t *testing.T) {
	r := newRig(t, nil, routed("extone"))
	ask := func(gate, do string) (Verdict, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return r.Ask(ctx, "extone", gate, []byte(`{"do":"`+do+`"}`))
	}
	if v, err := ask("release", "allow"); err != nil || !v.Allow {
		t.Fatalf("%+v %v", v, err)
	}
	if v, err := ask("release", "deny"); err != nil || v.Allow || v.Reason != "because" {
		t.Errorf("%+v %v", v, err)
	}
	for _, c := range [][2]string{{"release", "fail"}, {"release", "hang"}, {"admit", "allow"}} {
		if v, err := ask(c[0], c[1]); v.Allow || err == nil && c[1] != "hang" { // its own answer to being cancelled may come first
			t.Errorf("%v: %+v %v", c, v, err)
		}
	}
}

// tables is a database that fails as it is told.
type tables struct {
	Database
	err error
}

func (d tables) Migrate(context.Context, manifest.Manifest) error { return d.err }

func TestHost_RefusesFailedMigrations(t *testing.T) {
	m := routed("extone")
	m.Extension.Migrations = []manifest.Migration{{Name: "0001_x", SQL: "CREATE TABLE extension_x (a TEXT)"}}
	db := &tables{err: fault.Invalidf("migration 0001_x: the statement failed")}
	r := newRig(t, func(c *Config) { c.Databases = db }, m, routed("exttwo"))
	if _, _, err := r.gets(t, "/counts", nil); !Down(err) {
		t.Errorf("an extension without its tables is called: %v", err)
	}
	s := r.Status()[0]
	if s.State != Refused || s.Reason != ReasonMigration || !strings.Contains(s.Detail, "0001_x") {
		t.Errorf("%+v", s)
	}
	if a, err := r.Route(t.Context(), "exttwo", RouteRequest{Method: "GET", Path: "/status/204"}); err != nil || a.Status != 204 {
		t.Errorf("the other extension: %v", err)
	}
}

// Each part of a request's body is with the plugin, and its answer with the caller,
// before the next part exists; and who closes the answer waits for no more of them.
func TestRoute_HoldsNothingBack(t *testing.T) {
	r := newRig(t, nil, routed("extone"))
	body, parts := io.Pipe()
	say := func(text string) { _, _ = io.WriteString(parts, text) } // it returns when it was read
	go say("one\n")
	a, err := r.Route(t.Context(), "extone", RouteRequest{Method: "POST", Path: "/talk", Body: body, Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	answer := bufio.NewReader(a.Body)
	if line, err := answer.ReadString('\n'); err != nil || line != "one\n" {
		t.Fatalf("%q %v", line, err)
	}
	go say("two\n")
	if line, err := answer.ReadString('\n'); err != nil || line != "two\n" {
		t.Fatalf("%q %v", line, err)
	}
	if err := a.Body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(parts, "three\n"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the body is read after the call: %v", err)
	}
}

// Who sends a short body slowly does not take one of the plugin's turns meanwhile.
func TestRoute_GathersShortBodies(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Scale = map[string]Scale{"extone": {Concurrency: 1}} }, routed("extone"))
	body, parts := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		a, err := r.Route(t.Context(), "extone", RouteRequest{Method: "POST", Path: "/echo/", Body: body, Length: 10})
		if err == nil {
			_ = a.Body.Close()
		}
		ended <- err
	}()
	if _, err := io.WriteString(parts, "half "); err != nil { // it was read: the call has begun
		t.Fatal(err)
	}
	if _, _, err := r.gets(t, "/counts", nil); err != nil {
		t.Errorf("beside a body that comes slowly: %v", err)
	}
	_, _ = io.WriteString(parts, "other")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
