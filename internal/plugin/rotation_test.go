package plugin

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// statement makes and signs a rotation.
func statement(t testing.TB, r Rotation, by ...signer) []byte {
	t.Helper()
	file, err := NewRotation(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range by {
		if file, err = SignRotation(file, s.private); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func keysOf(list ...signer) []RotationKey {
	var out []RotationKey
	for _, s := range list {
		out = append(out, RotationKey{Public: s.row.Public})
	}
	return out
}

// known is what a server knows of publishers.
type known struct {
	p    Publisher
	keys []Key
}

// take applies a statement like a server.
func (k *known) take(file []byte) error {
	r, err := k.p.Rotate(file, k.keys, "op", today)
	if err != nil {
		return err
	}
	k.p = r.Publisher
	k.keys = append(k.keys, r.Added...)
	for _, e := range r.Ended {
		for i := range k.keys {
			if k.keys[i].ID == e.ID {
				k.keys[i] = e
			}
		}
	}
	return nil
}

func (k *known) state(s signer) RowState {
	for _, row := range k.keys {
		if row.ID == s.row.ID {
			return row.State
		}
	}
	return ""
}

func acme(threshold int, keys ...signer) *known {
	k := &known{p: Publisher{Name: "tester", Version: 1, Threshold: threshold}}
	for _, s := range keys {
		k.keys = append(k.keys, s.row)
	}
	return k
}

func TestRotation_ReplacesAKey(t *testing.T) {
	a, b, c := newSigner(t, "tester", "aws-*"), newSigner(t, "tester", "aws-*"), newSigner(t, "tester")
	k := acme(2, a, b)
	end := today.AddDate(1, 0, 0)
	file := statement(t, Rotation{Publisher: "tester", Serial: 1, Keys: []RotationKey{{Public: a.row.Public}, {Public: c.row.Public, Expires: &end}}}, a, b, c)
	if err := k.take(file); err != nil {
		t.Fatal(err)
	}
	if k.state(a) != Active || k.state(b) != Retired || k.state(c) != Active {
		t.Errorf("%s, %s, %s", k.state(a), k.state(b), k.state(c))
	}
	fresh := k.keys[2]
	if !slices.Equal(fresh.Names, []string{"aws-*"}) || !fresh.Expires.Equal(end) || fresh.Version != 1 {
		t.Errorf("the new key: %+v", fresh)
	}
	if err := k.take(file); !fault.Is(err, fault.Conflict) {
		t.Errorf("once more: %v", err)
	}
}

// TestRotation_TakesNoMoreThanItsSignersHave: a key that the operator has limited
// to some names ends itself and its like, and nobody else.
func TestRotation_TakesNoMoreThanItsSignersHave(t *testing.T) {
	all, other, aws, kms, thief := newSigner(t, "tester"), newSigner(t, "tester", "gcp-*"), newSigner(t, "tester", "aws-*"),
		newSigner(t, "tester", "aws-kms"), newSigner(t, "tester")
	for name, c := range map[string]struct {
		keep      []signer
		threshold int
		revoked   []string
		by        signer
		ok        bool
	}{
		"retires all others":               {keep: []signer{aws, thief}, by: aws},
		"retires a key of other names":     {keep: []signer{all, aws, kms}, by: aws},
		"revokes a wider key":              {keep: []signer{other, aws, kms}, revoked: []string{all.row.ID}, by: aws},
		"raises what others must sign":     {keep: []signer{all, other, aws, kms}, threshold: 2, by: aws},
		"retires a key within its names":   {keep: []signer{all, other, aws}, by: aws, ok: true},
		"retires a key beside its names":   {keep: []signer{all, other, kms}, by: kms},
		"retires itself":                   {keep: []signer{all, other, kms}, by: aws, ok: true},
		"the key of all names ends others": {keep: []signer{all}, by: all, ok: true},
		"the key of all names raises":      {keep: []signer{all, other, aws, kms}, threshold: 2, by: all, ok: true},
	} {
		k := acme(1, all, other, aws, kms)
		by := []signer{c.by}
		if slices.ContainsFunc(c.keep, func(s signer) bool { return s.row.ID == thief.row.ID }) {
			by = append(by, thief)
		}
		err := k.take(statement(t, Rotation{Publisher: "tester", Serial: 1, Keys: keysOf(c.keep...), Threshold: c.threshold, Revoked: c.revoked}, by...))
		if c.ok != (err == nil) || err != nil && ReasonOf(err) != ReasonBadSignature {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRotation_KeepsTheOperatorsDay introduces keys by keys that the operator
// wants to be asked about again: a statement takes that day away only if enough
// signers are trusted for longer.
func TestRotation_KeepsTheOperatorsDay(t *testing.T) {
	soon, later := today.AddDate(0, 1, 0), today.AddDate(0, 6, 0)
	until := func(end time.Time) signer {
		s := newSigner(t, "tester")
		s.row.Expires = end
		return s
	}
	a, b, ever := until(soon), until(later), until(time.Time{})
	for name, x := range map[string]struct {
		by        []signer
		asks, end time.Time
	}{
		"for ever":                     {[]signer{a, b}, time.Time{}, soon},
		"for longer":                   {[]signer{a, b}, later, soon},
		"for less":                     {[]signer{a, b}, today.AddDate(0, 0, 1), today.AddDate(0, 0, 1)},
		"by two of three":              {[]signer{a, b, ever}, time.Time{}, later},
		"two of whom have no such day": {[]signer{a, ever, until(time.Time{})}, time.Time{}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			fresh := newSigner(t, "tester")
			key := RotationKey{Public: fresh.row.Public}
			if !x.asks.IsZero() {
				key.Expires = &x.asks
			}
			k := acme(2, x.by...)
			if err := k.take(statement(t, Rotation{Publisher: "tester", Serial: 1, Keys: append(keysOf(x.by...), key)}, append(x.by, fresh)...)); err != nil {
				t.Fatal(err)
			}
			if got := k.keys[len(x.by)].Expires; !got.Equal(x.end) {
				t.Errorf("the new key counts until %v, not %v", got, x.end)
			}
		})
	}
}

// TestRotation_TwiceWhileTheServerWasOff applies two statements of which the
// server has missed the first; the second alone is signed by keys that it does
// not know.
func TestRotation_TwiceWhileTheServerWasOff(t *testing.T) {
	a, b, c := newSigner(t, "tester"), newSigner(t, "tester"), newSigner(t, "tester")
	one := statement(t, Rotation{Publisher: "tester", Serial: 1, Keys: keysOf(b)}, a, b)
	two := statement(t, Rotation{Publisher: "tester", Serial: 2, Keys: keysOf(c), Revoked: []string{b.row.ID}}, b, c)
	k := acme(1, a)
	if err := k.take(two); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("the second without the first: %v", err)
	}
	for _, file := range [][]byte{one, two} {
		if err := k.take(file); err != nil {
			t.Fatal(err)
		}
	}
	if k.state(a) != Retired || k.state(b) != Revoked || k.state(c) != Active || k.p.Serial != 2 {
		t.Errorf("%s, %s, %s, serial %d", k.state(a), k.state(b), k.state(c), k.p.Serial)
	}
	if err := k.take(one); ReasonOf(err) != ReasonRollback {
		t.Errorf("the first once more: %v", err)
	}
	back := statement(t, Rotation{Publisher: "tester", Serial: 3, Keys: keysOf(b, c)}, b, c)
	if err := k.take(back); err != nil || k.state(b) != Revoked {
		t.Errorf("a revoked key comes back: %v, %s", err, k.state(b))
	}
}

// TestRotation_RefusesWhatIsNotTheirs is every statement that must not count.
func TestRotation_RefusesWhatIsNotTheirs(t *testing.T) {
	a, b, narrow, c := newSigner(t, "tester"), newSigner(t, "tester"), newSigner(t, "tester", "aws-*"), newSigner(t, "tester")
	stranger := newSigner(t, "another")
	gone, late := newSigner(t, "tester"), newSigner(t, "tester")
	gone.row.State, late.row.Expires = Revoked, today
	to := func(keys ...signer) Rotation { return Rotation{Publisher: "tester", Serial: 5, Keys: keysOf(keys...)} }
	for name, x := range map[string]struct {
		k      *known
		file   []byte
		reason Reason
		kind   fault.Kind
	}{
		"signed by one of two":             {acme(2, a, b), statement(t, to(a, b, c), a, c), ReasonBadSignature, fault.Denied},
		"signed by one key twice":          {acme(2, a, b), statement(t, to(a, b, c), a, a, c), ReasonBadSignature, fault.Denied},
		"signed by the new key alone":      {acme(1, a), statement(t, to(c), c), ReasonBadSignature, fault.Denied},
		"not signed by the new key":        {acme(1, a), statement(t, to(a, c), a), ReasonBadSignature, fault.Denied},
		"signed by another's key":          {acme(1, a, stranger), statement(t, to(c), stranger, c), ReasonBadSignature, fault.Denied},
		"signed by a revoked key":          {acme(1, a, gone), statement(t, to(c), gone, c), ReasonRevoked, fault.Denied},
		"signed by an expired key":         {acme(1, late), statement(t, to(c), late, c), ReasonStale, fault.Denied},
		"signed by a key for executables":  {acme(1, signer{a.private, a.with(func(k *Key) { k.Use = UseAgentKMS })}), statement(t, to(c), a, c), ReasonBadSignature, fault.Denied},
		"of another publisher":             {acme(1, a), statement(t, Rotation{Publisher: "another", Serial: 5, Keys: keysOf(c)}, a, c), "", fault.Invalid},
		"takes another's key":              {acme(1, a, stranger), statement(t, to(a, stranger), a, stranger), "", fault.Conflict},
		"widens what may be signed":        {acme(1, narrow), statement(t, Rotation{Publisher: "tester", Serial: 5, Keys: []RotationKey{{Public: c.row.Public, Names: []string{"*"}}}}, narrow, c), "", fault.Denied},
		"leaves fewer keys than must sign": {acme(2, a, b), statement(t, to(a), a, b), "", fault.Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			before := *x.k
			err := x.k.take(x.file)
			if !fault.Is(err, x.kind) || x.reason != "" && ReasonOf(err) != x.reason {
				t.Fatalf("%v", err)
			}
			if x.k.p != before.p || len(x.k.keys) != len(before.keys) {
				t.Error("something was changed")
			}
		})
	}
	// Narrow and wide signers together give what both may sign.
	k := acme(2, a, narrow)
	if err := k.take(statement(t, to(a, narrow, c), a, narrow, c)); err != nil || !slices.Equal(k.keys[2].Names, []string{"aws-*"}) {
		t.Errorf("%v, %v", err, k.keys)
	}
	// The threshold never goes down, and may go up.
	if err := k.take(statement(t, Rotation{Publisher: "tester", Serial: 6, Threshold: 1, Keys: keysOf(a, narrow, c)}, a, c)); err != nil || k.p.Threshold != 2 {
		t.Errorf("%v, threshold %d", err, k.p.Threshold)
	}
	if err := k.take(statement(t, Rotation{Publisher: "tester", Serial: 7, Threshold: 3, Keys: keysOf(a, narrow, c)}, a, c)); err != nil || k.p.Threshold != 3 {
		t.Errorf("%v, threshold %d", err, k.p.Threshold)
	}
}

func TestRotation_NoticesEveryFlippedByte(t *testing.T) {
	a, b := newSigner(t, "tester"), newSigner(t, "tester")
	file := statement(t, Rotation{Publisher: "tester", Serial: 1, Keys: keysOf(b)}, a, b)
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1
		k := acme(1, a)
		if err := k.take(bad); err == nil && !bytes.ContainsAny(file[i:i+1], " \n") {
			t.Fatalf("byte %d, %q, is not noticed", i, file[i])
		}
	}
}

// TestPublisher_DemandsWhatItCanGive sets thresholds.
func TestPublisher_DemandsWhatItCanGive(t *testing.T) {
	a, b, old := newSigner(t, "tester"), newSigner(t, "tester"), newSigner(t, "tester")
	old.row.State = Retired
	bare := newSigner(t, "tester")
	bare.row.Use = UseAgentKMS
	k := acme(1, a, b, old, bare)
	for n, kind := range map[int]fault.Kind{0: fault.Invalid, maxThreshold + 1: fault.Invalid, 3: fault.Conflict, 1: fault.Conflict} {
		if _, err := k.p.Demand(n, k.keys, "op", today); !fault.Is(err, kind) {
			t.Errorf("%d: %v", n, err)
		}
	}
	if p, err := k.p.Demand(2, k.keys, "op", today); err != nil || p.Threshold != 2 || p.Version != 2 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestFloor_OnlyRises(t *testing.T) {
	first, err := RaiseFloor(nil, "x", "1.2.0", ByOperator, false, "op", today)
	if err != nil || first.Version != 1 {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		lowest string
		lower  bool
		kind   fault.Kind
	}{
		"the same":        {"1.2.0", true, fault.Conflict},
		"lower":           {"1.1.9", false, fault.Conflict},
		"a prerelease":    {"1.2.0-rc.1", false, fault.Conflict},
		"no version":      {"1.2", false, fault.Invalid},
		"not even a name": {"", false, fault.Invalid},
	} {
		if _, err := RaiseFloor(&first, "x", c.lowest, ByOperator, c.lower, "op", today); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f, err := RaiseFloor(&first, "x", "1.1.0", ByOperator, true, "op", today); err != nil || f.Version != 2 {
		t.Errorf("lower, as it was meant: %+v, %v", f, err)
	}
}

func FuzzRotation(f *testing.F) {
	a, b := newSigner(f, "tester"), newSigner(f, "tester")
	end := today.AddDate(1, 0, 0)
	f.Add(statement(f, Rotation{Publisher: "tester", Serial: 1, Keys: []RotationKey{{Public: b.row.Public, Expires: &end}}}, a, b))
	f.Add([]byte(`{"payloadType":"` + RotationType + `","payload":"e30=","signatures":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k := acme(1, a)
		if err := k.take(data); err == nil && k.state(b) != Active {
			t.Fatal("another statement than the one that was signed")
		}
		if r, _, err := ReadRotation(data); err == nil && (r.Serial < 1 || len(r.Keys) == 0 || r.Publisher == "") {
			t.Fatalf("%+v", r)
		}
	})
}
