package flow

import (
	"bytes"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

func TestKeptText_ComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.OneOf(
			rapid.SliceOf(rapid.Byte()),
			rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }),
			rapid.SampledFrom([][]byte{nil, []byte("+"), []byte("="), []byte("<&>\u2028\x00\x7f\n\"\\"), {0xff}}),
		).Draw(t, "bytes")
		data, err := json.Marshal(struct{ Value keptText }{want})
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Value keptText }
		if err := json.Unmarshal(data, &got); err != nil || !bytes.Equal(got.Value, want) {
			t.Fatalf("%q came back as %q by %s: %v", want, got.Value, data, err)
		}
	})
}

func TestKeptText_RefusesWhatItDidNotWrite(t *testing.T) {
	for _, data := range []string{`""`, `"text"`, `"+%"`, `7`, `{}`} {
		var got keptText
		if err := json.Unmarshal([]byte(data), &got); err == nil {
			t.Errorf("%s is read as %q", data, got)
		}
	}
}
