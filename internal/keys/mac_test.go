package keys_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/secret"
)

func newMAC(t testing.TB) (*keys.MAC, *keys.Vault, keys.Key) {
	t.Helper()
	v, _, _ := newVault(t)
	k, err := v.Generate(t.Context(), keys.RowMAC, keys.Random256)
	if err != nil {
		t.Fatal(err)
	}
	return macOf(t, v, k), v, k
}

func macOf(t testing.TB, v *keys.Vault, rows ...keys.Key) *keys.MAC {
	t.Helper()
	ring, err := keys.NewRing(keys.RowMAC, rows)
	if err != nil {
		t.Fatal(err)
	}
	m, err := keys.NewMAC(t.Context(), v, ring)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMAC_Check(t *testing.T) {
	m, v, k := newMAC(t)
	row := []any{"01ID", int64(7), "active", []byte{1, 2}, nil, int64(-1)}
	sum := m.Sum("grants", row)
	if len(sum) != keys.MACLength {
		t.Fatalf("a MAC of %d bytes", len(sum))
	}
	if err := m.Check("grants", row, sum); err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string][]any{
		"another id":            {"01IE", int64(7), "active", []byte{1, 2}, nil, int64(-1)},
		"another version":       {"01ID", int64(8), "active", []byte{1, 2}, nil, int64(-1)},
		"moved border":          {"01ID", int64(7), "activ", []byte{'e', 1, 2}, nil, int64(-1)},
		"text for bytes":        {"01ID", int64(7), "active", "\x01\x02", nil, int64(-1)},
		"empty for nil":         {"01ID", int64(7), "active", []byte{1, 2}, "", int64(-1)},
		"swapped columns":       {"01ID", int64(7), []byte{1, 2}, "active", nil, int64(-1)},
		"a column less":         {"01ID", int64(7), "active", []byte{1, 2}, nil},
		"a column more":         {"01ID", int64(7), "active", []byte{1, 2}, nil, int64(-1), nil},
		"a column it cannot do": {"01ID", 7, "active", []byte{1, 2}, nil, int64(-1)},
		"nothing":               nil,
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			if err := m.Check("grants", other, sum); !fault.Is(err, fault.Internal) {
				t.Fatalf("got %v", err)
			}
		})
	}
	t.Run("names table and row", func(t *testing.T) {
		wantInternal(t, m.Check("subjects", row, sum), "row 01ID of subjects")
		wantInternal(t, m.Check("grants", row, nil), "row 01ID of grants")
		wantInternal(t, m.Check("grants", []any{strings.Repeat("x", 999)}, sum), "of grants")
	})
	t.Run("a type that no column has makes no MAC", func(t *testing.T) {
		if m.Sum("grants", []any{1.5}) != nil || m.Check("grants", []any{1.5}, m.Sum("grants", []any{1.5})) == nil {
			t.Fatal("accepted")
		}
	})
	t.Run("refuses each flipped bit", func(t *testing.T) {
		for bit := range 8 * len(sum) {
			mutant := bytes.Clone(sum)
			mutant[bit/8] ^= 1 << (bit % 8)
			if m.Check("grants", row, mutant) == nil {
				t.Fatalf("bit %d", bit)
			}
		}
	})
	t.Run("an old key still checks", func(t *testing.T) {
		ring, err := keys.NewRing(keys.RowMAC, []keys.Key{k})
		if err != nil {
			t.Fatal(err)
		}
		turn, err := v.Rotate(t.Context(), ring, keys.Random256, 1000*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		both := macOf(t, v, turn.Changed[0], turn.Fresh)
		if err := both.Check("grants", row, sum); err != nil {
			t.Fatal(err)
		}
		if fresh := both.Sum("grants", row); bytes.Equal(fresh, sum) || m.Check("grants", row, fresh) == nil {
			t.Fatal("the new key does not write")
		}
	})
	t.Run("is safe for concurrent use", func(t *testing.T) {
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for range 500 {
					if err := m.Check("grants", row, m.Sum("grants", row)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
	})
}

// TestMAC_Sum_tellsRowsApart draws two rows; equal MACs mean equal rows.
func TestMAC_Sum_tellsRowsApart(t *testing.T) {
	m, _, _ := newMAC(t)
	column := rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Map(rapid.Int64Range(-2, 2), func(v int64) any { return v }),
		rapid.Map(rapid.StringMatching(`[ab\x00]{0,3}`), func(v string) any { return v }),
		rapid.Map(rapid.StringMatching(`[ab\x00]{0,3}`), func(v string) any { return []byte(v) }),
	)
	rows := rapid.SliceOfN(column, 0, 4)
	same := func(a, b []any) bool {
		if len(a) != len(b) {
			return false
		}
		for i := range a {
			x, isBytes := a[i].([]byte)
			y, both := b[i].([]byte)
			if isBytes != both || (isBytes && !bytes.Equal(x, y)) || (!isBytes && a[i] != b[i]) {
				return false
			}
		}
		return true
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rows.Draw(t, "a"), rows.Draw(t, "b")
		if bytes.Equal(m.Sum("t", a), m.Sum("t", b)) != same(a, b) {
			t.Fatalf("%v and %v", a, b)
		}
	})
}

func BenchmarkMAC_Sum(b *testing.B) {
	m, _, _ := newMAC(b)
	row := []any{"01JD3Y6Z8K4T5N0QH2W7VXR9BM", int64(3), "agent", "attested", "developer", "build-7", "core", "{}", "", int64(1_700_000_000_000_000)}
	b.ReportAllocs()
	for b.Loop() {
		m.Sum("subjects", row)
	}
}

func BenchmarkMAC_Check(b *testing.B) {
	m, _, _ := newMAC(b)
	row := []any{"01JD3Y6Z8K4T5N0QH2W7VXR9BM", int64(3), "agent", "attested", "developer", "build-7", "core", "{}", "", int64(1_700_000_000_000_000)}
	sum := m.Sum("subjects", row)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Check("subjects", row, sum); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVault_Seal(b *testing.B) {
	v, _, _ := newVault(b)
	value := secret.FromString("a token of the usual length, some forty bytes")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Seal("grants", "01JD3Y6Z8K4T5N0QH2W7VXR9BM", 1, value); err != nil {
			b.Fatal(err)
		}
	}
}
