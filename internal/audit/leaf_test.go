package audit_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// sample is a record of the usual size, about 400 bytes. The same number gives
// the same record in every process, which fuzzing needs.
func sample(n int) audit.Record {
	name := func(kind int) string { return fmt.Sprintf("01KAQ4S0%018d", 10*n+kind) }
	at := time.Date(2026, 11, 23, 6, 0, 0, 123456789, time.FixedZone("east", 3600)).Add(time.Duration(n) * time.Millisecond)
	return audit.Record{
		Version: 1, ID: name(0), Type: "grant.issued", At: at, Outcome: audit.Done,
		Actor:   audit.Actor{Subject: name(1), Kind: "agent", Session: name(2), Via: "rest", Address: "192.0.2.7"},
		Subject: name(1), Serial: "42", Grant: name(3),
		Reasons: []string{"policy allows ssh-user-cert"}, Policy: []string{"release@7"},
		Data: map[string]string{"kind": "ssh-user-cert", "ttl_seconds": "900"},
	}
}

func mustLeaf(tb testing.TB, r audit.Record) []byte {
	tb.Helper()
	leaf, err := r.Leaf()
	if err != nil {
		tb.Fatal(err)
	}
	return leaf
}

// record draws any valid record.
func record(t *rapid.T) audit.Record {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "\"\\\b\t\n\f\r\x00\x1f\x7f", "<&>\u2028\u2029", "\U0001f600\ufb33", "\ufffd"}))
	at := time.UnixMicro(rapid.Int64Range(0, 253402300799_000000).Draw(t, "at"))
	return audit.Record{
		Version: 1, ID: id.At(at), At: at,
		Type:    rapid.StringMatching(`[a-z][a-z0-9_-]{0,20}\.[a-z][a-z0-9_-]{0,20}`).Draw(t, "type"),
		Outcome: rapid.SampledFrom([]audit.Outcome{audit.Done, audit.Denied, audit.Failed}).Draw(t, "outcome"),
		Actor: audit.Actor{
			Kind:    rapid.SampledFrom([]string{"workload", "machine", "agent", "operator", "plugin", "system", "stranger"}).Draw(t, "kind"),
			Subject: text.Draw(t, "actor"), Session: text.Draw(t, "session"), Via: text.Draw(t, "via"), Address: text.Draw(t, "address"),
			Issuer: text.Draw(t, "issuer"), Bearer: text.Draw(t, "bearer"),
		},
		Subject: text.Draw(t, "subject"), Grant: text.Draw(t, "grant"), Target: text.Draw(t, "target"),
		Serial:  rapid.SampledFrom([]string{"", "0", "1", "18446744073709551615"}).Draw(t, "serial"),
		Reasons: rapid.SliceOfN(text, 0, 4).Draw(t, "reasons"),
		Policy:  rapid.SliceOfN(text, 0, 4).Draw(t, "policy"),
		Data:    rapid.MapOfN(text, text, 0, 20).Draw(t, "data"),
	}
}

func TestRecord_LeafIsItsCanonicalForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := record(t)
		leaf, err := r.Leaf()
		if err != nil {
			t.Fatal(err)
		}
		r.At = r.At.UTC().Truncate(time.Microsecond)
		want, err := canon.JCS(r)
		if err != nil || !bytes.Equal(leaf, want) {
			t.Fatalf("leaf %s\njcs  %s, %v", leaf, want, err)
		}
		back, err := audit.ParseLeaf(leaf)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, back, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestRecord_LeafTruncatesToMicrosecondsInUTC(t *testing.T) {
	leaf := mustLeaf(t, sample(0))
	if !bytes.Contains(leaf, []byte(`"at":"2026-11-23T05:00:00.123456Z"`)) {
		t.Fatalf("%s", leaf)
	}
}

func TestRecord_LeafRefusesAWrongMember(t *testing.T) {
	tests := map[string]func(*audit.Record){
		"version":       func(r *audit.Record) { r.Version = 2 },
		"no id":         func(r *audit.Record) { r.ID = "" },
		"foreign id":    func(r *audit.Record) { r.ID = "7" },
		"no type":       func(r *audit.Record) { r.Type = "" },
		"type, no dot":  func(r *audit.Record) { r.Type = "grant" },
		"type, no verb": func(r *audit.Record) { r.Type = "grant." },
		"type, no noun": func(r *audit.Record) { r.Type = ".issued" },
		"type, three":   func(r *audit.Record) { r.Type = "a.b.c" },
		"type, case":    func(r *audit.Record) { r.Type = "Grant.issued" },
		"type, long":    func(r *audit.Record) { r.Type = "grant." + strings.Repeat("x", 64) },
		"outcome":       func(r *audit.Record) { r.Outcome = "" },
		"actor":         func(r *audit.Record) { r.Actor.Kind = "root" },
		"no time":       func(r *audit.Record) { r.At = time.Time{} },
		"far time":      func(r *audit.Record) { r.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"serial":        func(r *audit.Record) { r.Serial = "007" },
		"utf-8":         func(r *audit.Record) { r.Target = "\xff" },
		"utf-8 in data": func(r *audit.Record) { r.Data = map[string]string{"\xff": ""} },
		"size":          func(r *audit.Record) { r.Target = strings.Repeat("x", audit.MaxLeaf) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			r := sample(1)
			spoil(&r)
			if leaf, err := r.Leaf(); !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %s, %v; want Invalid", leaf, err)
			}
		})
	}
}

// strictLeaf says what ParseLeaf must: decoded strictly, written again, equal.
func strictLeaf(leaf []byte) bool {
	var r audit.Record
	if canon.Strict(leaf, audit.MaxLeaf, 3, &r) != nil {
		return false
	}
	again, err := r.Leaf()
	return err == nil && bytes.Equal(again, leaf)
}

func FuzzParseLeaf(f *testing.F) {
	leaf := mustLeaf(f, sample(1))
	f.Add(leaf)
	f.Add(bytes.Replace(leaf, []byte("agent"), []byte("a\\u0000"), 1))
	f.Add(bytes.Replace(leaf, []byte("192.0.2.7"), []byte("\\\"\\b\\t\\n\\f\\r\\\\"), 1))
	f.Add(append(bytes.Clone(leaf), ' '))
	f.Add([]byte(`{"actor":{"kind":"system"},"at":"2026-01-01T00:00:00Z","id":"01KAQ4S0000000000000000000","outcome":"done","type":"a.b","v":1}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := audit.ParseLeaf(in)
		if (err == nil) != strictLeaf(in) {
			t.Fatalf("%q: %+v, %v; the strict decoder says %v", in, r, err, strictLeaf(in))
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatalf("%v is not Invalid", err)
		}
	})
}

func TestParseLeaf_RefusesEveryOtherFormOfTheSameRecord(t *testing.T) {
	leaf := string(mustLeaf(t, sample(1)))
	for name, in := range map[string]string{
		"space":           strings.Replace(leaf, `:`, `: `, 1),
		"newline":         leaf + "\n",
		"twice":           leaf + leaf,
		"cut":             leaf[:len(leaf)-1],
		"other order":     strings.Replace(leaf, `"outcome":"done",`, ``, 1),
		"escape":          strings.Replace(leaf, `grant.issued`, `grant.\u0069ssued`, 1),
		"slash":           strings.Replace(leaf, `192.0.2.7`, `\/`, 1),
		"capital hex":     strings.Replace(leaf, `192.0.2.7`, `\u001F`, 1),
		"empty list":      strings.Replace(leaf, `,"serial"`, `,"reasons":[],"serial"`, 1),
		"offset":          strings.Replace(leaf, `Z"`, `+00:00"`, 1),
		"nanoseconds":     strings.Replace(leaf, `Z"`, `1Z"`, 1),
		"zeros":           strings.Replace(leaf, `Z"`, `000Z"`, 1),
		"comma":           strings.Replace(leaf, `.1`, `,1`, 1),
		"another version": strings.Replace(leaf, `"v":1`, `"v":2`, 1),
		"twice a fact":    strings.Replace(leaf, `"kind":"ssh-user-cert"`, `"kind":"ssh-user-cert","kind":"ssh-user-cert"`, 1),
	} {
		if in == leaf {
			t.Errorf("%s: changes nothing", name)
		}
		if _, err := audit.ParseLeaf([]byte(in)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}

func BenchmarkRecord_Leaf(b *testing.B) {
	r := sample(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Leaf(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecord_GeneralJCS(b *testing.B) {
	r := sample(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := canon.JCS(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseLeaf(b *testing.B) {
	leaf := mustLeaf(b, sample(1))
	b.SetBytes(int64(len(leaf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := audit.ParseLeaf(leaf); err != nil {
			b.Fatal(err)
		}
	}
}
