package canon

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// transformer reads one JSON text and appends its canonical form to out.
type transformer struct {
	data  []byte
	pos   int
	out   []byte
	depth int
	exact bool // refuse what the canonical form would alter
}

func (t *transformer) run() ([]byte, error) {
	t.out = make([]byte, 0, len(t.data))
	t.space()
	if err := t.value(); err != nil {
		return nil, err
	}
	t.space()
	if t.pos != len(t.data) {
		return nil, t.bad("data after the end of the JSON value")
	}
	return t.out, nil
}

func (t *transformer) bad(what string) error {
	return fault.Invalidf("the JSON is not acceptable: %s (byte %d)", what, t.pos)
}

func (t *transformer) space() {
	for t.pos < len(t.data) {
		switch t.data[t.pos] {
		case ' ', '\t', '\n', '\r':
			t.pos++
		default:
			return
		}
	}
}

// peek is the next byte, 0 at the end; a NUL byte is valid nowhere in JSON.
func (t *transformer) peek() byte {
	if t.pos < len(t.data) {
		return t.data[t.pos]
	}
	return 0
}

func (t *transformer) value() error {
	switch c := t.peek(); {
	case c == '{':
		return t.nested(t.object)
	case c == '[':
		return t.nested(t.array)
	case c == '"':
		return t.string()
	case c == '-' || c >= '0' && c <= '9':
		return t.number()
	case c == 't':
		return t.literal("true")
	case c == 'f':
		return t.literal("false")
	case c == 'n':
		return t.literal("null")
	default:
		return t.bad("a value was expected")
	}
}

func (t *transformer) nested(read func() error) error {
	if t.depth++; t.depth > MaxDepth {
		return t.bad("nested too deeply")
	}
	err := read()
	t.depth--
	return err
}

func (t *transformer) literal(word string) error {
	if !bytes.HasPrefix(t.data[t.pos:], []byte(word)) {
		return t.bad("a value was expected")
	}
	t.pos += len(word)
	t.out = append(t.out, word...)
	return nil
}

func (t *transformer) array() error {
	t.pos++
	t.out = append(t.out, '[')
	t.space()
	for first := true; ; first = false {
		if first && t.peek() == ']' {
			break
		}
		t.space()
		if err := t.value(); err != nil {
			return err
		}
		t.space()
		if t.peek() == ']' {
			break
		}
		if t.peek() != ',' {
			return t.bad("a comma or the end of the array was expected")
		}
		t.pos++
		t.out = append(t.out, ',')
	}
	t.pos++
	t.out = append(t.out, ']')
	return nil
}

// member is one member of an object as it stands in out; offsets are relative
// to the start of the object's members.
type member struct {
	name       string
	start, end int
}

func (t *transformer) object() error {
	t.pos++
	t.out = append(t.out, '{')
	base := len(t.out)
	var members []member
	sorted := true
	t.space()
	for first := true; ; first = false {
		if first && t.peek() == '}' {
			break
		}
		m, err := t.member(base)
		if err != nil {
			return err
		}
		if n := len(members); n > 0 && Compare(members[n-1].name, m.name) >= 0 {
			sorted = false
		}
		members = append(members, m)
		if t.peek() == '}' {
			break
		}
		if t.peek() != ',' {
			return t.bad("a comma or the end of the object was expected")
		}
		t.pos++
		t.out = append(t.out, ',')
	}
	t.pos++
	if !sorted {
		if err := t.sort(base, members); err != nil {
			return err
		}
	}
	t.out = append(t.out, '}')
	return nil
}

func (t *transformer) member(base int) (member, error) {
	t.space()
	if t.peek() != '"' {
		return member{}, t.bad("a member name was expected")
	}
	start := len(t.out)
	name, err := t.text()
	if err != nil {
		return member{}, err
	}
	if t.out, err = AppendString(t.out, name); err != nil {
		return member{}, err
	}
	t.space()
	if t.peek() != ':' {
		return member{}, t.bad("a colon was expected")
	}
	t.pos++
	t.out = append(t.out, ':')
	t.space()
	if err := t.value(); err != nil {
		return member{}, err
	}
	t.space()
	return member{name, start - base, len(t.out) - base}, nil
}

// sort puts the members that stand from base on into the order of RFC 8785
// section 3.2.3 and refuses duplicates.
func (t *transformer) sort(base int, members []member) error {
	slices.SortFunc(members, func(a, b member) int { return Compare(a.name, b.name) })
	from := bytes.Clone(t.out[base:])
	t.out = t.out[:base]
	for i, m := range members {
		if i > 0 {
			if m.name == members[i-1].name {
				return t.bad("an object has the same member name twice")
			}
			t.out = append(t.out, ',')
		}
		t.out = append(t.out, from[m.start:m.end]...)
	}
	return nil
}

func (t *transformer) string() error {
	s, err := t.text()
	if err != nil {
		return err
	}
	t.out, err = AppendString(t.out, s)
	return err
}

// text reads the string that begins at pos and returns what it means.
func (t *transformer) text() (string, error) {
	t.pos++
	start := t.pos
	for t.pos < len(t.data) {
		switch c := t.data[t.pos]; {
		case c == '"':
			s := string(t.data[start:t.pos])
			if !utf8.ValidString(s) {
				return "", t.bad("a string is not valid UTF-8")
			}
			t.pos++
			return s, nil
		case c == '\\':
			return t.escaped(start)
		case c < 0x20:
			return "", t.bad("a control character stands unescaped in a string")
		}
		t.pos++
	}
	return "", t.bad("a string does not end")
}

// escaped finishes a string that has escapes; the first is at pos.
func (t *transformer) escaped(start int) (string, error) {
	s := bytes.Clone(t.data[start:t.pos])
	for t.pos < len(t.data) {
		c := t.data[t.pos]
		switch {
		case c == '"':
			if !utf8.Valid(s) {
				return "", t.bad("a string is not valid UTF-8")
			}
			t.pos++
			return string(s), nil
		case c == '\\':
			r, err := t.escape()
			if err != nil {
				return "", err
			}
			s = utf8.AppendRune(s, r)
			continue
		case c < 0x20:
			return "", t.bad("a control character stands unescaped in a string")
		}
		s = append(s, c)
		t.pos++
	}
	return "", t.bad("a string does not end")
}

var simpleEscapes = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// escape reads one escape sequence, or two that form a surrogate pair.
func (t *transformer) escape() (rune, error) {
	t.pos++
	c := t.peek()
	if r := simpleEscapes[c]; r != 0 {
		t.pos++
		return rune(r), nil
	}
	if c != 'u' {
		return 0, t.bad("unknown escape in a string")
	}
	r, ok := t.hex()
	if !ok {
		return 0, t.bad("unknown escape in a string")
	}
	if t.exact && r == utf8.RuneError {
		return 0, t.bad("a string is not valid UTF-8")
	}
	if !utf16.IsSurrogate(r) {
		return r, nil
	}
	if t.peek() != '\\' || t.pos+1 >= len(t.data) || t.data[t.pos+1] != 'u' {
		return 0, t.bad("unpaired surrogate in a string")
	}
	t.pos++
	low, ok := t.hex()
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, t.bad("unpaired surrogate in a string")
	}
	return r, nil
}

// hex reads four digits after the u at pos.
func (t *transformer) hex() (rune, bool) {
	t.pos++
	if len(t.data)-t.pos < 4 {
		return 0, false
	}
	var r rune
	for _, c := range t.data[t.pos : t.pos+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	t.pos += 4
	return r, true
}

func (t *transformer) number() error {
	start := t.pos
	end, integer := scanNumber(t.data, t.pos)
	if end < 0 {
		return t.bad("a number is malformed")
	}
	text := t.data[start:end]
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsInf(f, 0) {
		return t.bad("a number is out of range")
	}
	mark := len(t.out)
	t.out = appendFloat(t.out, f)
	if t.exact && integer && !bytes.Equal(t.out[mark:], text) && string(text) != "-0" {
		return t.bad("an integer is too large to be exact; send it as a string")
	}
	t.pos = end
	return nil
}
