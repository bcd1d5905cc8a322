package flow

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// TestKeyedCall_TextComesBack reads by reflection what was written without.
func TestKeyedCall_TextComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "+", "=", "<&>\u2028\x00\x7f\n\"\\"}))
		value := rapid.OneOf(rapid.SliceOf(rapid.Byte()), rapid.Map(text, func(s string) []byte { return []byte(s) }), rapid.Just([]byte{0xff}))
		out := Vended{
			Grant: text.Draw(t, "grant"), Kind: text.Draw(t, "kind"),
			Value: secret.New(value.Draw(t, "value")), Private: secret.New(value.Draw(t, "private")),
			IssuedAt: time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "issued")).UTC(), ExpiresAt: time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "expires")).UTC(),
		}
		if rapid.Bool().Draw(t, "odd") {
			out.Anomalies = []grant.Anomaly{{Level: grant.Alert, Code: text.Draw(t, "code"), Message: text.Draw(t, "message")}}
		}
		k := newKeyedCall(&Key{Text: "key"}, "grant.issued", "s", "", vendedAnswer{&out}, []string{text.Draw(t, "request")})
		u := unit.Unit{Record: audit.Record{
			ID: text.Draw(t, "record"), Subject: text.Draw(t, "subject"), Grant: text.Draw(t, "named"), Target: text.Draw(t, "target"),
		}}
		data, err := k.text(u)
		if err != nil {
			t.Fatal(err)
		}
		var got firstCall[json.RawMessage]
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		var back Vended
		if err := (vendedAnswer{&back}).recall(got.Answer); err != nil {
			t.Fatalf("%s: %v", got.Answer, err)
		}
		reveal := cmp.Transformer("reveal", func(b secret.Bytes) string { return string(b.Reveal()) })
		if d := cmp.Diff(out, back, reveal, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("answer: %s", d)
		}
		got.Answer = nil
		want := firstCall[json.RawMessage]{
			Request: k.request, Record: u.Record.ID, Subject: u.Record.Subject, Grant: u.Record.Grant, Target: u.Record.Target,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("call: %s", d)
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
