package flow_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// keeper makes plain keys, by the vault of the house.
type keeper struct {
	h       *house
	reloads atomic.Int64
	before  func() // runs before each turn
}

func (k *keeper) Turn(ctx context.Context, rows []keys.Key, purpose keys.Purpose) (keys.Rotation, map[string]string, error) {
	if k.before != nil {
		k.before()
	}
	ring, err := keys.NewRing(purpose, rows)
	if err != nil {
		return keys.Rotation{}, nil, err
	}
	algorithm := keys.Random256
	if purpose == keys.Token {
		algorithm = keys.Ed25519
	}
	turn, err := k.h.vault.Rotate(ctx, ring, algorithm, 15*time.Minute)
	return turn, map[string]string{"fact": "told"}, err
}

func (k *keeper) Bound(_ context.Context, _ []keys.Key, key keys.Key) (string, error) {
	if key.Usable(k.h.now()) {
		return "it is good until later", nil
	}
	return "", nil
}

func (k *keeper) Retire(ctx context.Context, key keys.Key) (keys.Key, error) {
	return k.h.vault.Advance(ctx, key, keys.Retired, time.Time{})
}

func (k *keeper) Reload(context.Context) error { k.reloads.Add(1); return nil }

// keep stores the keys of the house as init does.
func (h *house) keep() {
	var writes []unit.Write
	for _, k := range h.rows {
		writes = append(writes, unit.Insert(k))
	}
	must(h.t, h.store.Commit(context.Background(), unit.Unit{Writes: writes, Record: storetest.Record("installation.keys")}))
}

// of lists the stored keys of a purpose in a state.
func (h *house) of(purpose keys.Purpose, state keys.State) []keys.Key {
	h.t.Helper()
	rows, err := h.store.Keys(context.Background())
	must(h.t, err)
	return slices.DeleteFunc(rows, func(k keys.Key) bool { return k.Purpose != purpose || k.State != state })
}

// lastRecord is the newest record of a type.
func (h *house) lastRecord(kind string) audit.Record {
	h.t.Helper()
	all := h.records(kind)
	if len(all) == 0 {
		h.t.Fatalf("there is no record of type %s", kind)
	}
	return all[len(all)-1]
}

func keyHouse(t *testing.T, change ...func(*flow.Config)) (*house, *keeper) {
	h := newHouse(t)
	h.keep()
	k := &keeper{h: h}
	h.gate = h.newGate(append(change, func(c *flow.Config) { c.Keyring = k })...)
	return h, k
}

func TestRotateKey(t *testing.T) {
	h, k := keyHouse(t)
	ctx := t.Context()
	first := h.of(keys.Token, keys.Active)[0]
	turn, err := h.gate.RotateKey(ctx, h.admin.caller(), keys.Token)
	must(t, err)
	if turn.Changed[0].ID != first.ID || k.reloads.Load() != 1 {
		t.Errorf("changed %v, %d reloads", turn.Changed, k.reloads.Load())
	}
	list, err := h.gate.Keys(ctx, h.admin.caller())
	must(t, err)
	does := map[string]bool{}
	for _, s := range list {
		if s.Purpose == keys.Token {
			does[s.ID] = s.Signs
		}
		if len(s.Sealed) > 0 {
			t.Errorf("the list shows the sealed bytes of %s", s.ID)
		}
	}
	if len(does) != 2 || !does[turn.Fresh.ID] || does[first.ID] {
		t.Errorf("who signs: %v", does)
	}
	r := h.lastRecord(audit.KeyRotated)
	if r.Target != "token" || r.Data["key"] != turn.Fresh.ID || r.Data["retiring."+first.ID] != "token" || r.Data["fact"] != "told" || len(r.Policy) == 0 {
		t.Errorf("the record says %+v", r)
	}
	_, err = h.gate.RotateKey(ctx, h.admin.caller(), "sky")
	want(t, err, fault.NotFound)
}

// TestRotateKey_OnceUnderOneKey: a rotation whose answer was lost is not made
// again, its answer holds no private part, and a key that is retired is new no more.
func TestRotateKey_OnceUnderOneKey(t *testing.T) {
	h, _ := keyHouse(t)
	ctx := t.Context()
	first, err := h.gate.RotateKey(ctx, under(h.admin.caller(), "01KEY"), keys.Token)
	must(t, err)
	who := under(h.admin.caller(), "01KEY")
	again, err := h.gate.RotateKey(ctx, who, keys.Token)
	must(t, err)
	if again.Fresh.ID != first.Fresh.ID || len(again.Changed) != 1 || again.Changed[0].ID != first.Changed[0].ID || !who.Key.Replayed {
		t.Errorf("rotated to %s, then to %s", first.Fresh.ID, again.Fresh.ID)
	}
	count(t, len(h.records(audit.KeyRotated)), 1, "rotations")
	for _, k := range slices.Concat(first.Changed, first.Under, again.Changed, []keys.Key{first.Fresh, again.Fresh}) {
		if len(k.Sealed) > 0 {
			t.Errorf("the answer has the sealed bytes of %s", k.ID)
		}
	}
	_, err = h.gate.RotateKey(ctx, under(h.admin.caller(), "01KEY"), keys.EAR)
	want(t, err, fault.Conflict)
	_, err = h.gate.RotateKey(ctx, h.admin.caller(), keys.Token)
	must(t, err)
	gone, err := h.gate.RetireKey(ctx, under(h.admin.caller(), "01KEY"), first.Fresh.ID, true)
	must(t, err)
	twice, err := h.gate.RetireKey(ctx, under(h.admin.caller(), "01KEY"), first.Fresh.ID, true)
	must(t, err)
	if twice.ID != gone.ID || twice.State != keys.Retired || len(gone.Sealed) > 0 {
		t.Errorf("retired %+v, then %+v", gone, twice)
	}
	_, err = h.gate.RotateKey(ctx, under(h.admin.caller(), "01KEY"), keys.Token)
	want(t, err, fault.Conflict)
}

func TestKeys_AreForAdministrators(t *testing.T) {
	h, _ := keyHouse(t)
	ctx := t.Context()
	auditor := h.stored(subject.Operator, "auditor", "audrey")
	before, err := h.store.Generation(ctx, "keys")
	must(t, err)
	_, err = h.gate.Keys(ctx, auditor.caller())
	want(t, err, fault.Denied)
	_, err = h.gate.RotateKey(ctx, auditor.caller(), keys.Token)
	want(t, err, fault.Denied)
	if r := h.lastRecord(audit.KeyRotated); r.Outcome != audit.Denied {
		t.Errorf("the refusal is recorded as %+v", r)
	}
	_, err = h.gate.RetireKey(ctx, auditor.caller(), h.rows[0].ID, true)
	want(t, err, fault.Denied)
	if after, _ := h.store.Generation(ctx, "keys"); after != before {
		t.Error("a refused change of keys has changed them")
	}
}

// TestRotateKey_OnceForTwoWhoAskAtOnce lets somebody rotate between reading and
// committing.
func TestRotateKey_OnceForTwoWhoAskAtOnce(t *testing.T) {
	h, k := keyHouse(t)
	ctx := t.Context()
	between := func(purpose keys.Purpose) {
		k.before = func() {
			k.before = nil
			_, err := h.gate.RotateKey(ctx, h.admin.caller(), purpose)
			must(t, err)
		}
	}
	between(keys.Token)
	_, err := h.gate.RotateKey(ctx, h.admin.caller(), keys.Token)
	want(t, err, fault.Conflict)
	count(t, len(h.of(keys.Token, keys.Active)), 1, "active keys")
	count(t, len(h.of(keys.Token, keys.Retiring)), 1, "retiring keys")
	// A change of another purpose is none of its business.
	between(keys.Cookie)
	_, err = h.gate.RotateKey(ctx, h.admin.caller(), keys.Token)
	must(t, err)
	count(t, len(h.of(keys.Token, keys.Retiring)), 2, "retiring keys")
}

func TestRetireKey(t *testing.T) {
	h, _ := keyHouse(t)
	ctx := t.Context()
	retire := func(id string, force bool) error {
		_, err := h.gate.RetireKey(ctx, h.admin.caller(), id, force)
		return err
	}
	want(t, retire(h.of(keys.Token, keys.Active)[0].ID, true), fault.Conflict)
	want(t, retire("01JD3Y6Z8K4T5N0QH2W7VXR9BM", true), fault.NotFound)
	for _, p := range []keys.Purpose{keys.Token, keys.RowMAC, keys.Pepper} {
		_, err := h.gate.RotateKey(ctx, h.admin.caller(), p)
		must(t, err)
	}
	old := h.of(keys.Token, keys.Retiring)[0].ID
	err := retire(old, false)
	want(t, err, fault.Conflict)
	if !strings.Contains(fault.Public(err), "later") || !strings.Contains(fault.Public(err), "--force") {
		t.Errorf("the refusal does not say until when: %s", fault.Public(err))
	}
	must(t, retire(old, true))
	want(t, retire(old, true), fault.Conflict)
	gone := h.of(keys.Token, keys.Retired)
	if len(gone) != 1 || len(gone[0].Sealed) != 0 {
		t.Errorf("a retired key keeps its bytes: %v", gone)
	}
	if r := h.lastRecord("key.retired"); r.Target != old || r.Data["force"] != "true" || r.Data["purpose"] != "token" {
		t.Errorf("the record says %+v", r)
	}
	want(t, retire(h.of(keys.RowMAC, keys.Retiring)[0].ID, true), fault.Conflict) // rows are read by it
	want(t, retire(h.of(keys.Pepper, keys.Retiring)[0].ID, false), fault.Conflict)
	must(t, retire(h.of(keys.Pepper, keys.Retiring)[0].ID, true))
}

// TestTendKeys lets months go by, with two replicas that both look after the
// keys: each is rotated once when its period is over, and goes when nothing needs
// it any more.
func TestTendKeys(t *testing.T) {
	periods := map[keys.Purpose]time.Duration{keys.Token: 30 * 24 * time.Hour, keys.Cookie: 60 * 24 * time.Hour}
	h, k := keyHouse(t, func(c *flow.Config) { c.KeyPeriods = periods })
	other := h.newGate(func(c *flow.Config) { c.KeyPeriods, c.Keyring = periods, k })
	tend := func() {
		t.Helper()
		var both sync.WaitGroup
		for _, g := range []*flow.Gate{h.gate, other, h.gate, other} {
			both.Go(func() {
				if err := g.TendKeys(t.Context()); err != nil {
					t.Errorf("tend: %v", err)
				}
			})
		}
		both.Wait()
	}
	expect := func(when string, purpose keys.Purpose, active, retiring, retired int) {
		t.Helper()
		for state, n := range map[keys.State]int{keys.Active: active, keys.Retiring: retiring, keys.Retired: retired} {
			count(t, len(h.of(purpose, state)), n, when+": "+string(state)+" "+string(purpose)+" keys")
		}
	}
	tend()
	expect("at first", keys.Token, 1, 0, 0)
	h.pass(30*24*time.Hour + time.Minute)
	tend()
	expect("after a month", keys.Token, 1, 1, 0)
	expect("after a month", keys.Cookie, 1, 0, 0)
	if r := h.lastRecord(audit.KeyRotated); r.Actor.Kind != "system" || r.Target != "token" || len(r.Reasons) != 1 {
		t.Errorf("the record says %+v", r)
	}
	h.pass(29 * time.Minute)
	tend()
	expect("within two lives", keys.Token, 1, 1, 0)
	h.pass(2 * time.Minute)
	tend()
	expect("after two lives", keys.Token, 1, 0, 1)
	h.pass(30 * 24 * time.Hour)
	tend()
	expect("after two months", keys.Token, 1, 1, 1)
	expect("after two months", keys.Cookie, 1, 1, 0)
	expect("without a period", keys.Pepper, 1, 0, 0)
	count(t, len(h.records(audit.KeyRotated)), 3, "records of rotations")
	if err := h.gate.TendKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestRetireKey_OfTheLedgerWhenTheNextHasSigned: not even force ends a key that
// records ahead of its rotation need for their place, and nor does its time.
func TestRetireKey_OfTheLedgerWhenTheNextHasSigned(t *testing.T) {
	h, _ := keyHouse(t)
	ctx := t.Context()
	first, _ := storetest.Signer(t)
	second, err := audit.NewSigner(storetest.Origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize)))
	must(t, err)
	row := func(s *audit.Signer, state keys.State, made time.Time) keys.Key {
		k, err := h.vault.Generate(ctx, keys.Ledger, keys.Ed25519)
		must(t, err)
		k.Public, k.State, k.Created = s.VerifierKey(), state, made.UTC().Truncate(time.Microsecond)
		return k
	}
	old, next := row(first, keys.Retiring, h.now().Add(-2*time.Hour)), row(second, keys.Active, h.now().Add(-time.Hour))
	old.NotAfter = next.Created
	must(t, h.store.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Insert(old), unit.Insert(next)}, Record: storetest.Record("installation.keys")}))
	kept := func(when string) {
		t.Helper()
		_, err := h.gate.RetireKey(ctx, h.admin.caller(), old.ID, true)
		want(t, err, fault.Conflict)
		if !strings.Contains(fault.Public(err), "try again in a moment") {
			t.Errorf("%s: %s", when, fault.Public(err))
		}
		must(t, h.gate.TendKeys(ctx))
		count(t, len(h.of(keys.Ledger, keys.Retiring)), 1, when+": retiring keys")
	}
	kept("without a checkpoint")
	storetest.Running(t, h.store)
	signedBy := func(s *audit.Signer) {
		t.Helper()
		storetest.Eventually(t, "the head is signed by "+s.ID(), func() bool {
			head, err := h.store.Head(ctx)
			return err == nil && head.Key == s.ID()
		})
	}
	signedBy(first)
	kept("while it signs")
	known, err := audit.NewKeys(first.VerifierKey(), second.VerifierKey())
	must(t, err)
	h.store.UseSigners([]*audit.Signer{first, second}, known)
	r := storetest.Record(audit.KeyRotated)
	r.Target = audit.LedgerTarget
	r.Data, err = first.Rotate(second.VerifierKey())
	must(t, err)
	must(t, h.store.Commit(ctx, unit.Unit{Record: r}))
	signedBy(second)
	must(t, h.gate.TendKeys(ctx))
	count(t, len(h.of(keys.Ledger, keys.Retired)), 1, "retired keys")
}
