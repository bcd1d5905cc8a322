package project

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// parseTOML reads TOML 1.0 as far as a pyproject.toml needs it: tables, arrays
// of tables, dotted keys, inline tables, arrays, all four kinds of strings.
// Numbers, dates and booleans are kept as their text, of type [bare]. A name that
// is defined twice is an error, and so is nesting deeper than 16.
func parseTOML(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) || strings.ContainsRune(string(text), 0) {
		return nil, fault.Invalidf("pyproject.toml is not valid UTF-8 text")
	}
	p := &tomlParser{text: strings.ReplaceAll(string(text), "\r\n", "\n")}
	root := map[string]any{}
	here := root
	for p.blank(true); p.at < len(p.text); p.blank(true) {
		var err error
		if p.text[p.at] == '[' {
			here, err = p.header(root)
		} else {
			err = p.pair(here, 0)
		}
		if err != nil {
			return nil, err
		}
		if p.blank(false); p.at < len(p.text) && p.text[p.at] != '\n' {
			return nil, p.fail("there is something behind the value")
		}
	}
	return root, nil
}

// bare is a value that is neither text, list nor table.
type bare string

// deepest is how far values may be nested.
const deepest = 16

type tomlParser struct {
	text string
	at   int
}

func (p *tomlParser) fail(what string) error {
	return fault.Invalidf("pyproject.toml, line %d: %s", 1+strings.Count(p.text[:min(p.at, len(p.text))], "\n"), what)
}

// blank skips white space and comments, and line ends if asked to.
func (p *tomlParser) blank(lines bool) {
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == ' ' || c == '\t' || lines && c == '\n':
			p.at++
		case c == '#':
			for p.at < len(p.text) && p.text[p.at] != '\n' {
				p.at++
			}
		default:
			return
		}
	}
}

func (p *tomlParser) take(s string) bool {
	if strings.HasPrefix(p.text[p.at:], s) {
		p.at += len(s)
		return true
	}
	return false
}

// header reads [a.b] or [[a.b]] and returns the table that follows.
func (p *tomlParser) header(root map[string]any) (map[string]any, error) {
	closing, list := "]", false
	p.take("[")
	if p.take("[") {
		closing, list = "]]", true
	}
	names, err := p.key()
	if err != nil {
		return nil, err
	}
	if !p.take(closing) {
		return nil, p.fail("a table's name must end with " + closing)
	}
	table, err := p.descend(root, names[:len(names)-1])
	if err != nil {
		return nil, err
	}
	last := names[len(names)-1]
	if list {
		old, ok := table[last].([]any)
		if _, taken := table[last]; taken && !ok {
			return nil, p.fail("this name is defined already")
		}
		fresh := map[string]any{}
		table[last] = append(old, fresh)
		return fresh, nil
	}
	return p.descend(table, []string{last})
}

// descend follows names, making tables on the way.
func (p *tomlParser) descend(table map[string]any, names []string) (map[string]any, error) {
	for _, name := range names {
		switch next := table[name].(type) {
		case nil:
			fresh := map[string]any{}
			table[name] = fresh
			table = fresh
		case map[string]any:
			table = next
		case []any:
			last, ok := next[len(next)-1].(map[string]any)
			if !ok {
				return nil, p.fail("this name is defined already")
			}
			table = last
		default:
			return nil, p.fail("this name is defined already")
		}
	}
	return table, nil
}

// pair reads name = value into a table.
func (p *tomlParser) pair(table map[string]any, depth int) error {
	names, err := p.key()
	if err != nil {
		return err
	}
	if !p.take("=") {
		return p.fail("a name must be followed by =")
	}
	p.blank(false)
	value, err := p.value(depth)
	if err != nil {
		return err
	}
	if table, err = p.descend(table, names[:len(names)-1]); err != nil {
		return err
	}
	last := names[len(names)-1]
	if _, taken := table[last]; taken {
		return p.fail("this name is defined already")
	}
	table[last] = value
	return nil
}

// key reads a dotted name.
func (p *tomlParser) key() ([]string, error) {
	var names []string
	for {
		p.blank(false)
		name, err := p.simpleKey()
		if err != nil {
			return nil, err
		}
		if names = append(names, name); len(names) > deepest {
			return nil, p.fail("a name has too many parts")
		}
		if p.blank(false); !p.take(".") {
			return names, nil
		}
	}
}

func (p *tomlParser) simpleKey() (string, error) {
	if p.at < len(p.text) && (p.text[p.at] == '"' || p.text[p.at] == '\'') {
		return p.line(p.text[p.at])
	}
	from := p.at
	for p.at < len(p.text) && isKeyByte(p.text[p.at]) {
		p.at++
	}
	if from == p.at {
		return "", p.fail("a name is missing")
	}
	return p.text[from:p.at], nil
}

func isKeyByte(c byte) bool {
	return c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

func (p *tomlParser) value(depth int) (any, error) {
	if depth > deepest {
		return nil, p.fail("values are nested too deeply")
	}
	switch {
	case p.at >= len(p.text):
		return nil, p.fail("a value is missing")
	case p.take(`"""`):
		return p.block(`"""`, true)
	case p.take("'''"):
		return p.block("'''", false)
	case p.text[p.at] == '"' || p.text[p.at] == '\'':
		return p.line(p.text[p.at])
	case p.take("["):
		return p.list(depth)
	case p.take("{"):
		return p.inline(depth)
	}
	from := p.at
	for p.at < len(p.text) && (isKeyByte(p.text[p.at]) || strings.IndexByte("+.:", p.text[p.at]) >= 0) {
		p.at++
	}
	if from == p.at {
		return nil, p.fail("a value is missing")
	}
	return bare(p.text[from:p.at]), nil
}

func (p *tomlParser) list(depth int) (any, error) {
	out := []any{}
	for {
		if p.blank(true); p.take("]") {
			return out, nil
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		if p.blank(true); !p.take(",") {
			if p.take("]") {
				return out, nil
			}
			return nil, p.fail("a list must go on with a comma or end with ]")
		}
	}
}

func (p *tomlParser) inline(depth int) (any, error) {
	out := map[string]any{}
	for {
		if p.blank(false); p.take("}") {
			return out, nil
		}
		if err := p.pair(out, depth+1); err != nil {
			return nil, err
		}
		if p.blank(false); !p.take(",") {
			if p.take("}") {
				return out, nil
			}
			return nil, p.fail("a table must go on with a comma or end with }")
		}
	}
}

// line reads a string of one line.
func (p *tomlParser) line(quote byte) (string, error) {
	p.at++
	var b strings.Builder
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == quote:
			p.at++
			return b.String(), nil
		case c == '\n':
			return "", p.fail("a string must end in its line")
		case c == '\\' && quote == '"':
			if err := p.escape(&b); err != nil {
				return "", err
			}
		default:
			b.WriteByte(c)
			p.at++
		}
	}
	return "", p.fail("a string has no end")
}

// block reads a string of several lines.
func (p *tomlParser) block(quote string, escapes bool) (string, error) {
	p.take("\n")
	var b strings.Builder
	for p.at < len(p.text) {
		switch {
		case p.take(quote):
			for range 2 { // up to two quotes may stand before the end
				if p.take(quote[:1]) {
					b.WriteString(quote[:1])
				}
			}
			return b.String(), nil
		case escapes && p.text[p.at] == '\\':
			if rest := strings.TrimLeft(p.text[p.at+1:], " \t"); strings.HasPrefix(rest, "\n") {
				p.at = len(p.text) - len(strings.TrimLeft(rest, " \t\n"))
				continue
			}
			if err := p.escape(&b); err != nil {
				return "", err
			}
		default:
			b.WriteByte(p.text[p.at])
			p.at++
		}
	}
	return "", p.fail("a string has no end")
}

func (p *tomlParser) escape(b *strings.Builder) error {
	rest := p.text[p.at+1:]
	if rest == "" {
		return p.fail("a string has no end")
	}
	if i := strings.IndexByte(`btnfr"\`, rest[0]); i >= 0 {
		b.WriteByte("\b\t\n\f\r\"\\"[i])
		p.at += 2
		return nil
	}
	size := map[byte]int{'u': 4, 'U': 8}[rest[0]]
	if size == 0 || len(rest) <= size {
		return p.fail("a string has an escape that is not known")
	}
	n, err := strconv.ParseUint(rest[1:1+size], 16, 32)
	if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
		return p.fail("a string has an escape that is no character")
	}
	b.WriteRune(rune(n))
	p.at += 2 + size
	return nil
}
