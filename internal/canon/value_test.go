package canon_test

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// values are JSON values as a decoder gives them.
func values(depth int) *rapid.Generator[any] {
	all := []*rapid.Generator[any]{
		rapid.SampledFrom([]any{nil, []any(nil), map[string]any(nil), []any{}, map[string]any{}}),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Map(rapid.Int32(), func(n int32) any { return float64(n) }),
	}
	if depth > 0 {
		all = append(all,
			rapid.Map(rapid.SliceOfN(values(depth-1), 0, 4), func(l []any) any { return l }),
			rapid.Map(rapid.MapOfN(rapid.String(), values(depth-1), 0, 12), func(m map[string]any) any { return m }))
	}
	return rapid.OneOf(all...)
}

func TestAppendValue_isJCS(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := values(3).Draw(t, "value")
		want, err := canon.JCS(v)
		if err != nil {
			t.Skip("has an integer that JCS wants as a string")
		}
		got, err := canon.AppendValue([]byte("x"), v)
		if err != nil || string(got) != "x"+string(want) {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	})
}

// TestAppendValue_readsBack: every value comes out of its form again, large
// numbers too.
func TestAppendValue_readsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, err := canon.AppendValue(nil, values(3).Draw(t, "value"))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := canon.Transform(b); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q is not canonical: %q, %v", b, again, err)
		}
	})
}

func TestAppendValue_refuses(t *testing.T) {
	deep := any("x")
	for range canon.MaxDepth + 1 {
		deep = []any{deep}
	}
	for name, v := range map[string]any{
		"no number":     math.NaN(),
		"infinity":      map[string]any{"a": []any{math.Inf(-1)}},
		"bad text":      "\xff",
		"a bad name":    map[string]any{"\xff": true},
		"another type":  []any{[]string{"a"}},
		"an integer":    1,
		"too deep":      deep,
		"a nil pointer": (*int)(nil),
	} {
		if _, err := canon.AppendValue(nil, v); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkAppendValue(b *testing.B) {
	v := map[string]any{"principals": []any{"deploy"}, "source_addresses": []any{"127.0.0.1/32"}, "extensions": []any{"permit-pty"}}
	b.Run("JCS", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := canon.JCS(v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AppendValue", func(b *testing.B) {
		b.ReportAllocs()
		buffer := make([]byte, 0, 256)
		for b.Loop() {
			if _, err := canon.AppendValue(buffer, v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
