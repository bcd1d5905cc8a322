package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/event"
	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// callRules lets operators use every extension.
const callRules = `package sallyport

call := {"allow": true} if input.subject.role == "administrator"
`

// fixture is the plugin of the host's own tests, built by the first test that needs it.
var fixture = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	binary := filepath.Join(workshop, "fixture")
	return binary, compile(ctx, binary, "internal/plugin/testdata/fixture")
})

// extend installs the plugin of the host's own tests as extensions with these names.
// Their routes do as their paths say, their hooks and gates as route /mode/ says.
func (w *world) extend(names ...string) {
	w.t.Helper()
	ctx, dir := w.t.Context(), w.t.TempDir()
	binary, err := fixture()
	must(w.t, err)
	for _, name := range names {
		file := filepath.Join(dir, name+".spk")
		_, err := plugin.Build(plugin.Spec{Manifest: manifest.Manifest{
			Schema: manifest.Schema, Name: name, Version: "1.0.0", Publisher: name, Summary: "Does as it is told", Contract: manifest.ContractSallyport,
			HostAPI: manifest.Range{Min: 1, Max: 1}, Roles: []string{manifest.RoleExtension}, Effects: manifest.EffectsNone,
			Revocation: manifest.Revocation{Needs: manifest.NeedsNone}, Tier: manifest.TierFree, Audience: manifest.AudienceAny,
			Capabilities: manifest.Capabilities{Services: &manifest.Services{KV: true}},
			Extension: &manifest.Extension{
				Prefix: name, Routes: []manifest.Route{{Path: "/{rest...}", Methods: []string{"GET", "POST"}}},
				Hooks: []string{"subject.*"}, Gates: []string{"release"},
			},
		}, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: binary}}}, file)
		must(w.t, err)
		key, err := sign(file, filepath.Join(dir, name))
		must(w.t, err)
		must(w.t, done(w.admin.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: name, PublicKey: key})))
		f, err := os.Open(file)
		must(w.t, err)
		must(w.t, done(w.admin.InstallPlugin(ctx, f, sallyport.InstallRequest{})))
		_ = f.Close() // the client has
	}
	must(w.t, done(w.admin.SetPolicy(ctx, "calls", "sallyport", callRules)))
}

// calls a route as the operator.
func (w *world) calls(method, path string) reply {
	w.t.Helper()
	return w.send(shown{method: method, path: "/api/v1/" + path, certificate: &w.House.Operator})
}

// mode says what an extension does from now on.
func (w *world) mode(name, mode string) {
	w.t.Helper()
	if got := w.calls("POST", name+"/mode/"+mode); got.status != http.StatusOK {
		w.t.Fatalf("set mode of %s: %d %s", name, got.status, got.body)
	}
}

// TestExtensions_HarmNobody has extensions hang, panic, crash, flood and lie, each in
// its routes, hooks and gates: their callers get an answer that says so, and everybody
// else is served.
func TestExtensions_HarmNobody(t *testing.T) {
	w := start(t, found(t, Options{Config: map[string]any{"plugins": map[string]any{"gates": map[string]any{"extone": []string{"release"}}}}}))
	must(t, w.Equip(t.Context()))
	w.extend("extone", "exttwo")
	agent := w.enrol("agent", "deployer", "build-7")
	w.mode("exttwo", "hang") // its hooks, from here on
	w.mode("extone", "keep")
	client := w.HTTP(&w.House.Operator)
	var late sync.WaitGroup
	late.Go(func() { // takes the ten seconds that an answer may take
		got, err := w.plain(client, "GET", "exttwo/hang", nil)
		if err != nil || got.status != http.StatusGatewayTimeout {
			t.Errorf("a route that hangs: %d %s %v", got.status, got.body, err)
		}
	})
	t.Run("routes", func(t *testing.T) { w.badRoutes(t, client) })
	t.Run("streams", func(t *testing.T) {
		for _, protocol := range []string{"http/1.1", "h2"} {
			w.streams(t, protocol)
		}
	})
	t.Run("hooks", func(t *testing.T) {
		must(t, done(w.admin.ChangeSubject(t.Context(), agent.Subject.ID, sallyport.SubjectChange{Act: "lock"})))
		must(t, done(w.admin.ChangeSubject(t.Context(), agent.Subject.ID, sallyport.SubjectChange{Act: "unlock"})))
		must(t, Eventually(10*time.Second, func() error { return w.hasHeard("extone") })) // while exttwo hangs
		if kept := w.calls("GET", "exttwo/kept").body; kept != "" {
			t.Errorf("a hook that hangs has kept %q", kept)
		}
		w.mode("exttwo", "keep")
	})
	t.Run("gates", func(t *testing.T) { w.badGates(t, agent) })
	must(t, Eventually(30*time.Second, func() error { return w.hasHeard("exttwo") })) // what was not taken comes again
	late.Wait()
	if !strings.Contains(w.Log(), "secret detail") {
		t.Error("the log does not say why calls failed")
	}
}

// badRoutes calls what goes wrong.
func (w *world) badRoutes(t *testing.T, client *http.Client) {
	for _, r := range []struct {
		path   string
		status int
	}{
		{"extone/status/204", 204}, {"extone/panic", 502}, {"extone/status/1000", 502}, {"extone/status/101", 200}, {"extone/heads", 502}, {"exttwo/status/204", 204},
	} {
		got, err := w.plain(client, "GET", r.path, nil)
		if err != nil || got.status != r.status || strings.Contains(got.body, "secret") {
			t.Errorf("%s: %d %s %v, want %d", r.path, got.status, got.body, err, r.status)
		}
	}
	if got, err := w.plain(client, "GET", "extone/half", nil); err == nil {
		t.Errorf("half an answer looks whole: %+v", got)
	}
	if got, err := w.plain(client, "POST", "extone/echo/", io.LimitReader(zeros{}, 16<<20+1)); err != nil || got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body without an end: %d %s %v", got.status, got.body, err)
	}
	// One that floods who reads nothing is made to wait, and hears that he has gone.
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	flood, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+w.Main+"/api/v1/extone/zeros/1000000000", nil)
	must(t, err)
	res, err := client.Do(flood)
	must(t, err)
	if got := w.calls("GET", "extone/status/204"); got.status != 204 {
		t.Errorf("beside a flood: %d %s", got.status, got.body)
	}
	leave()
	_ = res.Body.Close()
	must(t, Eventually(10*time.Second, func() error {
		if got := w.calls("GET", "extone/counts"); !strings.HasSuffix(got.body, " 1") {
			return fmt.Errorf("the plugin goes on for nobody: %s", got.body)
		}
		return nil
	}))
	if got, err := w.plain(client, "GET", "extone/crash", nil); err != nil || got.status != http.StatusBadGateway {
		t.Errorf("crash: %d %s %v", got.status, got.body, err)
	}
	must(t, Eventually(10*time.Second, func() error {
		if got := w.calls("GET", "extone/counts"); got.body != "0 0" { // another process
			return fmt.Errorf("after a crash: %d %s", got.status, got.body)
		}
		return nil
	}))
	w.mode("extone", "keep")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// plain sends one request with a client, which subtests may do at the same time.
func (w *world) plain(client *http.Client, method, path string, body io.Reader) (reply, error) {
	req, err := http.NewRequestWithContext(w.t.Context(), method, "https://"+w.Main+"/api/v1/"+path, body)
	if err != nil {
		return reply{}, err
	}
	return exchange(client, req)
}

// streams demands that no part of a body waits for the next one: this side makes each
// part when it has seen the plugin's answer to the last.
func (w *world) streams(t *testing.T, protocol string) {
	client := w.HTTP(&w.House.Operator)
	defer client.CloseIdleConnections()
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatal("not a transport")
	}
	transport.TLSClientConfig.NextProtos = []string{protocol}
	transport.ForceAttemptHTTP2 = protocol == "h2"
	if protocol != "h2" {
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	body, parts := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+w.Main+"/api/v1/extone/talk", body)
	must(t, err)
	go func() { _, _ = io.WriteString(parts, "0\n") }()
	res, err := client.Do(req)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	answer := bufio.NewReader(res.Body)
	for n := range 20 {
		if line, err := answer.ReadString('\n'); err != nil || line != strconv.Itoa(n)+"\n" {
			t.Fatalf("%s: part %d came back as %q, %v", protocol, n, line, err)
		}
		_, err := fmt.Fprintf(parts, "%d\n", n+1)
		must(t, err)
	}
	must(t, parts.Close())
	if rest, err := io.ReadAll(answer); err != nil || string(rest) != "20\n" {
		t.Errorf("%s: the end is %q, %v", protocol, rest, err)
	}
}

// badGates asks for credentials while the gate goes wrong.
func (w *world) badGates(t *testing.T, agent person) {
	session, err := agent.client.OpenSession(t.Context(), nil)
	must(t, err)
	client := w.HTTP(&agent.Certificate)
	for _, g := range []struct {
		mode string
		want int
	}{{"deny", 403}, {"panic", 503}, {"fail", 503}, {"hang", 503}, {"allow", 201}} {
		w.mode("extone", g.mode)
		if got, err := w.Vend(client, session.Token.Reveal(), ""); err != nil || got.Status != g.want || strings.Contains(got.Body, "secret detail") {
			t.Errorf("a gate in mode %s: %d %s %v, want %d", g.mode, got.Status, got.Body, err, g.want)
		}
	}
	grants, err := w.Grants(t.Context())
	must(t, err)
	if len(grants) != 1 {
		t.Errorf("%d grants, of one allowed", len(grants))
	}
}

// kept are the positions and ids of the events that an extension has kept, as it heard
// them.
func (w *world) kept(name string) (positions []uint64, ids []string) {
	w.t.Helper()
	for line := range strings.Lines(w.calls("GET", name+"/kept").body) {
		at, rest, _ := strings.Cut(line, " ")
		n, err := strconv.ParseUint(at, 10, 64)
		must(w.t, err)
		id, _, _ := strings.Cut(rest, " ")
		positions, ids = append(positions, n), append(ids, id)
	}
	return positions, ids
}

// hasHeard demands that an extension has kept every event since its first, and those in
// order.
func (w *world) hasHeard(name string) error {
	positions, ids := w.kept(name)
	if len(ids) == 0 {
		return errors.New("no event was heard")
	}
	records, err := w.Records(w.t.Context(), "")
	if err != nil {
		return err
	}
	begun := false
	for _, r := range records {
		if begun = begun || r.ID == ids[0]; begun && r.Outcome != audit.Denied && event.Matches([]string{"subject.*"}, r.Type) && !slices.Contains(ids, r.ID) {
			return fmt.Errorf("%s has not heard of %s %s", name, r.Type, r.ID)
		}
	}
	last := uint64(0)
	for n, at := range positions {
		if slices.Contains(ids[:n], ids[n]) {
			continue // told again
		}
		if n > 0 && at <= last {
			return fmt.Errorf("%s has heard of %d after %d", name, at, last)
		}
		last = at
	}
	return nil
}

// TestHooks_SurviveKill kills the server while subjects change and an extension is told:
// whatever is in the ledger is told at least once, in the order of the ledger.
func TestHooks_SurviveKill(t *testing.T) {
	w := start(t, found(t, Options{}))
	w.extend("extkeep")
	must(t, done(w.admin.SetPolicy(t.Context(), "ssh", "sallyport", deployersEnrol)))
	agents := []person{w.enrol("agent", "deployer", "one"), w.enrol("agent", "deployer", "two")}
	for range 3 {
		var changes sync.WaitGroup
		for _, a := range agents {
			changes.Go(func() { // until the server is gone
				for n := range 1000 {
					_, err := w.admin.ChangeSubject(t.Context(), a.Subject.ID, sallyport.SubjectChange{Act: []string{"lock", "unlock"}[n%2]})
					if err != nil && !sallyport.Is(err, sallyport.Conflict) {
						return
					}
				}
			})
		}
		_, before := w.kept("extkeep")
		must(t, Eventually(20*time.Second, func() error {
			if _, now := w.kept("extkeep"); len(now) < len(before)+5 {
				return fmt.Errorf("%d events were heard, %d before", len(now), len(before))
			}
			return nil
		}))
		w.Kill()
		changes.Wait()
		w = start(t, w.House)
	}
	must(t, Eventually(20*time.Second, func() error { return w.hasHeard("extkeep") }))
}

// deployersEnrol lets deployers in.
const deployersEnrol = `package sallyport

admit := {"allow": true} if input.subject.role == "deployer"
`
