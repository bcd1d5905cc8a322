package reference_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
)

var now = time.UnixMicro(1_780_000_000_000_000).UTC()

func found(data string, from time.Time) reference.Found {
	return reference.Found{File: "f", Endorsement: evidence.Endorsement{Kind: "snp-crl", Key: "Genoa", Data: []byte(data), NotBefore: from, NotAfter: from.Add(time.Hour)}}
}

func TestFound_NeverGoesBackUnlessItIsMeant(t *testing.T) {
	first, changed, err := found("a", now).Store(nil, "op", now)
	if err != nil || !changed || first.Version != 1 || first.ID() != "snp-crl/Genoa" {
		t.Fatalf("%+v %v %v", first, changed, err)
	}
	if same, changed, err := found("a", now).Store(&first, "other", now.Add(1)); err != nil || changed || same.Author != "op" {
		t.Errorf("the same again: %+v %v %v", same, changed, err)
	}
	if _, _, err := found("b", now.Add(-1)).Store(&first, "op", now); !fault.Is(err, fault.Conflict) {
		t.Errorf("an older one: %v", err)
	}
	next, changed, err := found("b", now).Store(&first, "op", now)
	if err != nil || !changed || next.Version != 2 {
		t.Errorf("of the same time: %+v %v %v", next, changed, err)
	}
	gone, err := next.Remove("op", now)
	if err != nil || gone.Version != 3 || gone.Data != nil || len(reference.Shelf([]reference.Endorsement{gone}).All()) != 0 {
		t.Errorf("removed: %+v %v", gone, err)
	}
	if _, err := gone.Remove("op", now); !fault.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if back, changed, err := found("b", now.Add(-time.Hour)).Store(&gone, "op", now); err != nil || !changed || back.Version != 4 {
		t.Errorf("brought back: %+v %v %v", back, changed, err)
	}
}

func TestWarnings_NameWhatEnds(t *testing.T) {
	e, _, _ := found("a", now).Store(nil, "op", now)
	v, err := reference.Setting{Name: "x", JSON: json.RawMessage("1"), Expires: now.Add(30 * 24 * time.Hour)}.Store(nil, "set", "op", now)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration][]string{
		-9 * 24 * time.Hour: nil, 0: {"endorsement snp-crl/Genoa expires on"}, 2 * time.Hour: {"endorsement snp-crl/Genoa has expired on"},
		25 * 24 * time.Hour: {"endorsement snp-crl/Genoa has expired", "reference value x expires on"},
	} {
		got := reference.Warnings([]reference.Endorsement{e}, []reference.Value{v}, now.Add(at))
		if len(got) != len(want) {
			t.Fatalf("after %s: %v", at, got)
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("after %s: %v", at, got)
			}
		}
	}
}

func TestFile_Check(t *testing.T) {
	for _, f := range []reference.File{{"", []byte("x")}, {"a\nb", []byte("x")}, {"x", nil}, {strings.Repeat("x", 257), []byte("x")}, {"x", make([]byte, reference.MaxFile+1)}} {
		if err := f.Check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.10q, %d bytes: %v", f.Name, len(f.Data), err)
		}
	}
}

func message(payload string) string {
	return `{"version":"0.1.0","type":"sample","payload":"` + base64.StdEncoding.EncodeToString([]byte(payload)) + `"}`
}

func TestParseMessage_ReadsWhatToolsSend(t *testing.T) {
	list, err := reference.ParseMessage([]byte(message(`{"svn":["1"],"launch_digest":["abcde"],"n":{"a":1}}`)))
	want := []reference.Setting{
		{Name: "launch_digest", JSON: json.RawMessage(`["abcde"]`)}, {Name: "n", JSON: json.RawMessage(`{"a":1}`)}, {Name: "svn", JSON: json.RawMessage(`["1"]`)},
	}
	if d := cmp.Diff(want, list); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	for name, text := range map[string]string{
		"no object": `[]`, "version": strings.Replace(message(`{"a":1}`), "0.1.0", "0.2.0", 1), "type": strings.Replace(message(`{"a":1}`), "sample", "corim", 1),
		"base64": `{"version":"0.1.0","type":"sample","payload":"?"}`, "list": message(`[1]`), "empty": message(`{}`), "twice": message(`{"a":1,"a":2}`),
		"unknown member": `{"version":"0.1.0","type":"sample","payload":"e30=","x":1}`, "name": message(`{"a b":1}`), "kind": message(`{"snp-crl/Genoa":1}`),
		"deep": message(`{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`),
	} {
		if got, err := reference.ParseMessage([]byte(text)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte(message(`{"svn":["1"],"x":1e9}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := reference.ParseMessage(data)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		for _, s := range list {
			if v, err := s.Store(nil, "message", "op", now); err == nil {
				if _, err := v.Decoded(); err != nil {
					t.Fatalf("%s cannot be read again: %v", v.JSON, err)
				}
			}
		}
	})
}

var snpClaims = map[string]any{
	"measurement": "00ff", "reported_tcb_bootloader": 7.0, "platform_smt_enabled": true, "policy_abi_major": 0.0, "report_data": "not compared",
}

// What was recorded from evidence accepts that evidence, and what it accepted
// before it accepts still.
func TestRecord_MakesACompareMatch(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		stored := map[string]json.RawMessage{}
		if rapid.Bool().Draw(r, "some") {
			stored["snp_launch_measurement"] = json.RawMessage(rapid.SampledFrom([]string{`["aa"]`, `["aa","00ff"]`, `"00ff"`, `[]`, `null`, `{"a":1}`}).Draw(r, "before"))
			stored["snp_smt_enabled"] = json.RawMessage(rapid.SampledFrom([]string{`true`, `false`, `[true]`}).Draw(r, "smt"))
		}
		alone := rapid.Bool().Draw(r, "alone")
		find := func(name string) json.RawMessage { return stored[name] }
		list, err := reference.Compare(evidence.Snp, snpClaims, find)
		if err != nil || len(list) != 4 {
			r.Fatalf("%v %v", list, err)
		}
		settings, err := reference.Record(list, alone)
		if err != nil {
			r.Fatal(err)
		}
		before := string(stored["snp_launch_measurement"])
		for _, s := range settings {
			stored[s.Name] = s.JSON
		}
		again, err := reference.Compare(evidence.Snp, snpClaims, find)
		if err != nil {
			r.Fatal(err)
		}
		for _, c := range again {
			if !c.Match {
				r.Fatalf("%s: %s does not accept %s", c.Name, c.Stored, c.Seen)
			}
		}
		after := string(stored["snp_launch_measurement"])
		if kept := strings.Contains(after, `"aa"`); kept != (strings.Contains(before, `"aa"`) && !alone) {
			r.Fatalf("%s became %s, alone %v", before, after, alone)
		}
		if more, err := reference.Record(again, alone); err != nil || len(more) != 0 {
			r.Fatalf("recorded again: %v %v", more, err)
		}
	})
	if _, err := reference.Compare(evidence.Cca, nil, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("a kind without values: %v", err)
	}
}
