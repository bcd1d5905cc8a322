package canon_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/canon"
)

const objectSize, objectDepth = 4096, 6

// sameObject holds Object to Lenient: both refuse with one sentence, or read the
// same.
func sameObject(t interface {
	Helper()
	Fatalf(format string, args ...any)
}, in []byte,
) {
	t.Helper()
	var want map[string]any
	wantErr := canon.Lenient(in, objectSize, objectDepth, &want)
	got, err := canon.Object(in, objectSize, objectDepth)
	if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
		t.Fatalf("%q: %v, by the decoder %v", in, err, wantErr)
	}
	if diff := cmp.Diff(want, got); err == nil && diff != "" {
		t.Fatalf("%q differs from what the decoder reads:\n%s", in, diff)
	}
}

var objects = []string{
	``, ` `, `{}`, ` { } `, `[]`, `null`, `true`, `1`, `"x"`, `{"a":1}x`, `{"a":1},`, `{"a":1}{}`, "{\"a\":1}\x00", "\x00", "{\x00}", "{\"a\":\x00}",
	`{"a":{},"b":[],"c":[{},[]]}`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`, `{"a" 1}`, `{a:1}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`,
	`{"a":[1}`, `{"a":1]`, `{"a"`, `{"a":`, `{"a`, `{"a":"x`, `{"":""}`, `{"a":1,"a":2}`, `{"a":{"b":1,"b":1}}`, `{"a":1,"\u0061":2}`, `{"\u0061":1}`,
	`{"a":0}`, `{"a":00}`, `{"a":01}`, `{"a":-0}`, `{"a":-1}`, `{"a":1.5}`, `{"a":1e3}`, `{"a":1e400}`, `{"a":1.}`, `{"a":1x}`, `{"a":+1}`,
	`{"a":999999999999999}`, `{"a":9007199254740993}`, `{"a":123456789012345678901234567890}`,
	`{"a":tru}`, `{"a":true,"b":false,"c":null}`, `{"a":truefalse}`, `{"a":nullx}`, `{"a":NaN}`, "{\"a\":\"\x1f\"}", "{\"a\":\"\xff\"}", "{\"\xff\":1}",
	`{"ä":"€😀"}`, "{\"a\":\"\x7f\"}", `{"a":"\n\"\\"}`, `{"a":"\ud800"}`, "\ufeff{}", "\v{}", "{\"a\"\t:\r\n1 }",
	`{"a":{"a":{"a":{"a":{"a":1}}}}}`, `{"a":{"a":{"a":{"a":{"a":{}}}}}}`, `{"a":[[[[[]]]]]}`, `{"a":[[[[[[]]]]]]}`, `{"a":[{},{},{},{},{},{},{}]}`,
	`{"a":"` + strings.Repeat("x", objectSize) + `"}`,
}

func TestObject_EqualsLenient(t *testing.T) {
	for _, in := range slices.Concat(objects, slices.Collect(maps.Values(refused))) {
		sameObject(t, []byte(in))
	}
	rapid.Check(t, func(t *rapid.T) { sameObject(t, drawJSON(t)) })
}

// drawJSON is JSON, or with one change nearly so.
func drawJSON(t *rapid.T) []byte {
	leaf := rapid.OneOf(
		rapid.Map(rapid.StringMatching(`[a-c"\\é]{0,3}`), func(s string) any { return s }), rapid.Map(rapid.IntRange(-3, 1<<60), func(n int) any { return n }),
		rapid.Map(rapid.Float64(), func(f float64) any { return f }), rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
	)
	value := leaf
	for range 3 {
		value = rapid.OneOf(leaf, rapid.Map(rapid.SliceOfN(value, 0, 3), func(s []any) any { return s }),
			rapid.Map(rapid.MapOfN(rapid.StringMatching(`[a-c]{0,2}`), value, 0, 3), func(m map[string]any) any { return m }))
	}
	text, err := json.Marshal(map[string]any{"a": value.Draw(t, "value")})
	if err != nil {
		t.Fatalf("%v", err)
	}
	if at := rapid.IntRange(0, 2*len(text)).Draw(t, "at"); at < len(text) {
		text[at] = rapid.SampledFrom([]byte("{}[],:\"\\ 0e.-tx\x00\xff")).Draw(t, "byte")
	}
	return text
}

func FuzzObject(f *testing.F) {
	for _, in := range slices.Concat(objects, slices.Collect(maps.Values(refused))) {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) { sameObject(t, in) })
}

func BenchmarkObject(b *testing.B) {
	claims := map[string]any{"iat": 1772366400, "submods": map[string]any{"cpu0": map[string]any{
		"ear.status": "affirming", "ear.trustworthiness-vector": map[string]any{"configuration": 2, "executables": 3, "hardware": 2, "file-system": 2},
		"evidence": map[string]any{"report_data": strings.Repeat("ab", 64), "launch_digest": strings.Repeat("cd", 48), "tee-pubkey": map[string]any{
			"kty": "EC", "crv": "P-256", "x": strings.Repeat("A", 43), "y": strings.Repeat("B", 43),
		}},
	}}}
	text, err := json.Marshal(claims)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("object", func(b *testing.B) {
		for b.Loop() {
			if _, err := canon.Object(text, objectSize, objectDepth); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lenient", func(b *testing.B) {
		for b.Loop() {
			var out map[string]any
			if err := canon.Lenient(text, objectSize, objectDepth, &out); err != nil {
				b.Fatal(err)
			}
		}
	})
}
