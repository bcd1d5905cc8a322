package keys_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
)

func TestRing_Rotate(t *testing.T) {
	c := &clock{start}
	v, _, err := keys.Create(t.Context(), keys.Config{KEK: newKEK(t), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	first, err := v.Generate(t.Context(), keys.Token, keys.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	ring := func(rows ...keys.Key) *keys.Ring {
		t.Helper()
		r, err := keys.NewRing(keys.Token, rows)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	life := 15 * time.Minute
	r := ring(first)
	if r.Due(start.Add(29*24*time.Hour), 30*24*time.Hour) || !r.Due(start.Add(30*24*time.Hour), 30*24*time.Hour) {
		t.Error("not due exactly after its period")
	}
	c.at = start.Add(30 * 24 * time.Hour)
	turn, err := v.Rotate(t.Context(), r, keys.Ed25519, life)
	if err != nil {
		t.Fatal(err)
	}
	if len(turn.Changed) != 1 || turn.Changed[0].State != keys.Retiring {
		t.Fatalf("changed %v", turn.Changed)
	}
	r = ring(turn.Changed[0], turn.Fresh)
	signing, err := r.Signing(c.at)
	if err != nil || signing.ID != turn.Fresh.ID {
		t.Fatalf("signs with %s, %v", signing.ID, err)
	}
	for _, step := range []struct {
		after time.Duration
		good  bool
	}{{0, true}, {2*life - time.Microsecond, true}, {2 * life, false}} {
		if _, ok := r.Lookup(first.ID, c.at.Add(step.after)); ok != step.good {
			t.Errorf("the old key verifies after %s: %t", step.after, ok)
		}
	}
	signers, err := v.Signers(t.Context(), r, c.at)
	if err != nil || len(signers) != 2 {
		t.Fatalf("%d signers, %v", len(signers), err)
	}
	c.at = c.at.Add(30 * 24 * time.Hour)
	again, err := v.Rotate(t.Context(), r, keys.Ed25519, life)
	if err != nil {
		t.Fatal(err)
	}
	states := map[keys.State]int{}
	for _, k := range again.Changed {
		states[k.State]++
	}
	if states[keys.Retired] != 1 || states[keys.Retiring] != 1 {
		t.Errorf("after two turns: %v", states)
	}
}

func TestRing_Signing_refusesWithoutActiveKey(t *testing.T) {
	v, _, _ := newVault(t)
	k, err := v.Generate(t.Context(), keys.Token, keys.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	k.NotAfter = start.Add(time.Hour)
	r, err := keys.NewRing(keys.Token, []keys.Key{k})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Signing(start.Add(time.Hour)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := keys.NewRing(keys.EAR, []keys.Key{k}); !fault.Is(err, fault.Internal) {
		t.Errorf("a ring without keys: %v", err)
	}
	k.Purpose = "other"
	if err := k.Validate(); !fault.Is(err, fault.Internal) {
		t.Errorf("an unknown purpose: %v", err)
	}
}

func TestVault_Rotate_refuses(t *testing.T) {
	v, root, _ := newVault(t)
	token, err := v.Generate(t.Context(), keys.Token, keys.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	pepper, err := v.Generate(t.Context(), keys.Pepper, keys.Random256)
	if err != nil {
		t.Fatal(err)
	}
	ring := func(k keys.Key) *keys.Ring {
		t.Helper()
		r, err := keys.NewRing(k.Purpose, []keys.Key{k})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, err := v.Rotate(t.Context(), ring(root), keys.Random256, time.Hour); err == nil {
		t.Error("turned a root, whose values would not open")
	}
	if _, err := v.Rotate(t.Context(), ring(token), keys.Ed25519, 0); err == nil {
		t.Error("turned tokens without a life")
	}
	if _, err := v.Turn(t.Context(), ring(token), pepper, time.Hour); err == nil {
		t.Error("turned tokens to a pepper")
	}
}

// TestRing_Rotate_neverStrandsWhatIsGood walks random rotations: whatever a
// ring signed verifies until the end of its life.
func TestRing_Rotate_neverStrandsWhatIsGood(t *testing.T) {
	kek := newKEK(t)
	rapid.Check(t, func(t *rapid.T) {
		c := &clock{start}
		ctx := t.Context()
		lead := time.Duration(rapid.IntRange(0, 90).Draw(t, "lead")) * time.Minute
		v, _, err := keys.Create(ctx, keys.Config{KEK: kek, Now: c.now, Lead: lead})
		if err != nil {
			t.Fatal(err)
		}
		k, err := v.Generate(ctx, keys.Token, keys.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		rows := map[string]keys.Key{k.ID: k}
		life := time.Hour
		type signed struct {
			key string
			end time.Time
		}
		var all []signed
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			c.at = c.at.Add(time.Duration(rapid.IntRange(0, 150).Draw(t, "minutes")) * time.Minute)
			list := make([]keys.Key, 0, len(rows))
			for _, k := range rows {
				list = append(list, k)
			}
			r, err := keys.NewRing(keys.Token, list)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				if _, ok := r.Lookup(s.key, c.at); c.at.Before(s.end) && !ok {
					t.Fatalf("a token that ends at %s does not verify at %s", s.end, c.at)
				}
			}
			if rapid.Bool().Draw(t, "rotate") {
				turn, err := v.Rotate(ctx, r, keys.Ed25519, life)
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range append(turn.Changed, turn.Fresh) {
					rows[k.ID] = k
				}
				continue
			}
			by, err := r.Signing(c.at)
			if err != nil {
				t.Fatal(err)
			}
			if !by.Begun(c.at) || by.ID != k.ID && c.at.Sub(by.Created) < lead {
				t.Fatalf("key %s, made at %s, signs at %s with a lead of %s", by.ID, by.Created, c.at, lead)
			}
			all = append(all, signed{by.ID, c.at.Add(life)})
		}
	})
}

// TestRing_Announces turns a ring with a lead: the fresh key is known at once and
// signs when its time has come, on every replica without another row.
func TestRing_Announces(t *testing.T) {
	c := &clock{start}
	v, _, err := keys.Create(t.Context(), keys.Config{KEK: newKEK(t), Now: c.now, Lead: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	first, err := v.Generate(t.Context(), keys.Token, keys.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	rows := []keys.Key{first}
	turn := func() keys.Key {
		t.Helper()
		r, err := keys.NewRing(keys.Token, rows)
		if err != nil {
			t.Fatal(err)
		}
		made, err := v.Rotate(t.Context(), r, keys.Ed25519, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range made.Changed {
			for i := range rows {
				if rows[i].ID == k.ID {
					rows[i] = k
				}
			}
		}
		rows = append(rows, made.Fresh)
		return made.Fresh
	}
	signs := func(after time.Duration) string {
		t.Helper()
		r, err := keys.NewRing(keys.Token, rows)
		if err != nil {
			t.Fatal(err)
		}
		k, err := r.Signing(start.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		if r.Due(start.Add(after), time.Hour) {
			t.Error("due again while the fresh key is announced")
		}
		return k.ID
	}
	second := turn()
	c.at = start.Add(5 * time.Second)
	third := turn() // before the second has begun
	r, err := keys.NewRing(keys.Token, rows)
	if err != nil {
		t.Fatal(err)
	}
	if at := r.Changes(start); !at.Equal(start.Add(10 * time.Second)) {
		t.Errorf("the ring changes at %s", at)
	}
	if k, err := r.Newest(start); err != nil || k.ID != third.ID {
		t.Errorf("the newest is %s, %v", k.ID, err)
	}
	for after, want := range map[time.Duration]string{
		0: first.ID, 9 * time.Second: first.ID, 10 * time.Second: second.ID, 14 * time.Second: second.ID, 15 * time.Second: third.ID, time.Minute: third.ID,
	} {
		if got := signs(after); got != want {
			t.Errorf("after %s %s signs, want %s", after, got, want)
		}
	}
	for _, k := range []keys.Key{first, second, third} {
		if _, ok := r.Lookup(k.ID, start.Add(10*time.Second+119*time.Second)); !ok {
			t.Errorf("%s does not verify for two lives from when its successor signs", k.ID)
		}
	}
	if _, ok := r.Lookup(first.ID, start.Add(10*time.Second+2*time.Minute)); ok {
		t.Error("the first key verifies beyond two lives")
	}
}

func TestRing_Turn_holdsSoManyKeys(t *testing.T) {
	c := &clock{start}
	v, _, err := keys.Create(t.Context(), keys.Config{KEK: newKEK(t), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	k, err := v.Generate(t.Context(), keys.Token, keys.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]keys.Key{k.ID: k}
	for n := 0; ; n++ {
		var list []keys.Key
		for _, k := range rows {
			list = append(list, k)
		}
		r, err := keys.NewRing(keys.Token, list)
		if err != nil {
			t.Fatal(err)
		}
		turn, err := v.Rotate(t.Context(), r, keys.Ed25519, time.Hour)
		if fault.Is(err, fault.Exhausted) && n == 30 {
			return
		}
		if err != nil || n > 30 {
			t.Fatalf("turn %d: %v", n, err)
		}
		for _, k := range append(turn.Changed, turn.Fresh) {
			rows[k.ID] = k
		}
	}
}
