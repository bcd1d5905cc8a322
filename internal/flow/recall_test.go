package flow_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// signedHere makes the host the signer of a kind.
func signedHere(kind string) func(*flow.Config) {
	return func(c *flow.Config) {
		c.Signers = map[string]grant.Signer{kind: &signer{finish: func(_ grant.Prepared, _ grant.Scope, v secret.Bytes) (grant.Signed, error) {
			return grant.Signed{Value: v}, nil
		}}}
	}
}

// holding is a house with an agent that holds n grants of each way to end.
func holding(t *testing.T, n int) (*house, *client, *taker) {
	t.Helper()
	h := newHouse(t, signedHere("test-host"))
	remote := newTaker(grant.EffectsNone)
	h.vendors["test-host"], h.vendors["test-manual"], h.vendors["test-remote"] = newVendor(grant.EffectsNone), newVendor(grant.EffectsNone), remote
	c := h.stored(subject.Agent, "deployer", "agent").open()
	for range n {
		for kind := range h.vendors {
			must(t, done(h.gate.Vend(context.Background(), c.caller(), request(kind))))
		}
	}
	return h, c, remote
}

func (h *house) revoke(of, credentials string) flow.Changed {
	h.t.Helper()
	out, err := h.gate.ChangeSubject(context.Background(), h.admin.caller(), of, flow.SubjectChange{Act: "revoked", Reason: "compromised", Credentials: credentials})
	must(h.t, err)
	return out
}

func (h *house) states(of string) map[grant.State]int {
	h.t.Helper()
	counts, err := h.store.CountGrants(context.Background(), of)
	must(h.t, err)
	return counts
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

// endings are how often each grant of a subject was brought to an end.
func (h *house) endings() map[string]int {
	ends := map[string]int{}
	for _, r := range h.records("") {
		switch r.Type {
		case "grant.revoked", "grant.manual", "grant.expired":
			ends[r.Grant]++
		}
	}
	return ends
}

func TestRevokedSubject_TakesItsCredentialsWithIt(t *testing.T) {
	h, c, remote := holding(t, 2)
	bystander := h.stored(subject.Agent, "deployer", "bystander").open()
	must(t, done(h.gate.Vend(context.Background(), bystander.caller(), request("test-host"))))

	out := h.revoke(c.id, "")
	same(t, "recalled", *out.Recalled, flow.Recalled{Revoked: 4, Manual: 2})
	same(t, "grants", h.states(c.id), map[grant.State]int{grant.Revoked: 4, grant.Manual: 2})
	same(t, "the bystander's grants", h.states(bystander.id), map[grant.State]int{grant.Active: 1})
	count(t, len(remote.tries()), 2, "calls of the provider")
	ends := h.endings()
	count(t, len(ends), 6, "grants that ended")
	for id, n := range ends {
		count(t, n, 1, "endings of "+id)
	}
	held, err := h.store.Grants(context.Background(), grant.Filter{Subject: c.id})
	must(t, err)
	for _, g := range held {
		if g.Reason != "revoked-with-subject" || len(g.Tags) > 0 {
			t.Errorf("%s ended by %s with tags %v", g.ID, g.Reason, g.Tags)
		}
	}
	byHand, summary := 0, 0
	for _, n := range h.deliver() {
		switch {
		case n.Type == "grant.manual" && n.Urgency == notify.High && n.Address != "" && strings.Contains(n.Title, "revoked or locked"):
			byHand++
		case n.Type == "credentials.recalled" && n.Urgency == notify.High && n.Data["revoked"] == "4" && n.Data["manual"] == "2":
			summary++
		default:
			t.Errorf("told %+v", n)
		}
	}
	if byHand != 2 || summary != 1 {
		t.Errorf("told of %d by hand and %d in sum", byHand, summary)
	}
	s, err := h.store.Subject(context.Background(), c.id)
	must(t, err)
	if !s.Recall.IsZero() {
		t.Error("the mark is left")
	}
	count(t, len(h.records("credentials.recalled")), 1, "records of the end")
	must(t, done(h.gate.Recall(context.Background())))
	count(t, len(h.records("credentials.recalled")), 1, "records of the end")
}

func TestRevokedSubject_MayKeepItsCredentials(t *testing.T) {
	h, c, _ := holding(t, 1)
	out := h.revoke(c.id, flow.Keep)
	if out.Recalled != nil || !out.Subject.Recall.IsZero() {
		t.Errorf("%+v", out)
	}
	h.pass(time.Minute)
	must(t, done(h.gate.Recall(context.Background())))
	same(t, "grants", h.states(c.id), map[grant.State]int{grant.Active: 3})
}

func TestLockedSubject_TakesCredentialsOnlyWhenAsked(t *testing.T) {
	ctx := context.Background()
	h, c, _ := holding(t, 1)
	change := func(act, credentials string) (flow.Changed, error) {
		return h.gate.ChangeSubject(ctx, h.admin.caller(), c.id, flow.SubjectChange{Act: act, Credentials: credentials})
	}
	must(t, done(change("locked", "")))
	same(t, "grants of a locked one", h.states(c.id), map[grant.State]int{grant.Active: 3})
	must(t, done(change("unlocked", "")))
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "credentials.recalled" {
			return fault.Unavailablef("no answer")
		}
		return nil
	})
	out, err := change("locked", flow.Revoke)
	must(t, err)
	same(t, "recalled", *out.Recalled, flow.Recalled{Revoked: 2, Manual: 1, Unfinished: true})
	want(t, done(change("unlocked", "")), fault.Conflict) // new credentials would be taken back too
	h.tap.on(nil)
	h.pass(time.Minute)
	must(t, done(h.gate.Recall(ctx)))
	must(t, done(change("unlocked", "")))
	must(t, done(h.gate.Vend(ctx, c.open().caller(), request("test-host"))))
	h.pass(time.Minute)
	must(t, done(h.gate.Recall(ctx)))
	same(t, "grants", h.states(c.id), map[grant.State]int{grant.Revoked: 2, grant.Manual: 1, grant.Active: 1})
	for _, bad := range [][2]string{{"unlocked", flow.Revoke}, {"changed", flow.Keep}, {"revoked", "burn"}} {
		want(t, done(change(bad[0], bad[1])), fault.Invalid)
	}
}

// What the provider does not take back is never reported as done.
func TestRevokedSubject_KeepsAskingAProviderThatFails(t *testing.T) {
	ctx := context.Background()
	h, c, remote := holding(t, 1)
	remote.revoke = func(try int, _ string) error {
		if try < 3 {
			return fault.Unavailablef("the provider is down")
		}
		return nil
	}
	out := h.revoke(c.id, "")
	same(t, "recalled", *out.Recalled, flow.Recalled{Revoked: 1, Manual: 1, Failed: 1})
	same(t, "grants", h.states(c.id), map[grant.State]int{grant.Revoked: 1, grant.Manual: 1, grant.Revoking: 1})
	failed := 0
	for _, n := range h.deliver() {
		if n.Type == "grant.revocation_failed" && n.Urgency == notify.High {
			failed++
		}
	}
	count(t, failed, 1, "notifications of the failure")
	for range 3 {
		h.pass(2 * time.Minute)
		must(t, done(h.gate.Sweep(ctx)))
	}
	same(t, "grants", h.states(c.id), map[grant.State]int{grant.Revoked: 2, grant.Manual: 1})
	count(t, len(remote.tries()), 3, "calls of the provider")
}

// The server dies in the middle: the next one finishes, and nothing is revoked
// twice.
func TestRevokedSubject_IsFinishedAfterACrash(t *testing.T) {
	ctx := context.Background()
	h, c, remote := holding(t, 10)
	var mu sync.Mutex
	left := 7
	h.tap.on(func(u unit.Unit) error {
		mu.Lock()
		defer mu.Unlock()
		if u.Record.Type != "subject.revoked" && u.Record.Type != "grant.intended" {
			if left--; left < 0 {
				return fault.Unavailablef("the power is gone")
			}
		}
		return nil
	})
	out := h.revoke(c.id, "")
	if !out.Recalled.Unfinished {
		t.Fatalf("recalled %+v", out.Recalled)
	}
	before := h.endings()
	h.reopen(signedHere("test-host"))
	if n := h.states(c.id)[grant.Active]; n == 0 {
		t.Fatal("nothing is left to do")
	}
	must(t, done(h.gate.Recall(ctx)))
	if h.states(c.id)[grant.Active] == 0 {
		t.Fatal("the sweeper did not leave the call its time")
	}
	h.pass(time.Minute)
	must(t, done(h.gate.Recall(ctx)))
	must(t, done(h.gate.Sweep(ctx))) // revocations of which the outcome was lost
	same(t, "grants", h.states(c.id), map[grant.State]int{grant.Revoked: 20, grant.Manual: 10})
	ends := h.endings()
	for id, n := range before {
		ends[id] += n
	}
	count(t, len(ends), 30, "grants that ended")
	for id, n := range ends {
		count(t, n, 1, "endings of "+id)
	}
	if n := len(remote.tries()); n < 10 || n > 20 {
		t.Errorf("%d calls of the provider", n)
	}
	finished := h.records("credentials.recalled")
	count(t, len(finished), 1, "records of the end")
	if finished[0].Actor != audit.System("sweeper") || finished[0].Data["left"] != "0" {
		t.Errorf("recorded %+v", finished[0])
	}
}

// An agent that asks for more while it is revoked ends with nothing.
func TestRevokedSubject_EndsWithNothingHoweverItAsks(t *testing.T) {
	ctx := context.Background()
	h, c, _ := holding(t, 1)
	who := c.caller()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = h.gate.Vend(ctx, who, request("test-manual"))
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	h.revoke(c.id, "")
	time.Sleep(20 * time.Millisecond)
	close(stop)
	wg.Wait()
	if n := h.states(c.id)[grant.Active]; n > 0 {
		t.Errorf("%d grants are live", n)
	}
}

// Thousands of grants are revoked, each once, in pages.
func TestRevokedSubject_OfThousandsOfGrants(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: takes long")
	}
	ctx := context.Background()
	h, c, _ := holding(t, 0)
	const n = 3_000 // pages of a thousand
	var wg sync.WaitGroup
	slots := make(chan struct{}, 256)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			g := storetest.Grant(c.id)
			g.Kind, g.Handle = "test-host", fmt.Sprint(i)
			g.ExpiresAt = h.now().Add(hour)
			g.DueAt = g.ExpiresAt
			if err := h.store.Commit(ctx, storetest.Issue(g)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	begun := time.Now()
	out := h.revoke(c.id, "")
	t.Logf("%+v in %s", *out.Recalled, time.Since(begun))
	for range 20 {
		if h.states(c.id)[grant.Active] == 0 {
			break
		}
		h.pass(time.Minute)
		must(t, done(h.gate.Recall(ctx)))
	}
	same(t, "grants", h.states(c.id), map[grant.State]int{grant.Revoked: n})
	ends := h.endings()
	count(t, len(ends), n, "grants that ended")
	for id, k := range ends {
		count(t, k, 1, "endings of "+id)
	}
	list, err := h.store.RevokedHandles(ctx, "test-host", h.now())
	must(t, err)
	count(t, len(list), n, "entries of the revocation list")
}

// The answer was lost: the same call once more tells how it went, and does
// nothing again.
func TestRevokedSubject_IsAnsweredOnceMore(t *testing.T) {
	h, c, remote := holding(t, 2)
	remote.revoke = func(int, string) error { return fault.Unavailablef("down") }
	revoke := func() (flow.Changed, bool) {
		who := h.admin.caller()
		who.Key = &flow.Key{Text: "01KEY"}
		out, err := h.gate.ChangeSubject(context.Background(), who, c.id, flow.SubjectChange{Act: "revoked", Reason: "compromised"})
		must(t, err)
		return out, who.Key.Replayed
	}
	first, again := revoke()
	want := flow.Recalled{Revoked: 2, Manual: 2, Failed: 2}
	same(t, "first", []any{*first.Recalled, again}, []any{want, false})
	ends := len(h.endings())
	second, again := revoke()
	same(t, "second", []any{*second.Recalled, again}, []any{want, true})
	count(t, len(h.endings()), ends, "endings")
	count(t, len(h.records("credentials.recalled")), 1, "records of the end")
}
