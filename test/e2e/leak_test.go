package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// webhookSecret is the key of the signatures that the receiver checks.
const webhookSecret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// told is one notification that arrived whole and signed.
type told struct {
	ID, Type, Grant, Subject, Urgency string
	Tags                              []string
}

// receiver is somebody's webhook. It verifies each signature as Standard
// Webhooks describes it, with code of its own.
type receiver struct {
	address string
	mu      sync.Mutex
	refuse  int // answers 503 this many times first
	seen    int
	got     []told
	bad     []string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(io.LimitReader(q.Body, 1<<20))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen++; r.seen <= r.refuse {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(webhookSecret, "whsec_"))
	mac := hmac.New(sha256.New, raw)
	id, at := q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp")
	_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	var n told
	seconds, _ := strconv.ParseInt(at, 10, 64)
	age := time.Since(time.Unix(seconds, 0))
	switch {
	case err != nil || json.Unmarshal(body, &n) != nil:
		r.bad = append(r.bad, "unreadable: "+string(body))
	case !slices.Contains(strings.Fields(q.Header.Get("webhook-signature")), want):
		r.bad = append(r.bad, "wrong signature: "+q.Header.Get("webhook-signature"))
	case n.ID != id || age > time.Minute || age < -time.Minute:
		r.bad = append(r.bad, "wrong id or time: "+id+" "+at)
	default:
		r.got = append(r.got, n)
	}
}

// open begins to receive, which may be long after its address was configured.
func (r *receiver) open(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", r.address)
	must(t, err)
	server := &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
}

// of are the notifications about a grant.
func (r *receiver) of(grant string) []told {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []told
	for _, n := range r.got {
		if n.Grant == grant {
			out = append(out, n)
		}
	}
	return out
}

// TestLeak_IsRevokedOnceAndTold reports one value ten times at once, while the
// webhook's receiver is down.
func TestLeak_IsRevokedOnceAndTold(t *testing.T) {
	hook := &receiver{address: free(t), refuse: 1}
	secretFile := filepath.Join(t.TempDir(), "hook.secret")
	must(t, os.WriteFile(secretFile, []byte(webhookSecret+"\n"), 0o600))
	w := equipped(t, Options{Config: map[string]any{"notify": map[string]any{
		"webhooks": []any{map[string]any{"name": "ops", "url": "http://" + hook.address + "/hook", "secret_file": secretFile}},
	}}})
	ctx := t.Context()
	agent, reporter := w.enrol("agent", "deployer", "build-7"), w.enrol("agent", "reporter", "scanner")
	leaked, safe, dead := w.vend(agent, 10*time.Minute), w.vend(agent, 10*time.Minute), w.vend(agent, time.Second)

	type outcome struct {
		sallyport.Reaction
		err error
	}
	results := make(chan outcome, 10)
	for i := range cap(results) {
		value := leaked.Value
		switch i % 3 {
		case 1:
			value = sallyport.NewSecret("  " + value.Reveal() + "\n\n")
		case 2:
			value = leaked.PrivateKey // as bad as the certificate
		}
		go func() {
			r, err := reporter.client.ReportLeak(ctx, sallyport.Leak{Value: value, Source: "scanner", Location: "a public repository"})
			results <- outcome{r, err}
		}()
	}
	firsts := 0
	for range cap(results) {
		r := <-results
		must(t, r.err)
		if len(r.Matches) != 1 || r.Matches[0].Grant != leaked.Grant || r.Matches[0].State != "revoked" || r.Matches[0].Tag != "revoked_on_detection" {
			t.Fatalf("a report found %+v", r.Matches)
		}
		if !r.Matches[0].Repeat {
			firsts++
		}
	}
	if firsts != 1 {
		t.Errorf("%d reports say that they revoked the grant", firsts)
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(leaked.Value.Reveal())))
	r, err := reporter.client.ReportLeak(ctx, sallyport.Leak{Fingerprint: fmt.Sprintf("%x", sum), Source: "scanner"})
	must(t, err)
	if len(r.Matches) != 1 || !r.Matches[0].Repeat {
		t.Errorf("the fingerprint finds %+v", r.Matches)
	}
	_, err = w.admin.ReportLeak(ctx, sallyport.Leak{Fingerprint: fmt.Sprintf("%x", sum)})
	refused(t, "a fingerprint from somebody else", err, sallyport.Denied)

	time.Sleep(1500 * time.Millisecond)
	r, err = reporter.client.ReportLeak(ctx, sallyport.Leak{Value: dead.Value, Source: "scanner"})
	must(t, err)
	if len(r.Matches) != 1 || r.Matches[0].Tag != "detected_after_expiry" || r.Matches[0].State != "expired" {
		t.Errorf("a dead credential: %+v", r.Matches)
	}

	hook.open(t) // only now
	must(t, Eventually(40*time.Second, func() error {
		if n := len(hook.of(leaked.Grant)); n != 1 {
			return fmt.Errorf("%d notifications of the revocation arrived", n)
		}
		return nil
	}))
	time.Sleep(time.Second) // for a second one, if there is one
	n := hook.of(leaked.Grant)
	if len(n) != 1 || n[0].Type != "grant.revoked" || n[0].Urgency != "elevated" || n[0].Subject != agent.Subject.ID || !slices.Contains(n[0].Tags, "revoked_on_detection") {
		t.Errorf("the notification is %+v", n)
	}
	if len(hook.of(safe.Grant)) > 0 || len(hook.bad) > 0 {
		t.Errorf("told of what did not leak, or badly: %v", hook.bad)
	}
	for _, low := range hook.of(dead.Grant) {
		if low.Urgency != "low" {
			t.Errorf("a dead credential is urgent: %+v", low)
		}
	}
	if lines := strings.Count(w.Log(), leaked.Grant); lines == 0 {
		t.Error("the console says nothing of the revocation")
	}
	w.leakIsRecorded(leaked.Grant, safe.Grant, agent)
}

func (w *world) leakIsRecorded(leaked, safe string, agent person) {
	w.t.Helper()
	revoked := 0
	must(w.t, Eventually(5*time.Second, func() error {
		list, err := w.Records(w.t.Context(), "")
		if err != nil {
			return err
		}
		reports, delivered := 0, 0
		revoked = 0
		for _, r := range list {
			switch {
			case r.Type == "leak.reported" && r.Outcome == "done":
				reports++
			case r.Type == "grant.revoked" && r.Grant == leaked:
				revoked++
			case r.Type == "notification.delivered" && r.Grant == leaked && r.Data["channel"] == "ops":
				delivered++
			}
		}
		if reports != 12 || delivered != 1 {
			return fmt.Errorf("the ledger has %d reports and %d deliveries", reports, delivered)
		}
		return nil
	}))
	if revoked != 1 {
		w.t.Errorf("the ledger has %d revocations of one grant", revoked)
	}
	g, err := agent.client.Grant(w.t.Context(), safe)
	must(w.t, err)
	if g.State != "active" {
		w.t.Errorf("the other grant is %s", g.State)
	}
}

// leak is a report of a credential's value.
func leak(c sallyport.Credential) sallyport.Leak {
	return sallyport.Leak{Value: c.Value, Source: "scanner", Location: "a public repository"}
}

// TestRevoke_FinishesAfterAKill kills the server while it revokes the
// credentials of an agent. The next one finishes by itself, each grant once.
func TestRevoke_FinishesAfterAKill(t *testing.T) {
	quick(t)
	w, ctx := equipped(t, Options{}), t.Context()
	agent := w.enrol("agent", "deployer", "build-7")
	const n = 400
	var tasks sync.WaitGroup
	for range 8 {
		tasks.Go(func() {
			for range n / 8 {
				if _, err := agent.client.Vend(ctx, SSH(10*time.Minute)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	tasks.Wait()
	shown := func(w *world) map[string]int {
		detail, err := w.admin.Subject(ctx, agent.Subject.ID)
		must(t, err)
		return detail.Grants
	}
	tasks.Go(func() { // whether it is answered or not
		_, _ = w.admin.ChangeSubject(ctx, agent.Subject.ID, sallyport.SubjectChange{Act: "revoke", Reason: "test"})
	})
	for shown(w)["revoked"] == 0 {
		time.Sleep(time.Millisecond)
	}
	w.Kill()
	tasks.Wait()
	w = start(t, w.House)
	t.Logf("after the kill: %v", shown(w))
	must(t, Eventually(time.Minute, func() error {
		if got := shown(w); got["revoked"] != n {
			return fmt.Errorf("grants: %v", got)
		}
		return nil
	}))
	must(t, Eventually(10*time.Second, func() error {
		ends, err := w.Records(ctx, "grant.revoked")
		if err == nil && len(ends) != n {
			err = fmt.Errorf("%d records of %d revocations", len(ends), n)
		}
		return err
	}))
	must(t, w.Stop())
}
