package flow_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func TestSweep_EndsAThousandLeasesOnceEach(t *testing.T) {
	ctx := context.Background()
	h, c := agentWith(t, newVendor(grant.EffectsNone))
	const n = 1000
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range n / 50 {
				g := storetest.Grant(c.id)
				if err := h.store.Commit(ctx, storetest.Issue(g)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	h.pass(59 * time.Minute)
	done, err := h.gate.Sweep(ctx)
	must(t, err)
	count(t, done, 0, "ended early")
	h.pass(2 * time.Minute)
	replica := h.newGate()
	for range 4 { // two sweepers by mistake
		wg.Go(func() {
			if _, err := h.gate.Sweep(ctx); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := replica.Sweep(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	done, err = h.gate.Sweep(ctx)
	must(t, err)
	count(t, done, 0, "left")
	ended := map[string]bool{}
	for _, r := range h.records("grant.expired") {
		if ended[r.Grant] {
			t.Fatalf("grant %s ended twice", r.Grant)
		}
		ended[r.Grant] = true
	}
	count(t, len(ended), n, "records of expiry")
}

func TestSweep_ReportsWhenARevocationCannotBeRecorded(t *testing.T) {
	v := newTaker(grant.EffectsNone)
	v.revoke = func(int, string) error { return fault.Unavailablef("down") }
	h, reporter, out := leaked(t, v)
	h.report(reporter, leak(string(out.Value.Reveal())))
	h.pass(time.Minute)
	h.tap.on(func(unit.Unit) error { return fault.Unavailablef("the disk is full") })
	_, err := h.gate.Sweep(context.Background())
	want(t, err, fault.Unavailable) // so that the caller pauses
}

func TestSweep_SurvivesAnAdapterThatPanics(t *testing.T) {
	v := newTaker(grant.EffectsNone)
	h, reporter, out := leaked(t, v)
	v.revoke = func(int, string) error { return fault.Unavailablef("down") }
	h.report(reporter, leak(string(out.Value.Reveal())))
	v.revoke = func(int, string) error { panic("adapter broke with " + string(out.Value.Reveal())) }
	h.pass(time.Minute)
	_, err := h.gate.Sweep(context.Background())
	want(t, err, fault.Internal)
	if strings.Contains(err.Error(), string(out.Value.Reveal())) {
		t.Fatal("the panic's value is in the error")
	}
}

func TestSweep_EndsARevocationThatOutlivedItsLease(t *testing.T) {
	v := newTaker(grant.EffectsNone)
	v.revoke = func(int, string) error { return fault.Unavailablef("down") }
	h, reporter, out := leaked(t, v)
	h.report(reporter, leak(string(out.Value.Reveal())))
	h.pass(16 * time.Minute)
	_, err := h.gate.Sweep(context.Background())
	must(t, err)
	count(t, h.inState(grant.Expired), 1, "expired")
	count(t, len(v.tries()), 1, "tries")
	count(t, len(h.records("grant.revoked")), 0, "revocations recorded")
}

func TestSweep_EndsManualGrantsWithTheirLease(t *testing.T) {
	h, reporter, out := leaked(t, newVendor(grant.EffectsNone))
	h.report(reporter, leak(string(out.Value.Reveal())))
	count(t, h.inState(grant.Manual), 1, "manual")
	h.pass(16 * time.Minute)
	_, err := h.gate.Sweep(context.Background())
	must(t, err)
	count(t, h.inState(grant.Expired), 1, "expired")
}

func TestSweep_GivesUpIntentsWhoseLeaseIsOver(t *testing.T) {
	v := newTaker(grant.EffectsRemote)
	v.revoke = func(int, string) error { return fault.Unavailablef("down") }
	h, c := agentWith(t, v)
	intent := storetest.Grant(c.id)
	intent.State, intent.DueAt, intent.Kind = grant.Intent, h.now(), "test"
	must(t, h.store.Commit(context.Background(), storetest.Issue(intent)))
	for range 3 {
		h.pass(16 * time.Minute)
		_, err := h.gate.Sweep(context.Background())
		must(t, err)
		count(t, h.inState(grant.Intent), 1, "intents")
	}
	h.pass(16 * time.Minute)
	_, err := h.gate.Sweep(context.Background())
	must(t, err)
	count(t, h.inState(grant.Void), 1, "void")
}

// An intent of a kind that nobody takes back any more is given to people.
func TestSweep_LeavesIntentsOfWhoIsGoneToPeople(t *testing.T) {
	h, c := agentWith(t, newVendor(grant.EffectsNone))
	intent := storetest.Grant(c.id)
	intent.State, intent.DueAt, intent.Kind, intent.Source.Revocable = grant.Intent, h.now(), "gone", true
	must(t, h.store.Commit(context.Background(), storetest.Issue(intent)))
	h.pass(16 * time.Minute)
	_, err := h.gate.Sweep(context.Background())
	must(t, err)
	count(t, h.inState(grant.Void), 1, "void")
	_, err = h.gate.Deliver(context.Background())
	must(t, err)
	if got := h.phone.heard(); len(got) != 1 || got[0].Urgency != notify.High || !strings.Contains(got[0].Title, "by hand") {
		t.Errorf("people heard %+v", got)
	}
}

// Who may take a credential back is asked when it leaks: one that cannot leaves it
// to people, and so does one that says so only when it tries.
func TestReport_LeavesToPeopleWhatNobodyCanRevoke(t *testing.T) {
	for name, change := range map[string]func(*taker){
		"does not support the kind": func(v *taker) { v.supports = func() (bool, error) { return false, nil } },
		"says so when it tries": func(v *taker) {
			v.revoke = func(int, string) error { return fault.Unavailablef("only the console can").Because(grant.ErrByHand) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newTaker(grant.EffectsNone)
			change(v)
			h, reporter, out := leaked(t, v)
			r, err := h.gate.Report(context.Background(), reporter.caller(), leak(string(out.Value.Reveal())))
			must(t, err)
			if len(r.Matches) != 1 {
				t.Fatalf("%+v", r)
			}
			m := r.Matches[0]
			if m.State != grant.Manual || m.Tag != flow.TagManual || m.Address != v.source.Address {
				t.Errorf("%+v", m)
			}
			count(t, h.inState(grant.Manual), 1, "manual")
			count(t, len(h.records("grant.revoked")), 0, "revocations recorded")
			count(t, len(h.records("grant.manual")), 1, "records")
		})
	}
}

// Whether a revoker supports the kind cannot be known: the revocation is tried and
// repeated, never taken for impossible.
func TestReport_TriesWhereNobodyKnows(t *testing.T) {
	v := newTaker(grant.EffectsNone)
	v.supports = func() (bool, error) { return false, fault.Unavailablef("down") }
	v.revoke = func(try int, _ string) error {
		if try == 1 {
			return fault.Unavailablef("down")
		}
		return nil
	}
	h, reporter, out := leaked(t, v)
	h.report(reporter, leak(string(out.Value.Reveal())))
	count(t, h.inState(grant.Revoking), 1, "revoking")
	h.pass(time.Minute)
	_, err := h.gate.Sweep(context.Background())
	must(t, err)
	count(t, h.inState(grant.Revoked), 1, "revoked")
}

func TestDeliver_RepeatsUntilItArrives(t *testing.T) {
	ctx := context.Background()
	h, reporter, out := leaked(t, newTaker(grant.EffectsNone))
	h.phone.fail = func(try int) error {
		if try <= 2 {
			return fault.Unavailablef("busy")
		}
		return nil
	}
	h.report(reporter, leak(string(out.Value.Reveal())))
	for _, heard := range []int{0, 0, 1, 1} {
		count(t, len(h.deliver()), heard, "heard")
		count(t, len(h.deliver()), heard, "heard at once")
		h.pass(5 * time.Second)
	}
	count(t, h.phone.n, 3, "attempts")
	count(t, len(h.records("notification.delayed")), 2, "delays")
	count(t, len(h.records("notification.delivered")), 1, "deliveries")
	due, err := h.store.DeliveriesDue(ctx, h.now().Add(48*time.Hour), 10)
	must(t, err)
	count(t, len(due), 0, "left")
}

func TestDeliver_DropsWhatNoRepetitionMends(t *testing.T) {
	h, reporter, out := leaked(t, newTaker(grant.EffectsNone))
	h.phone.fail = func(int) error { return fault.Invalidf("the address is wrong") }
	h.report(reporter, leak(string(out.Value.Reveal())))
	for range 3 {
		h.deliver()
		h.pass(time.Hour)
	}
	count(t, h.phone.n, 1, "attempts")
	count(t, len(h.records("notification.dropped")), 1, "dropped")
}

func TestDeliver_GivesUpInTheEnd(t *testing.T) {
	h, reporter, out := leaked(t, newTaker(grant.EffectsNone))
	h.phone.fail = func(int) error { return fault.Unavailablef("busy") }
	h.report(reporter, leak(string(out.Value.Reveal())))
	for range 110 {
		h.deliver()
		h.pass(16 * time.Minute)
	}
	count(t, h.phone.n, 100, "attempts")
	count(t, len(h.records("notification.dropped")), 1, "dropped")
}

func TestDeliver_DropsWhatHasNoChannelAnyMore(t *testing.T) {
	h, reporter, out := leaked(t, newTaker(grant.EffectsNone))
	h.report(reporter, leak(string(out.Value.Reveal())))
	h.gate = h.newGate(func(c *flow.Config) { c.Channels = nil })
	h.deliver()
	count(t, len(h.records("notification.dropped")), 1, "dropped")
}

func TestRecordStrangers_IsBoundedAndLosesNothing(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	knock := func(address string) {
		_, err := h.gate.Authenticate(ctx, flow.Presented{Token: "nonsense", Address: address})
		want(t, err, fault.Unauthenticated)
	}
	total, meanwhile := 0, 0
	down := func(unit.Unit) error {
		for range 3000 { // more come while the ledger is asked
			meanwhile++
			knock("198.51.100." + strconv.Itoa(meanwhile))
			total++
		}
		return fault.Unavailablef("the disk is full")
	}
	for round := range 3 {
		for i := range 5000 {
			knock("2001:db8::" + strconv.Itoa(round) + ":" + strconv.Itoa(i))
			total++
		}
		h.tap.on(down)
		want(t, h.gate.RecordStrangers(ctx), fault.Unavailable)
	}
	h.tap.on(nil)
	must(t, h.gate.RecordStrangers(ctx))
	sum, addresses := 0, map[string]bool{}
	for _, r := range h.records("stranger.refused") {
		for address, text := range r.Data {
			n, err := strconv.Atoi(text)
			must(t, err)
			sum += n
			addresses[address] = true
		}
		if len(r.Data) > 128 {
			t.Errorf("%d addresses in one record", len(r.Data))
		}
	}
	count(t, sum, total, "counted")
	if !addresses["other"] || len(addresses) > 4097 {
		t.Errorf("%d addresses are kept", len(addresses))
	}
	must(t, h.gate.RecordStrangers(ctx))
	before := len(h.records("stranger.refused"))
	must(t, h.gate.RecordStrangers(ctx))
	count(t, len(h.records("stranger.refused")), before, "records without strangers")
}
