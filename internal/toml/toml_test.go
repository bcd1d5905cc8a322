package toml_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/toml"
)

func TestParse_ReadsWhatTOMLHas(t *testing.T) {
	for text, want := range map[string]any{
		`true`: true, `false`: false, `0`: 0.0, `+1_000`: 1000.0, `-17`: -17.0, `0xdead_BEEF`: float64(0xdeadbeef), `0o755`: float64(0o755),
		`0b101`: 5.0, `1.5`: 1.5, `-2e3`: -2000.0, `6.626E-34`: 6.626e-34, `9007199254740991`: float64(1<<53 - 1),
		`2026-01-02`: toml.Date("2026-01-02"), `2026-01-02T03:04:05Z`: toml.Date("2026-01-02T03:04:05Z"),
		`2026-01-02 03:04:05.25+01:00`: toml.Date("2026-01-02 03:04:05.25+01:00"), `03:04:05`: toml.Date("03:04:05"),
		`"a\tb\u00e4\U0001F600"`: "a\tbä😀", `'a\b'`: `a\b`, "\"\"\"\na\\\n   b\"\"\"\"\"": `ab""`, "'''\na'b'''": `a'b`,
		"[1, # one\n 'two',\n]": []any{1.0, "two"}, `{a.b = 1, "c d" = []}`: map[string]any{"a": map[string]any{"b": 1.0}, "c d": []any{}},
	} {
		got, err := toml.Parse("x = " + text + " # behind")
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if d := cmp.Diff(map[string]any{"x": want}, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
	got, err := toml.Parse("a.b = 1\r\n[t]\nx = 1\n[t.u]\n[[l]]\nn = 1\n[l.m]\n[[l]]\nn = 2\n[l.m]\n")
	want := map[string]any{
		"a": map[string]any{"b": 1.0}, "t": map[string]any{"x": 1.0, "u": map[string]any{}},
		"l": []any{map[string]any{"n": 1.0, "m": map[string]any{}}, map[string]any{"n": 2.0, "m": map[string]any{}}},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

func TestParse_RefusesOthersAndNamesTheLine(t *testing.T) {
	for text, line := range map[string]string{
		"x = 1\nx = 2": "line 2", "[a]\n[a]": "line 2", "a = 1\n[a]": "line 2", "a = 1\n[[a]]": "line 2", "a = 1\na.b = 2": "line 2",
		"a = {b = 1}\n[a.b]": "line 2", "x": "line 1", "x =": "line 1", "x = 1 2": "line 1", "x = [1 2]": "line 1", "x = {a = 1": "line 1",
		"[a": "line 1", "[[a]": "line 1", "= 1": "line 1", "x = 01": "line 1", "x = 1__0": "line 1", "x = inf": "line 1", "x = nan": "line 1",
		"x = 1.": "line 1", "x = .5": "line 1", "x = yes": "line 1", "x = truex": "line 1", "x = 9007199254740992": "line 1", "x = 1e999": "line 1",
		"x = \"a\nb\"": "line 1", "x = '''a": "line 1", `x = "\q"`: "line 1", `x = "\ud800"`: "line 1", "x = 'a\x00b'": "line 1", "x = \"\\u00": "line 1",
		"x = '\xff'": "UTF-8", "x = 2026-1-2": "line 1", "x = 2026-01-02T": "line 1",
		"x = " + strings.Repeat("[", 18) + strings.Repeat("]", 18): "deep", strings.Repeat("a.", 17) + "a = 1": "too many parts",
	} {
		if got, err := toml.Parse(text); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Public(err), line) {
			t.Errorf("%q gave %v, %v", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a=[[],{b.c=-1.5e3}]\n[[x]]\n[x.y]\n[[x]]\n[x.y]\n")
	f.Add("x=\"\"\"\\\n  y\"\"\"\nd = 2026-01-02 03:04:05\nh = 0x1_f\n'q' = '''\n'''")
	f.Fuzz(func(t *testing.T, text string) {
		tree, err := toml.Parse(text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		if _, err := json.Marshal(tree); err != nil {
			t.Fatal(err)
		}
	})
}
