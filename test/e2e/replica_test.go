package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/policy"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// pair is two servers on one PostgreSQL.
func pair(t *testing.T, name string) (a, b *world) {
	t.Helper()
	databaseStarted = true
	p, reason := database()
	p.Need(t, reason)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, p.Exec(ctx, "postgres", "CREATE DATABASE "+name))
	h := found(t, Options{DSN: p.DSN(name), Config: map[string]any{"verifiers": believesSamples()}})
	a = start(t, h)
	must(t, a.Equip(t.Context()))
	twin, err := h.Replica(filepath.Join(t.TempDir(), "twin"), p.DSN(name))
	must(t, err)
	b = start(t, twin)
	// The decision to run a plugin is shared, its files are not: a node that knows
	// the decision keeps the files, and may say that the plugin is installed.
	if err := b.Install(t.Context()); !sallyport.Is(err, sallyport.Conflict) {
		must(t, err)
	}
	must(t, Eventually(15*time.Second, func() error {
		status, err := b.admin.Status(t.Context())
		if err == nil && (len(status.Plugins) != 1 || status.Plugins[0].State != "ready") {
			err = fmt.Errorf("the plugins of the second node: %+v", status.Plugins)
		}
		return err
	}))
	return a, b
}

// TestReplicas_AreOneHouse does on one node what must concern the other at once.
func TestReplicas_AreOneHouse(t *testing.T) {
	a, b := pair(t, "onehouse")
	ctx := t.Context()
	agent := a.enrol("agent", "deployer", "build-7")
	opened, err := agent.client.OpenSession(ctx, nil)
	must(t, err)
	token := opened.Token.Reveal()
	atA, atB := a.HTTP(&agent.Certificate), b.HTTP(&agent.Certificate)

	one, err := a.Vend(atA, token, "a-key-of-mine")
	must(t, err)
	two, err := b.Vend(atB, token, "a-key-of-mine")
	must(t, err)
	if one.Status != 201 || two.Status != 200 || !two.Replayed || one.Grant != two.Grant || one.Value != two.Value {
		t.Errorf("a key used on one node gives %d %s, on the other %d %s", one.Status, one.Grant, two.Status, two.Grant)
	}

	set := func(at *world, name, source string) {
		t.Helper()
		_, err := at.admin.SetPolicy(ctx, name, "sallyport", source)
		must(t, err)
	}
	for range 5 { // each time at once, without a pause in which a poll could help
		set(a, "freeze", policy.ExampleFreeze())
		if got, err := b.Vend(atB, token, ""); err != nil || got.Status != http.StatusForbidden {
			t.Errorf("the other node vends against the new policy: %d %v", got.Status, err)
		}
		must(t, a.admin.RemovePolicy(ctx, "freeze"))
		if got, err := b.Vend(atB, token, ""); err != nil || got.Status != http.StatusCreated {
			t.Errorf("the other node refuses by a removed policy: %d %v: %s", got.Status, err, got.Body)
		}
	}

	other := b.enrol("agent", "deployer", "build-8")
	second, err := other.client.OpenSession(ctx, nil)
	must(t, err)
	if got, err := a.Vend(a.HTTP(&other.Certificate), second.Token.Reveal(), ""); err != nil || got.Status != 201 {
		t.Errorf("who enrolled at one node is answered at the other with %d %v", got.Status, err)
	}
	m, err := b.admin.RevokeGrant(ctx, one.Grant, "test")
	must(t, err)
	again, err := a.admin.RevokeGrant(ctx, one.Grant, "test")
	must(t, err)
	if m.Repeat || !again.Repeat || again.State != "revoked" {
		t.Errorf("one grant is taken back twice: %+v %+v", m, again)
	}
	must(t, a.admin.EndSession(ctx, opened.Session.ID, "test"))
	if got, err := b.Vend(atB, token, ""); err != nil || got.Status != http.StatusUnauthorized {
		t.Errorf("a session revoked on one node is good on the other: %d %v", got.Status, err)
	}
	must(t, done(b.admin.RevokeCertificate(ctx, other.Serial, "test")))
	if got := a.send(shown{method: "GET", path: "/v1/whoami", certificate: &other.Certificate}); got.status != 401 {
		t.Errorf("a certificate revoked on one node is good on the other: %d", got.status)
	}
	for _, w := range []*world{a, b} {
		if _, err := w.Verify(ctx); err != nil {
			t.Error(err)
		}
		must(t, w.Stop())
	}
}

// TestReplicas_SurviveEachOther kills one of two servers under load. The other
// goes on, takes over what a single node does at a time, and nothing that
// anybody got is lost.
func TestReplicas_SurviveEachOther(t *testing.T) {
	quick(t)
	a, b := pair(t, "survivors")
	ctx := t.Context()
	agent := a.enrol("agent", "deployer", "build-7")
	opened, err := agent.client.OpenSession(ctx, nil)
	must(t, err)
	token := opened.Token.Reveal()
	var (
		mu       sync.Mutex
		released = map[string]string{} // by grant: the node
		late     int                   // by the survivor, after the kill
		odd      []string
		killed   = make(chan struct{})
		stop     = make(chan struct{})
		work     sync.WaitGroup
	)
	load := func(at *world, node string) {
		client := at.HTTP(&agent.Certificate)
		defer client.CloseIdleConnections()
		for {
			select {
			case <-stop:
				return
			default:
			}
			got, err := at.Vend(client, token, "")
			mu.Lock()
			switch {
			case err == nil && got.Status == 201:
				released[got.Grant] = node
				select {
				case <-killed:
					late++
				default:
				}
			case err == nil:
				odd = append(odd, fmt.Sprintf("%s: %d %s", node, got.Status, got.Body))
			case node == "b":
				odd = append(odd, err.Error())
			}
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}
	for range 4 {
		work.Go(func() { load(a, "a") })
		work.Go(func() { load(b, "b") })
	}
	time.Sleep(time.Second)
	close(killed)
	a.Kill() // it started first and has the leases
	time.Sleep(1500 * time.Millisecond)
	close(stop)
	work.Wait()
	if len(odd) > 0 {
		t.Errorf("%d requests failed, first: %s", len(odd), odd[0])
	}
	if late < 10 {
		t.Errorf("the survivor released %d credentials after the kill", late)
	}
	t.Logf("%d credentials, %d of them after the kill", len(released), late)
	b.allIn(released, 20*time.Second)

	short, err := b.meet(agent).client.Vend(ctx, SSH(time.Second))
	must(t, err)
	must(t, Eventually(15*time.Second, func() error {
		g, err := b.admin.Grant(ctx, short.Grant)
		if err == nil && g.State != "expired" {
			err = fmt.Errorf("the survivor does not sweep: the grant is %s", g.State)
		}
		return err
	}))
	if _, err := b.Verify(ctx); err != nil {
		t.Error(err)
	}
	back := start(t, a.House)
	if got, err := back.Vend(back.HTTP(&agent.Certificate), token, ""); err != nil || got.Status != 201 {
		t.Errorf("the killed node is back and answers %d %v: %s", got.Status, err, got.Body)
	}
	if strings.Contains(back.Log(), "level=ERROR") {
		t.Errorf("the node that came back is not well: %s", back.LastLog())
	}
}

// allIn waits until every grant is in the store and has its record in the
// ledger, which only an integrator gives a place.
func (w *world) allIn(released map[string]string, within time.Duration) {
	w.t.Helper()
	begin := time.Now()
	must(w.t, Eventually(within, func() error {
		records, err := w.Records(w.t.Context(), "grant.issued")
		if err != nil {
			return err
		}
		issued := map[string]int{}
		for _, r := range records {
			issued[r.Grant]++
		}
		for g, node := range released {
			if issued[g] != 1 {
				return fmt.Errorf("grant %s of node %s has %d records", g, node, issued[g])
			}
		}
		return nil
	}))
	w.t.Logf("every record had its place after %s", time.Since(begin).Round(100*time.Millisecond))
	grants, err := w.Grants(w.t.Context())
	must(w.t, err)
	for g := range released {
		if _, ok := grants[g]; !ok {
			w.t.Fatalf("grant %s was released and is lost", g)
		}
	}
}
