package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func TestServer_VendsAndRecords(t *testing.T) {
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	got := w.vend(agent, time.Minute)
	if !strings.HasPrefix(got.Value.Reveal(), "ssh-ed25519-cert-v01@openssh.com ") || got.PrivateKey.Empty() {
		t.Errorf("the credential is no certificate with a key: %d bytes", len(got.Value.Reveal()))
	}
	// Records get their place in the ledger shortly after the answer.
	must(t, Eventually(5*time.Second, func() error {
		report, err := w.Verify(t.Context())
		if err == nil && (!report.OK || report.Records < 5) {
			err = fmt.Errorf("the ledger does not verify: %+v", report)
		}
		return err
	}))
	for name, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/status": 404, "/": 404} {
		res, err := http.Get("http://" + w.Operations + name)
		must(t, err)
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("operations %s answers %d, want %d", name, res.StatusCode, want)
		}
	}
	must(t, w.Stop())
}

func TestServer_ExpiresGrantsAndRecordsIt(t *testing.T) {
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	got := w.vend(agent, 2*time.Second)
	must(t, Eventually(10*time.Second, func() error {
		g, err := agent.client.Grant(t.Context(), got.Grant)
		if err == nil && g.State != "expired" {
			err = fmt.Errorf("the grant is %s", g.State)
		}
		return err
	}))
	must(t, Eventually(5*time.Second, func() error {
		list, err := w.Records(t.Context(), "grant.expired")
		if err != nil {
			return err
		}
		if len(list) != 1 || list[0].Grant != got.Grant {
			return fmt.Errorf("%d records of an expiry", len(list))
		}
		return nil
	}))
	m, err := agent.client.RevokeGrant(t.Context(), got.Grant, "too late")
	must(t, err)
	if m.State != "expired" || !m.Repeat {
		t.Errorf("revoking what has expired: %+v", m)
	}
}

// TestServer_DrainsOnSIGTERM stops a server under load: whoever got an answer
// got a whole one, and every credential that was handed out is in the store.
func TestServer_DrainsOnSIGTERM(t *testing.T) {
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	session, err := agent.client.OpenSession(t.Context(), nil)
	must(t, err)
	client := w.HTTP(&agent.Certificate)
	var (
		loads    sync.WaitGroup
		mu       sync.Mutex
		released []string
		odd      []string
		stopping atomic.Bool
	)
	for range 16 {
		loads.Go(func() {
			for {
				got, err := w.Vend(client, session.Token.Reveal(), "")
				mu.Lock()
				switch {
				case err == nil && got.Status == http.StatusCreated:
					released = append(released, got.Grant)
				case err == nil:
					odd = append(odd, fmt.Sprintf("status %d: %s", got.Status, got.Body))
				case !stopping.Load():
					odd = append(odd, err.Error())
				case !errors.Is(err, syscall.ECONNREFUSED) && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset by peer") && !strings.Contains(err.Error(), "server sent GOAWAY"):
					odd = append(odd, err.Error())
				}
				mu.Unlock()
				if err != nil || got.Status != http.StatusCreated {
					return
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	begin := time.Now()
	stopping.Store(true)
	w.Terminate()
	must(t, w.Wait(begin))
	loads.Wait()
	if len(odd) > 0 {
		t.Errorf("%d requests met something else than an answer or a closed door, first: %s", len(odd), odd[0])
	}
	t.Logf("%d credentials before the end, stopped in %s", len(released), time.Since(begin).Round(time.Millisecond))
	again := start(t, w.House)
	grants, err := again.Grants(t.Context())
	must(t, err)
	for _, g := range released {
		if grants[g].State != "active" {
			t.Fatalf("grant %s was handed out and is %q in the store", g, grants[g].State)
		}
	}
	if _, err := again.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestServer_AnswersWhatIsInFlight sends a request in two halves around SIGTERM.
func TestServer_AnswersWhatIsInFlight(t *testing.T) {
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	session, err := agent.client.OpenSession(t.Context(), nil)
	must(t, err)
	body := `{"kind":"ssh-user-cert","params":{"principals":["deploy"],"source_addresses":["127.0.0.1/32"]},"ttl_seconds":60}`
	line := w.dial(&agent.Certificate)
	line.write("POST /v1/credentials HTTP/1.1\r\nHost: " + w.Main + "\r\nAuthorization: Bearer " + session.Token.Reveal() +
		"\r\nContent-Type: application/json\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body[:10])
	time.Sleep(200 * time.Millisecond)
	begin := time.Now()
	w.Terminate()
	time.Sleep(300 * time.Millisecond)
	line.write(body[10:])
	if got := line.read(5 * time.Second); got.status != http.StatusCreated {
		t.Errorf("the request in flight was answered with %d: %s", got.status, got.body)
	}
	must(t, w.Wait(begin))
}

// TestServer_LeavesNoPluginBehind kills the server: its plugins must end with
// it.
func TestServer_LeavesNoPluginBehind(t *testing.T) {
	w := equipped(t, Options{})
	w.vend(w.enrol("agent", "deployer", "build-7"), time.Minute)
	status, err := w.admin.Status(t.Context())
	must(t, err)
	if len(status.Plugins) != 1 || status.Plugins[0].PID == 0 {
		t.Fatalf("plugins: %+v", status.Plugins)
	}
	pid := status.Plugins[0].PID
	must(t, w.cmd.Process.Kill()) // the server alone, not its group
	<-w.Ended()
	must(t, Eventually(5*time.Second, func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
			if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); !strings.Contains(string(text), ") Z ") {
				return fmt.Errorf("plugin process %d outlived the server", pid)
			}
		}
		return nil
	}))
}

func TestServer_RefusesASecondOnItsData(t *testing.T) {
	w := start(t, found(t, Options{}))
	ready := w.House.Dir + "/second.json"
	_, err := w.House.Command(t.Context(), "serve", "--ready-file", ready)
	exit := new(ExitError)
	if !errors.As(err, &exit) || exit.Code != 7 || !strings.Contains(exit.Stderr, "in use by another process") {
		t.Errorf("a second server on the same data: %v", err)
	}
	if _, err := w.admin.Whoami(t.Context()); err != nil {
		t.Errorf("the first server suffers: %v", err)
	}
	refused(t, "an unknown subject", func() error { _, err := w.admin.Subject(t.Context(), "nobody"); return err }(), sallyport.NotFound, sallyport.Invalid)
}

// TestReadyFile_NamesEveryListener tells listeners on port 0 apart by their
// names.
func TestReadyFile_NamesEveryListener(t *testing.T) {
	w := start(t, found(t, Options{Further: []any{
		map[string]any{"name": "guests", "address": "127.0.0.1:0", "doors": []string{"kbs"}, "plain": true},
		map[string]any{"name": "inside", "address": "127.0.0.1:0", "doors": []string{"rest"}},
	}}))
	if len(w.Bound) != 4 {
		t.Fatalf("the ready file names %v", w.Bound)
	}
	for name, address := range w.Bound {
		scheme := map[string]string{"guests": "http", "operations": "http"}[name]
		if scheme == "" {
			scheme = "https"
		}
		for path, at := range map[string]string{"/v1/ledger/checkpoint": "main inside", "/readyz": "operations", "/kbs/v0/auth": "main guests"} {
			method := http.MethodGet
			if path == "/kbs/v0/auth" {
				method = http.MethodPost
			}
			req, err := http.NewRequestWithContext(t.Context(), method, scheme+"://"+address+path, strings.NewReader("{}"))
			must(t, err)
			got, err := exchange(w.HTTP(&w.House.Operator), req)
			must(t, err)
			if (got.status != http.StatusNotFound) != strings.Contains(at, name) {
				t.Errorf("%s at %s: %d", path, name, got.status)
			}
		}
	}
}

// TestClock_IsAcceptedByTheOperatorAlone has a server that once saw a time far
// ahead. It issues nothing, after any number of starts, until an operator has
// accepted the clock in so many words, and that stands in the ledger.
func TestClock_IsAcceptedByTheOperatorAlone(t *testing.T) {
	ctx := t.Context()
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	victim := w.vend(agent, 10*time.Minute)
	_, err := w.House.Command(ctx, "doctor", "clock")
	exits(t, "beside a server that runs", err, 7)
	must(t, w.Stop())
	ahead := time.Now().AddDate(5, 0, 0).UTC()
	behind(t, w.House, "UPDATE clock SET highest = ?", ahead.UnixMicro())

	for range 2 {
		w = start(t, w.House)
		agent = w.meet(agent)
		if _, err = agent.client.Vend(ctx, SSH(time.Minute)); err == nil || !strings.Contains(err.Error(), "CLOCK_ROLLBACK") {
			t.Fatalf("with a clock that stands behind: %v", err)
		}
		must(t, w.Stop())
		shown, err := w.House.Command(ctx, "doctor", "clock", "--output", "json")
		must(t, err)
		if !strings.Contains(shown, `"blocked": true`) || !strings.Contains(shown, ahead.Format("2006-01-02T15:04")) {
			t.Errorf("doctor clock shows %s", shown)
		}
		for name, args := range map[string][]string{
			"without an answer": {"--accept", "--reason", "x"}, "without a reason": {"--accept", "--yes"}, "without --accept": {"--yes"},
		} {
			_, err = w.House.Command(ctx, append([]string{"doctor", "clock"}, args...)...)
			exits(t, name, err, 2)
		}
	}
	_, err = w.House.Command(ctx, "doctor", "clock", "--accept", "--yes", "--reason", "time service repaired")
	must(t, err)
	_, err = w.House.Command(ctx, "doctor", "clock", "--accept", "--yes", "--reason", "again")
	exits(t, "twice", err, 6)

	w = start(t, w.House)
	w.vend(w.meet(agent), time.Minute)
	_, err = w.admin.RevokeGrant(ctx, victim.Grant, "test")
	must(t, err)
	must(t, Eventually(5*time.Second, func() error {
		page, err := w.admin.Records(ctx, sallyport.RecordQuery{Type: "clock.accepted"})
		if err != nil || len(page.Items) != 1 {
			return fmt.Errorf("records of the clock: %v, %w", page.Items, err)
		}
		if text := string(page.Items[0].Record); !strings.Contains(text, ahead.Format("2006-01-02T15:04")) || !strings.Contains(text, "time service repaired") {
			return fmt.Errorf("recorded %s", text)
		}
		return nil
	}))
	must(t, Eventually(5*time.Second, func() error {
		report, err := w.Verify(ctx)
		if err == nil && !report.OK {
			err = fmt.Errorf("the ledger does not verify: %+v", report)
		}
		return err
	}))
	must(t, w.Stop())
}
