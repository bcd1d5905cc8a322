package pluginv1

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

var someParams = []map[string]any{
	nil,
	{},
	{"principals": []any{"deploy"}, "source_addresses": []string{"127.0.0.1/32", "::1"}, "host.serial": "18446744073709551615"},
	{"": "", "empty": []any{}, "none": []string(nil), "no list": []any(nil), "no object": map[string]any(nil), "null": nil},
	{"text": "<a&b>\u2028\x00\x1f\x7f\"\\é\xff", "\n": "name"},
	{"number": 1.5e300, "int": int64(7), "yes": true, "object": map[string]any{"a": []any{[]any{"b", nil}, map[string]any{}}}},
}

func TestEncodeParams_WritesWhatTheStandardReads(t *testing.T) {
	for _, params := range someParams {
		got, err := EncodeParams(params)
		if err != nil {
			t.Fatal(err)
		}
		if params == nil {
			params = map[string]any{}
		}
		want, err := json.Marshal(params)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(got) || !reflect.DeepEqual(unmarshal(t, got), unmarshal(t, want)) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestEncodeParams_Refuses(t *testing.T) {
	circle := map[string]any{}
	circle["circle"] = []any{circle}
	for name, params := range map[string]map[string]any{"a circle": circle, "a channel": {"c": make(chan int)}} {
		if out, err := EncodeParams(params); err == nil {
			t.Errorf("%s became %s", name, out)
		}
	}
}

func TestDecodeParams_Refuses(t *testing.T) {
	for _, text := range []string{"null", "[]", `"x"`, "{", `{"a":"b"`, `{"a":"b"}x`, `{"a":"b",}`, `{"a":["b",]}`, `{"a":["b"}`, `{"a"}`, `{"a":}`, `{,}`} {
		if got, err := DecodeParams([]byte(text)); err == nil {
			t.Errorf("%s was read as %v", text, got)
		}
	}
}

func TestPlainParams_LeavesTheRestToADecoder(t *testing.T) {
	for _, text := range []string{`{"a":"b","a":"c"}`, `{"a":1}`, `{"a":"\u0041"}`, `{"a":"é"}`, `{ "a":"b"}`, `{"a":{"b":"c"}}`, `{"a":[["b"]]}`, `{"a":null}`} {
		if got, ok := PlainParams([]byte(text)); ok {
			t.Errorf("%s was read as %v", text, got)
		}
	}
	if got, ok := PlainParams([]byte(`{"a":"b","c":["d","e"],"f":[]}`)); !ok || len(got) != 3 {
		t.Errorf("got %v", got)
	}
}

// FuzzPlainParams holds the fast way to the standard one, and what was written
// to what is read again.
func FuzzPlainParams(f *testing.F) {
	for _, params := range someParams {
		text, err := EncodeParams(params)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"a":"b","a":["c"]}`))
	f.Add([]byte(`{"` + strings.Repeat("[", 100)))
	f.Fuzz(func(t *testing.T, data []byte) {
		params, ok := PlainParams(data)
		if !ok {
			return
		}
		if want := unmarshal(t, data); !reflect.DeepEqual(params, want) {
			t.Fatalf("%s was read as %v, not %v", data, params, want)
		}
		text, err := EncodeParams(params)
		if err != nil {
			t.Fatal(err)
		}
		if again, ok := PlainParams(text); !ok || !reflect.DeepEqual(again, params) {
			t.Fatalf("%s became %s", data, text)
		}
	})
}

func unmarshal(t *testing.T, data []byte) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return v
}

func BenchmarkParams(b *testing.B) {
	text, err := EncodeParams(someParams[2])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		params, err := DecodeParams(text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := EncodeParams(params); err != nil {
			b.Fatal(err)
		}
	}
}
