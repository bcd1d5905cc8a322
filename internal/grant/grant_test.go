package grant_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/unit"
)

var states = []grant.State{grant.Intent, grant.Active, grant.Revoking, grant.Revoked, grant.Expired, grant.Manual, grant.Void}

// TestTransitions_TakeOnlyListedSteps walks lives of any length.
func TestTransitions_TakeOnlyListedSteps(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		now := time.Unix(1_700_000_000, 0).UTC()
		g := grant.Grant{
			Version: 1, State: rapid.SampledFrom([]grant.State{grant.Intent, grant.Active}).Draw(r, "birth"),
			Sealed: []byte("sealed"), DueAt: now.Add(time.Hour), ExpiresAt: now.Add(time.Hour),
		}
		for range rapid.IntRange(0, 12).Draw(r, "steps") {
			to := rapid.SampledFrom(append(states, "", "alive")).Draw(r, "to")
			now = now.Add(time.Minute)
			next, err := g.To(to, "because", now)
			if !slices.Contains(grant.Transitions[g.State], to) {
				if !fault.Is(err, fault.Conflict) || next.Version != 0 {
					r.Fatalf("%s to %s gave %+v, %v", g.State, to, next, err)
				}
				continue
			}
			if err != nil || next.State != to || next.Version != g.Version+1 || next.Reason != "because" {
				r.Fatalf("%s to %s gave %+v, %v", g.State, to, next, err)
			}
			if final := len(grant.Transitions[to]) == 0; final != next.DueAt.IsZero() || final == next.EndedAt.IsZero() || final != (len(next.Sealed) == 0) {
				r.Fatalf("%s keeps what has ended: %+v", to, next)
			}
			if final := len(grant.Transitions[to]) == 0; final && next.Live(now) {
				r.Fatalf("%s is live", to)
			}
			g = next
		}
	})
}

func TestTransitions_AreAsTheyAreMeant(t *testing.T) {
	count := map[grant.State]int{}
	for from, all := range grant.Transitions {
		for _, to := range all {
			count[to]++
			if to == grant.Active && from != grant.Intent {
				t.Errorf("%s becomes active", from)
			}
			if from == to {
				t.Errorf("%s becomes itself", from)
			}
		}
	}
	for _, s := range states {
		if _, listed := grant.Transitions[s]; !listed {
			t.Errorf("%s is not listed", s)
		}
		if count[s] == 0 && s != grant.Intent {
			t.Errorf("nothing leads to %s", s)
		}
	}
	for _, final := range []grant.State{grant.Revoked, grant.Expired, grant.Void} {
		if len(grant.Transitions[final]) > 0 {
			t.Errorf("%s has an exit", final)
		}
	}
}

func TestGrant_IsLiveUntilItsLeaseEnds(t *testing.T) {
	end := time.Unix(1_700_000_000, 0)
	for _, s := range states {
		g := grant.Grant{State: s, ExpiresAt: end}
		live := s == grant.Active || s == grant.Revoking || s == grant.Manual
		if g.Live(end.Add(-1)) != live || g.Live(end) {
			t.Errorf("%s is live at the wrong time", s)
		}
	}
}

func TestGrant_TaggedOnceAndWithoutSharing(t *testing.T) {
	shared := make([]string, 1, 8)
	shared[0] = "a"
	g := grant.Grant{Tags: shared, Version: 4}
	one, two := g.Tagged("b"), g.Tagged("c")
	if d := cmp.Diff([][]string{one.Tags, two.Tags, one.Tagged("b").Tags, g.Tags}, [][]string{{"a", "b"}, {"a", "c"}, {"a", "b"}, {"a"}}); d != "" {
		t.Fatal(d)
	}
	if one.Version != 4 {
		t.Fatal("a tag is no version")
	}
}

func TestScope_HashNamesTheLogicalScope(t *testing.T) {
	a := grant.Scope{Kind: "k", Params: map[string]any{"a": []any{"x", 1.0}, "b": true}, TTL: time.Minute}
	same := grant.Scope{Kind: "k", Params: map[string]any{"b": true, "a": []any{"x", 1.0}}, TTL: time.Minute, IssuedAt: time.Now()}
	if a.Hash() != same.Hash() || len(a.Hash()) != 64 {
		t.Fatal("the same scope has two hashes")
	}
	for name, other := range map[string]grant.Scope{
		"kind":  {Kind: "K", Params: a.Params, TTL: a.TTL},
		"time":  {Kind: "k", Params: a.Params, TTL: a.TTL + time.Second},
		"value": {Kind: "k", Params: map[string]any{"a": []any{"x", 2.0}, "b": true}, TTL: a.TTL},
		"type":  {Kind: "k", Params: map[string]any{"a": []any{"x", "1"}, "b": true}, TTL: a.TTL},
		"none":  {Kind: "k", TTL: a.TTL},
	} {
		if other.Hash() == a.Hash() {
			t.Errorf("another %s has the same hash", name)
		}
	}
}

// TestScope_Hash_isOfCanonicalJSON: anybody can compute it with a library for
// RFC 8785.
func TestScope_Hash_isOfCanonicalJSON(t *testing.T) {
	for _, s := range []grant.Scope{
		{},
		{Kind: "<k>", TTL: 90 * time.Second},
		{Kind: "k", Params: map[string]any{"z": []any{"x", 0.5, nil}, "a": map[string]any{"\u20ac": true, "\ufb33": false}}, TTL: time.Minute},
	} {
		text, err := canon.JCS(map[string]any{"kind": s.Kind, "params": s.Params, "ttl_seconds": int64(s.TTL / time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%x", sha256.Sum256(text)); s.Hash() != want {
			t.Errorf("%s: %s", text, s.Hash())
		}
	}
	if h := (grant.Scope{Kind: "k", Params: map[string]any{"a": make(chan int)}}).Hash(); h != "" {
		t.Errorf("what is no JSON has the hash %s", h)
	}
}

func TestScope_WithoutHostKeepsTheOriginal(t *testing.T) {
	s := grant.Scope{Kind: "k", Params: map[string]any{"host.serial": "1", "hostname": "x", "a": "b"}}
	if d := cmp.Diff(s.WithoutHost().Params, map[string]any{"hostname": "x", "a": "b"}); d != "" {
		t.Fatal(d)
	}
	if len(s.Params) != 3 {
		t.Fatal("the original lost a parameter")
	}
}

func TestGrant_ComesBackAsItWas(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_123_456).UTC()
	g := grant.Grant{
		ID: "1", Version: 3, State: grant.Manual, Subject: "s", Session: "e", Kind: "k",
		Scope:  grant.Scope{Kind: "k", Params: map[string]any{"a": []any{"b", 1.5, true, nil}}, TTL: time.Minute, IssuedAt: now, ExpiresAt: now.Add(time.Minute)},
		Source: grant.Source{Plugin: "p", Version: "1", Digest: "d", Effects: grant.EffectsRemote, Revocable: true, KeepValue: true, Address: "a"},
		Handle: "h", Fingerprints: []string{"f1", "f2"}, Sealed: []byte{1, 2}, Policy: []string{"base@1"}, Tags: []string{"t"}, Reason: "r", Attempts: 7,
		IssuedAt: now, ExpiresAt: now.Add(time.Minute), EndedAt: now, DueAt: now,
	}
	if d := cmp.Diff(g, stored(t, g)); d != "" {
		t.Fatal(d)
	}
}

// TestGrant_AnyDocumentComesBack as it was, whatever its texts and numbers are.
func TestGrant_AnyDocumentComesBack(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "<&>\u2028\u2029\x00\x7f\n\"\\", "kind", "\U0010ffff"}))
	number := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{1e21, 1e-7, 1 << 53, -0.5, math.MaxFloat64, math.SmallestNonzeroFloat64}))
	plain := rapid.OneOf(rapid.Map(text, func(s string) any { return s }), rapid.Map(number, func(f float64) any { return f }),
		rapid.SampledFrom([]any{nil, true, false, []any{}, map[string]any{}}))
	value := rapid.OneOf(plain, rapid.Map(rapid.SliceOf(plain), func(l []any) any { return append([]any{}, l...) }),
		rapid.Map(rapid.MapOf(text, plain), func(m map[string]any) any { return m }))
	at := rapid.Map(rapid.Int64Range(-1<<50, 1<<50), unit.Moment)
	texts := rapid.SliceOfN(text, 0, 3)
	rapid.Check(t, func(t *rapid.T) {
		g := grant.Grant{
			Scope: grant.Scope{
				Kind: text.Draw(t, "kind"), Params: rapid.MapOf(text, value).Draw(t, "params"),
				TTL:      time.Duration(rapid.Int64Range(0, 1<<33).Draw(t, "ttl")) * time.Second,
				IssuedAt: at.Draw(t, "issued").In(time.FixedZone("", 3600)), ExpiresAt: at.Draw(t, "expires"),
			},
			Source: grant.Source{
				Plugin: text.Draw(t, "plugin"), Version: text.Draw(t, "version"), Digest: text.Draw(t, "digest"),
				Effects: grant.Effects(text.Draw(t, "effects")), Revocable: rapid.Bool().Draw(t, "revocable"),
				KeepValue: rapid.Bool().Draw(t, "keep"), Address: text.Draw(t, "address"),
			},
			Policy: texts.Draw(t, "policy"), Tags: texts.Draw(t, "tags"), Reason: text.Draw(t, "reason"),
		}
		if d := cmp.Diff(g, stored(t, g), cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

// TestGrant_KeepsItsDocument when a provider's words are no UTF-8.
func TestGrant_KeepsItsDocument(t *testing.T) {
	g := grant.Grant{
		Scope:  grant.Scope{Kind: "k", Params: map[string]any{"a": 7}, TTL: time.Minute},
		Source: grant.Source{Plugin: "p", Effects: grant.EffectsRemote, Revocable: true}, Reason: "no \xff text", Policy: []string{"base@1"},
	}
	back := stored(t, g)
	if back.Scope.Kind != "k" || back.Source != g.Source || back.Scope.Params["a"] != 7.0 || back.Reason != "no \ufffd text" || len(back.Policy) != 1 {
		t.Errorf("%+v", back)
	}
}

// stored is a grant as it comes back from its columns.
func stored(t interface{ Fatal(...any) }, g grant.Grant) grant.Grant {
	columns := g.Columns()
	var back grant.Grant
	if err := back.Scan(func(dest ...any) error {
		for i, d := range dest {
			switch d := d.(type) {
			case *string:
				*d = columns[i].(string)
			case *int64:
				*d = columns[i].(int64)
			case *[]byte:
				*d = columns[i].([]byte)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return back
}
