package flow_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func leak(value string) signal.Signal {
	return signal.Signal{Value: secret.FromString(value), Source: "scanner", Location: "repository x", Reason: "found"}
}

// leaked is a house in which an agent holds one grant, and a reporter.
func leaked(t *testing.T, p grant.Provider, change ...func(*flow.Config)) (h *house, reporter *client, out flow.Vended) {
	h, c := agentWith(t, p, change...)
	out, err := h.gate.Vend(context.Background(), c.caller(), request("test"))
	must(t, err)
	return h, h.stored(subject.Agent, "reporter", "reporter").open(), out
}

func (h *house) report(c *client, s signal.Signal) flow.Reaction {
	h.t.Helper()
	r, err := h.gate.Report(context.Background(), c.caller(), s)
	must(h.t, err)
	return r
}

func (h *house) one(r flow.Reaction) flow.Match {
	h.t.Helper()
	count(h.t, len(r.Matches), 1, "matches")
	return r.Matches[0]
}

// deliver sends what is due and returns what people heard.
func (h *house) deliver() []notify.Notification {
	h.t.Helper()
	_, err := h.gate.Deliver(context.Background())
	must(h.t, err)
	return h.phone.heard()
}

func TestReport_EndsInOneOfThreeWays(t *testing.T) {
	manual := newVendor(grant.EffectsNone)
	host := func(c *flow.Config) {
		c.Signers = map[string]grant.Signer{"test": &signer{finish: func(_ grant.Prepared, _ grant.Scope, v secret.Bytes) (grant.Signed, error) {
			return grant.Signed{Value: v}, nil
		}}}
	}
	for name, c := range map[string]struct {
		provider grant.Provider
		change   []func(*flow.Config)
		late     bool
		tag      string
		state    grant.State
		urgency  notify.Urgency
		record   string
		tries    int
		address  string
	}{
		"dead already":       {provider: newTaker(grant.EffectsNone), late: true, tag: flow.TagExpired, state: grant.Expired, urgency: notify.Low, record: "grant.expired"},
		"live and revocable": {provider: newTaker(grant.EffectsNone), tag: flow.TagRevoked, state: grant.Revoked, urgency: notify.Elevated, record: "grant.revoked", tries: 1},
		"signed by the host": {provider: newVendor(grant.EffectsNone), change: []func(*flow.Config){host}, tag: flow.TagRevoked, state: grant.Revoked, urgency: notify.Elevated, record: "grant.revoked"},
		"nobody can revoke it": {
			provider: manual, tag: flow.TagManual, state: grant.Manual, urgency: notify.High, record: "grant.manual", address: manual.source.Address,
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, reporter, out := leaked(t, c.provider, c.change...)
			if c.late {
				h.pass(16 * time.Minute)
				reporter = reporter.open()
			}
			m := h.one(h.report(reporter, leak(string(out.Value.Reveal()))))
			if m.Grant != out.Grant || m.Tag != c.tag || m.State != c.state || m.Repeat || m.Failed != "" || m.Address != c.address {
				t.Errorf("matched %+v", m)
			}
			held, err := h.store.Grant(context.Background(), out.Grant)
			must(t, err)
			if held.State != c.state || !slices.Contains(held.Tags, c.tag) {
				t.Errorf("stored %v with tags %v", held.State, held.Tags)
			}
			if v, ok := c.provider.(*taker); ok {
				count(t, len(v.tries()), c.tries, "calls of the provider")
			}
			count(t, len(h.records(c.record)), 1, c.record)
			heard := h.deliver()
			count(t, len(heard), 1, "notifications")
			if n := heard[0]; n.Urgency != c.urgency || n.Grant != out.Grant || n.Address != c.address || !slices.Contains(n.Tags, c.tag) {
				t.Errorf("told %+v", n)
			}
			count(t, len(h.deliver()), 1, "notifications after a second round")
		})
	}
}

func TestReport_MakesOneRevocationOfTenAtATime(t *testing.T) {
	v := newTaker(grant.EffectsRemote)
	v.revoke = func(int, string) error { time.Sleep(20 * time.Millisecond); return nil }
	h, reporter, out := leaked(t, v)
	who := reporter.caller()
	gates := []*flow.Gate{h.gate, h.newGate()}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			var r flow.Reaction
			err := patiently(func() (err error) {
				r, err = gates[i%2].Report(context.Background(), who, leak(string(out.Value.Reveal())))
				return err
			})
			if err != nil || len(r.Matches) != 1 {
				t.Errorf("report %d: %v, %v", i, r, err)
			}
		})
		wg.Go(func() {
			if _, err := gates[i%2].Sweep(context.Background()); err != nil {
				t.Errorf("sweep: %v", err)
			}
		})
	}
	wg.Wait()
	count(t, len(v.tries()), 1, "revocations")
	if v.tries()[0] == out.Grant || !strings.HasPrefix(v.tries()[0], "handle-") {
		t.Errorf("revoked by %q", v.tries()[0])
	}
	count(t, len(h.records("leak.reported")), 10, "reports")
	count(t, len(h.records("grant.revoking")), 1, "beginnings")
	count(t, len(h.records("grant.revoked")), 1, "ends")
	count(t, len(h.records("grant.reported")), 9, "repetitions")
	count(t, len(h.deliver()), 1, "notifications")
}

func TestReport_KnowsWhatWasDoneBeforeARestart(t *testing.T) {
	v := newTaker(grant.EffectsNone)
	h, reporter, out := leaked(t, v)
	value := string(out.Value.Reveal())
	h.report(reporter, leak(value))
	h.reopen()
	m := h.one(h.report(reporter, leak(value)))
	if !m.Repeat || m.State != grant.Revoked || m.Tag != flow.TagRevoked {
		t.Fatalf("matched %+v", m)
	}
	count(t, len(v.tries()), 1, "revocations")
}

func TestReport_NeverCallsAFailedRevocationDone(t *testing.T) {
	ctx := context.Background()
	v := newTaker(grant.EffectsNone)
	v.source.KeepValue = true
	v.revoke = func(try int, _ string) error {
		if try <= 3 {
			return fault.Unavailablef("the provider is down").Because(errors.New("dial tcp: internal"))
		}
		return nil
	}
	h, reporter, out := leaked(t, v)
	m := h.one(h.report(reporter, leak(string(out.Value.Reveal()))))
	if m.State != grant.Revoking || m.Tag != "" || m.Failed == "" || strings.Contains(m.Failed, "dial tcp") {
		t.Fatalf("matched %+v", m)
	}
	count(t, len(h.records("grant.revoked")), 0, "revocations recorded")
	failed := h.records("grant.revocation_failed")
	count(t, len(failed), 1, "failures recorded")
	if failed[0].Outcome != audit.Failed || len(failed[0].Reasons) != 1 {
		t.Fatalf("recorded %+v", failed[0])
	}
	heard := h.deliver()
	count(t, len(heard), 1, "notifications")
	if heard[0].Urgency != notify.High || heard[0].Type != "grant.revocation_failed" || slices.Contains(heard[0].Tags, flow.TagRevoked) {
		t.Fatalf("told %+v", heard[0])
	}
	held, err := h.store.Grant(ctx, out.Grant)
	must(t, err)
	if !slices.Contains(held.Tags, flow.TagRevoked) || slices.Contains(flow.TagsOf(held), flow.TagRevoked) {
		t.Errorf("shown with %v of the tags %v", flow.TagsOf(held), held.Tags)
	}
	_, err = h.gate.Sweep(ctx)
	must(t, err)
	count(t, len(v.tries()), 1, "tries before the pause is over")
	h.reopen()
	for i, pause := range []time.Duration{3 * time.Second, 5 * time.Second, 9 * time.Second} {
		h.pass(pause)
		_, err := h.gate.Sweep(ctx)
		must(t, err)
		count(t, len(v.tries()), i+2, "tries")
	}
	count(t, len(h.records("grant.revoked")), 1, "revocations recorded")
	for _, value := range v.values {
		if value != v.made[0] {
			t.Fatal("the provider did not get the value that it needs")
		}
	}
	held, err = h.store.Grant(ctx, out.Grant)
	must(t, err)
	if held.State != grant.Revoked || len(held.Sealed) > 0 || !held.DueAt.IsZero() {
		t.Fatalf("stored %+v", held)
	}
	count(t, len(h.deliver()), 2, "notifications")
}

func TestReport_CountsBareFingerprintsOfReportersOnly(t *testing.T) {
	ctx := context.Background()
	v := newTaker(grant.EffectsNone)
	h, reporter, out := leaked(t, v)
	sum := sha256.Sum256(out.Value.Reveal())
	bare := signal.Signal{Digest: hex.EncodeToString(sum[:]), Source: "registry"}
	_, err := h.gate.Report(ctx, h.admin.caller(), bare)
	want(t, err, fault.Denied)
	count(t, len(v.tries()), 0, "revocations")
	m := h.one(h.report(reporter, bare))
	if m.Grant != out.Grant || m.State != grant.Revoked {
		t.Fatalf("matched %+v", m)
	}
	stranger := h.stored(subject.Agent, "deployer", "someone").open()
	_, err = h.gate.Report(ctx, stranger.caller(), leak(string(out.Value.Reveal())))
	want(t, err, fault.Denied)
}

func TestReport_FindsTrimmedValuesAndPrivateKeys(t *testing.T) {
	h, reporter, out := leaked(t, newVendor(grant.EffectsNone), func(c *flow.Config) {
		c.Signers = map[string]grant.Signer{"test": &signer{finish: func(_ grant.Prepared, _ grant.Scope, v secret.Bytes) (grant.Signed, error) {
			return grant.Signed{Value: secret.FromString(string(v.Reveal()) + "\n")}, nil
		}}}
	})
	value := string(out.Value.Reveal())
	for _, text := range []string{value, strings.TrimSpace(value), " \t" + value + "\r\n\n", string(out.Private.Reveal()), string(out.Private.Reveal()) + "\n"} {
		if m := h.one(h.report(reporter, leak(text))); m.Grant != out.Grant {
			t.Fatalf("matched %+v", m)
		}
	}
}

func TestReport_OfAnUnknownValueIsRecorded(t *testing.T) {
	h, reporter, _ := leaked(t, newTaker(grant.EffectsNone))
	r := h.report(reporter, leak("never issued here"))
	count(t, len(r.Matches), 0, "matches")
	recorded := h.records("leak.reported")
	count(t, len(recorded), 1, "records")
	if recorded[0].ID != r.Record || recorded[0].Data["matches"] != "0" {
		t.Fatalf("recorded %+v", recorded[0])
	}
}

func TestReport_FindsValuesOfAnOlderPepper(t *testing.T) {
	ctx := context.Background()
	h, reporter, out := leaked(t, newTaker(grant.EffectsNone))
	turn, err := h.vault.Rotate(ctx, h.ring(keys.Pepper), keys.Random256, 0)
	must(t, err)
	for i, row := range h.rows {
		for _, old := range turn.Changed {
			if row.ID == old.ID {
				h.rows[i] = old
			}
		}
	}
	h.rows = append(h.rows, turn.Fresh)
	before := h.peppers.ID()
	h.peppers, err = keys.NewPeppers(ctx, h.vault, h.ring(keys.Pepper))
	must(t, err)
	if h.peppers.ID() == before {
		t.Fatal("the pepper did not turn")
	}
	h.gate = h.newGate()
	if m := h.one(h.report(reporter, leak(string(out.Value.Reveal())))); m.Grant != out.Grant {
		t.Fatalf("matched %+v", m)
	}
}

func TestReport_DealsWithAllCandidatesWhateverHappensToOne(t *testing.T) {
	v := newTaker(grant.EffectsNone)
	v.issue = func(_ context.Context, a grant.Scope, b grant.Bounds) (grant.Issued, error) {
		i := v.proper(a, b)
		i.Value = secret.FromString("one value for all")
		return i, nil
	}
	h, c := agentWith(t, v)
	reporter := h.stored(subject.Agent, "reporter", "reporter").open().caller()
	for range 5 {
		_, err := h.gate.Vend(context.Background(), c.caller(), request("test"))
		must(t, err)
	}
	first := h.grants()[0].ID
	ctx, hangUp := context.WithCancel(context.Background())
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "grant.revoking" && u.Record.Grant == first {
			hangUp() // the reporter does not wait
			return fault.Unavailablef("this row cannot be written")
		}
		return nil
	})
	r, err := h.gate.Report(ctx, reporter, leak("one value for all"))
	want(t, err, fault.Unavailable)
	count(t, len(r.Matches), 4, "matches")
	count(t, h.inState(grant.Revoked), 4, "revoked")
	h.tap.on(nil)
	_, err = h.gate.Report(context.Background(), reporter, leak("one value for all"))
	must(t, err)
	count(t, h.inState(grant.Revoked), 5, "revoked in the end")
	count(t, len(v.tries()), 5, "revocations")
}

func TestReport_RefusesTextsThatRepeatTheValue(t *testing.T) {
	h, reporter, out := leaked(t, newTaker(grant.EffectsNone))
	s := leak(string(out.Value.Reveal()))
	s.Location = "log line: token=" + string(out.Value.Reveal())
	_, err := h.gate.Report(context.Background(), reporter.caller(), s)
	want(t, err, fault.Invalid)
}

func TestRevokeGrant_IsForHoldersAndOperators(t *testing.T) {
	ctx := context.Background()
	v := newTaker(grant.EffectsNone)
	h, c := agentWith(t, v)
	other := h.stored(subject.Agent, "deployer", "other").open()
	out, err := h.gate.Vend(ctx, c.caller(), request("test"))
	must(t, err)
	_, err = h.gate.RevokeGrant(ctx, other.caller(), out.Grant, "")
	want(t, err, fault.Denied)
	_, err = h.gate.RevokeGrant(ctx, other.caller(), "01M83KZ46TQER6DG0ZVY5GDGA6", "")
	want(t, err, fault.Denied) // one that does not exist looks the same
	_, err = h.gate.Grant(ctx, other.caller(), out.Grant)
	want(t, err, fault.Denied)
	m, err := h.gate.RevokeGrant(ctx, c.caller(), out.Grant, "done")
	must(t, err)
	if m.State != grant.Revoked || m.Tag != "" {
		t.Fatalf("matched %+v", m)
	}
	m, err = h.gate.RevokeGrant(ctx, h.admin.caller(), out.Grant, "again")
	must(t, err)
	if !m.Repeat {
		t.Fatalf("matched %+v", m)
	}
	count(t, len(v.tries()), 1, "revocations")
}

// TestUrgent_IsWhatTakesAwayAlone: urgent units go before others, and into the space
// that is kept for revocations. What can be said again and again is none of them: a
// report that takes nothing back, a revocation of what is revoked, an answer once more.
func TestUrgent_IsWhatTakesAwayAlone(t *testing.T) {
	ctx := context.Background()
	h, agent := agentWith(t, newTaker(grant.EffectsNone))
	reporter := h.stored(subject.Agent, "reporter", "reporter").open()
	vend := func() flow.Vended {
		out, err := h.gate.Vend(ctx, agent.caller(), request("test"))
		must(t, err)
		return out
	}
	var urgent []string
	h.tap.on(func(u unit.Unit) error {
		if u.Urgent {
			urgent = append(urgent, u.Record.Type)
		}
		return nil
	})
	is := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(urgent, want) {
			t.Errorf("%s: urgent are %v, want %v", what, urgent, want)
		}
		urgent = nil
	}
	out := vend()
	value := string(out.Value.Reveal())
	h.report(reporter, leak("never issued here"))
	is("an unknown value")
	h.report(reporter, leak(value))
	is("a leak", "leak.reported", "grant.revoking", "grant.revoked")
	for range 3 {
		h.report(reporter, leak(value))
		must(t, done(h.gate.RevokeGrant(ctx, agent.caller(), out.Grant, "again")))
	}
	is("what is taken back already")
	for range 3 {
		_, err := h.gate.Report(ctx, under(reporter.caller(), "01KEY"), leak(value))
		must(t, err)
	}
	is("the same report once more")

	// What the first call under a key has left undone is urgent still.
	out = vend()
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "grant.revoking" {
			return fault.Unavailablef("not now")
		}
		return nil
	})
	_, err := h.gate.Report(ctx, under(reporter.caller(), "02KEY"), leak(string(out.Value.Reveal())))
	want(t, err, fault.Unavailable)
	h.tap.on(func(u unit.Unit) error {
		if u.Urgent {
			urgent = append(urgent, u.Record.Type)
		}
		return nil
	})
	_, err = h.gate.Report(ctx, under(reporter.caller(), "02KEY"), leak(string(out.Value.Reveal())))
	must(t, err)
	is("a report that was interrupted", "leak.replayed", "grant.revoking", "grant.revoked")

	second := h.stored(subject.Agent, "deployer", "second").open()
	caller := second.caller()
	must(t, h.gate.EndSession(ctx, under(h.admin.caller(), "03KEY"), caller.Session.ID, "done"))
	is("a session's end", "session.revoked")
	for range 3 {
		must(t, h.gate.EndSession(ctx, under(h.admin.caller(), "03KEY"), caller.Session.ID, "done"))
	}
	is("a session's end, told once more")
}
