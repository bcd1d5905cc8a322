package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestYAML_KeepsOrderAndQuotesWhatCouldBeMistaken(t *testing.T) {
	const in = `{"b":1,"a":{"list":[{"x":1,"y":[]},[1,[2]],"t"],"empty":{}},"texts":["yes","1","", "a: b","plain-text","~","line\nbreak","<>"],
		"n":null,"big":18446744073709551615,"t":true}`
	const want = `b: 1
a:
  list:
    - x: 1
      "y": []
    - - 1
      - - 2
    - t
  empty: {}
texts:
  - "yes"
  - "1"
  - ""
  - "a: b"
  - plain-text
  - "~"
  - "line\nbreak"
  - "<>"
"n": null
big: 18446744073709551615
t: true
`
	got, err := yamlOf([]byte(in))
	if err != nil || string(got) != want {
		t.Errorf("got\n%s\nwant\n%s\n%v", got, want, err)
	}
}

func FuzzYAML(f *testing.F) {
	for _, seed := range []string{`{}`, `[]`, `[[],{}]`, `{"a":[{"b":"c"}]}`, `"x"`, `{"a":`, `[1,2`, `nul`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := yamlOf(in)
		if json.Valid(in) && err != nil {
			t.Fatalf("valid JSON is refused: %v", err)
		}
		if err != nil {
			return
		}
		for _, c := range out {
			if c < ' ' && c != '\n' {
				t.Fatalf("a control character is written: %q", out)
			}
		}
		if !bytes.HasSuffix(out, []byte("\n")) {
			t.Fatalf("no end of line: %q", out)
		}
	})
}

func FuzzVisible(f *testing.F) {
	for _, seed := range []string{"plain", "\x1b]0;x\a", "\u202eabc", "a\nb", "\xff", "é漢🙂", "\u2028"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := visible(in)
		if !utf8.ValidString(in) {
			in = strings.ToValidUTF8(in, "?")
		}
		if strings.ContainsFunc(out, hidden) {
			t.Fatalf("%q still acts on a terminal", out)
		}
		if !strings.ContainsFunc(in, hidden) && utf8.ValidString(in) && !strings.Contains(out, `\`) && out != in {
			t.Fatalf("%q was changed to %q for nothing", in, out)
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte{0, 1, 'x', 0, 0})
	f.Add([]byte{0, 2, 'x'})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, in []byte) {
		leaves := split(in)
		if leaves == nil {
			return
		}
		n := 0
		for _, l := range leaves {
			n += 2 + len(l)
		}
		if n != len(in) {
			t.Fatalf("%d of %d bytes are accounted for", n, len(in))
		}
	})
}

func TestColour_IsForTerminals(t *testing.T) {
	s := &shell{Env: Env{Getenv: func(string) string { return "" }}}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if terminal(null) || terminal(&bytes.Buffer{}) {
		t.Error("what is no terminal counts as one")
	}
	if got := s.paint(&bytes.Buffer{}, red, "x"); got != "x" {
		t.Errorf("%q", got)
	}
}

func TestRows_AlignWideCharacters(t *testing.T) {
	var out bytes.Buffer
	s := &shell{out: &out, Env: Env{Getenv: func(string) string { return "" }}}
	if err := s.rows([]string{"NAME", "X"}, [][]string{{"漢字漢", "1"}, {"\x1b[2J", "2"}}); err != nil {
		t.Fatal(err)
	}
	want := "NAME     X\n漢字漢   1\n\\x1b[2J  2\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
