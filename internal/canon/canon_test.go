package canon_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestTransform_GivesTheVectorsOfRFC8785(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"section 3.2.2": {
			`{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
			  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
			  "literals": [null, true, false]}`,
			`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		},
		"section 3.2.3": {
			`{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
			  "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}`,
			"{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\"," +
				"\"€\":\"Euro Sign\",\"\U0001F600\":\"Emoji: Grinning Face\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}",
		},
		"bare values":      {" -0.0 ", "0"},
		"empty containers": {" { \"a\" : [ ] , \"A\" : { } } ", `{"A":{},"a":[]}`},
		"html is not escaped": {
			`"<&>\u2028\u2029\u007f"`, "\"<&>\u2028\u2029\x7f\"",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := canon.Transform([]byte(tt.in))
			if err != nil || string(got) != tt.want {
				t.Fatalf("got  %s, %v\nwant %s", got, err, tt.want)
			}
		})
	}
}

// The table of RFC 8785 appendix B.
func TestJCS_WritesNumbersAsAppendixB(t *testing.T) {
	tests := map[uint64]string{
		0x0000000000000000: "0",
		0x8000000000000000: "0",
		0x0000000000000001: "5e-324",
		0x8000000000000001: "-5e-324",
		0x7fefffffffffffff: "1.7976931348623157e+308",
		0xffefffffffffffff: "-1.7976931348623157e+308",
		0x4340000000000000: "9007199254740992",
		0xc340000000000000: "-9007199254740992",
		0x4430000000000000: "295147905179352830000",
		0x44b52d02c7e14af5: "9.999999999999997e+22",
		0x44b52d02c7e14af6: "1e+23",
		0x44b52d02c7e14af7: "1.0000000000000001e+23",
		0x444b1ae4d6e2ef4e: "999999999999999700000",
		0x444b1ae4d6e2ef4f: "999999999999999900000",
		0x444b1ae4d6e2ef50: "1e+21",
		0x3eb0c6f7a0b5ed8c: "9.999999999999997e-7",
		0x3eb0c6f7a0b5ed8d: "0.000001",
		0x41b3de4355555553: "333333333.3333332",
		0x41b3de4355555554: "333333333.33333325",
		0x41b3de4355555555: "333333333.3333333",
		0x41b3de4355555556: "333333333.3333334",
		0x41b3de4355555557: "333333333.33333343",
		0xbecbf647612f3696: "-0.0000033333333333333333",
		0x43143ff3c1cb0959: "1424953923781206.2",
	}
	for bits, want := range tests {
		got, err := canon.JCS(math.Float64frombits(bits))
		if err != nil || string(got) != want {
			t.Errorf("%016x: got %s, %v; want %s", bits, got, err, want)
		}
	}
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if got, err := canon.JCS(f); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: got %s, %v; want Invalid", f, got, err)
		}
	}
}

// The digest is the one that Trustee's own tests expect of runtime data.
func TestJCS_GivesTheDigestOfTrustee(t *testing.T) {
	out, err := canon.JCS(map[string]any{"b": 1, "a": "test", "c": map[string]any{"d": "e"}})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum384(out)
	const want = "e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c4597480a186427c813ca941da78870c3"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Fatalf("SHA-384 of %s is %s, want %s", out, got, want)
	}
}

func TestJCS_RefusesWhatItWouldAlter(t *testing.T) {
	tests := map[string]any{
		"integer beyond a double":  int64(1<<53 + 1),
		"unsigned 64 bits":         uint64(math.MaxUint64),
		"json.Number beyond":       json.Number("9007199254740993"),
		"out of range json.Number": json.Number("1e400"),
		"invalid UTF-8 in a value": map[string]string{"a": "\xff"},
		"invalid UTF-8 in a name":  map[string]string{"\xc3": "a"},
		"duplicate in raw JSON":    json.RawMessage(`{"a":1,"a":2}`),
		"channel":                  make(chan int),
	}
	for name, v := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := canon.JCS(v); !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %s, %v; want Invalid", got, err)
			}
		})
	}
	for _, v := range []any{int64(1) << 53, -(int64(1) << 53), 1e20, 0x1p60, "\ufffd", math.Copysign(0, -1)} {
		if _, err := canon.JCS(v); err != nil {
			t.Errorf("%v: %v", v, err)
		}
	}
}

var refused = map[string]string{
	"empty":                 ``,
	"spaces":                ` `,
	"duplicate name":        `{"a":1,"b":2,"a":3}`,
	"duplicate by escape":   `{"a":1,"\u0061":2}`,
	"nested duplicate":      `[{"x":{"a":1,"a":1}}]`,
	"unpaired surrogate":    `"\ud800"`,
	"reversed pair":         `"\ude00\ud83d"`,
	"high and plain":        `"\ud83d\u0041"`,
	"invalid UTF-8":         "\"\xff\"",
	"encoded surrogate":     "\"\xed\xa0\x80\"",
	"invalid after escape":  "\"\\n\xff\"",
	"out of range":          `1e400`,
	"out of range long":     `[` + strings.Repeat("9", 400) + `]`,
	"leading zero":          `01`,
	"lonely minus":          `-`,
	"no fraction":           `1.`,
	"no exponent":           `1e`,
	"plus":                  `+1`,
	"trailing data":         `{} {}`,
	"trailing comma":        `[1,]`,
	"trailing comma object": `{"a":1,}`,
	"leading comma":         `[,1]`,
	"unquoted name":         `{a:1}`,
	"control character":     "\"a\nb\"",
	"bad escape":            `"\x"`,
	"bad hex":               `"\u00g0"`,
	"cut escape":            `"\u00`,
	"cut string":            `"abc`,
	"cut pair":              `"\ud83d\u`,
	"byte order mark":       "\xef\xbb\xbf{}",
	"NUL":                   "\x00",
	"NaN":                   `NaN`,
	"cut literal":           `tru`,
}

func TestTransform_Refuses(t *testing.T) {
	for name, in := range refused {
		t.Run(name, func(t *testing.T) {
			if got, err := canon.Transform([]byte(in)); !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %s, %v; want Invalid", got, err)
			}
		})
	}
	deep := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	if _, err := canon.Transform(deep(canon.MaxDepth)); err != nil {
		t.Errorf("at the allowed depth: %v", err)
	}
	if _, err := canon.Transform(deep(canon.MaxDepth + 1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("one level too deep: %v, want Invalid", err)
	}
}

// tree draws any JSON value as Go has it.
func tree(depth int) *rapid.Generator[any] {
	leaf := []*rapid.Generator[any]{
		rapid.String().AsAny(), rapid.Bool().AsAny(), rapid.Just(any(nil)),
		rapid.Float64().Filter(func(f float64) bool { return !math.IsInf(f, 0) && !math.IsNaN(f) }).AsAny(),
	}
	if depth == 0 {
		return rapid.OneOf(leaf...)
	}
	return rapid.OneOf(append(leaf,
		rapid.SliceOfN(tree(depth-1), 0, 5).AsAny(),
		rapid.MapOfN(rapid.String(), tree(depth-1), 0, 6).AsAny())...)
}

func TestJCS_EqualsTheOracleAndLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := tree(3).Draw(t, "v")
		got, err := canon.JCS(v)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		want, err := jcs.Transform(plain)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("ours   %q\noracle %q", got, want)
		}
		again, err := canon.Transform(got)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("not idempotent: %q, %v", again, err)
		}
	})
}

func FuzzTransform(f *testing.F) {
	for _, in := range refused {
		f.Add([]byte(in))
	}
	f.Add([]byte(`{"\u20ac":[1E30,4.50,-0,1e-7,123456789012345678901234],"\r":"\ud83d\ude00","\ufb33":{}}`))
	f.Add([]byte(` [ null , true , false , "\b\f\n\r\t\/\\\"\u001f" ] `))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := canon.Transform(in)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%q: %v is not Invalid", in, err)
			}
			return
		}
		if !json.Valid(in) || !json.Valid(got) {
			t.Fatalf("%q became %q: not both valid", in, got)
		}
		if want, err := jcs.Transform(in); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q\nours   %q\noracle %q, %v", in, got, want, err)
		}
		if again, err := canon.Transform(got); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("not idempotent: %q, %v", again, err)
		}
	})
}

// What the oracle accepts, and is shallow enough, we must accept too.
func FuzzTransform_AcceptsWhatTheOracleAccepts(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.5e3,"\u00e9",null]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.Count(in, []byte("["))+bytes.Count(in, []byte("{")) > canon.MaxDepth {
			return
		}
		if _, err := jcs.Transform(in); err != nil {
			return
		}
		if _, err := canon.Transform(in); err != nil {
			t.Fatalf("%q: %v", in, err)
		}
	})
}

func TestAppendString_EqualsJCS(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "s")
		want, wantErr := canon.JCS(s)
		got, err := canon.AppendString(nil, s)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%q: got %q, %v; want %q, %v", s, got, err, want, wantErr)
		}
	})
}

func BenchmarkTransform(b *testing.B) {
	in := []byte(`{"v":1,"type":"grant.issued","numbers":[1,2.5,3e10],"text":"` + strings.Repeat("x", 200) + `","n":` + strconv.Itoa(1<<40) + `}`)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := canon.Transform(in); err != nil {
			b.Fatal(err)
		}
	}
}
