package evidence

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// errTOML is the one cause; where it happened is in the public text.
var errTOML = errors.New("malformed TOML")

const tomlDepth = 16

// toml reads what init-data uses of TOML 1.0: tables, arrays of tables, dotted
// and quoted keys, the four kinds of strings, decimal integers, floats, booleans,
// arrays and inline tables. Dates and other number bases are refused. A key
// that stands twice is refused. It never follows anything and its work is
// linear in the text.
type toml struct {
	text string
	pos  int
	root map[string]any
	// defined holds the tables that a header or an inline value closed, so that
	// none is opened twice.
	defined map[string]bool
}

func parseTOML(text string) (map[string]any, error) {
	if !utf8.ValidString(text) {
		return nil, errTOML
	}
	p := &toml{text: strings.ReplaceAll(text, "\r\n", "\n"), root: map[string]any{}, defined: map[string]bool{}}
	at := p.root
	for {
		p.blank(true)
		if p.pos == len(p.text) {
			return p.root, nil
		}
		if p.text[p.pos] == '[' {
			t, err := p.header()
			if err != nil {
				return nil, err
			}
			at = t
		} else if err := p.pair(at, 0); err != nil {
			return nil, err
		}
		if p.blank(false); p.pos < len(p.text) && p.text[p.pos] != '\n' {
			return nil, errTOML
		}
	}
}

// blank skips spaces and comments, and line ends too if lines is set.
func (p *toml) blank(lines bool) {
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == ' ' || c == '\t' || lines && c == '\n':
			p.pos++
		case c == '#':
			for p.pos < len(p.text) && p.text[p.pos] != '\n' {
				p.pos++
			}
		default:
			return
		}
	}
}

func (p *toml) take(s string) bool {
	if !strings.HasPrefix(p.text[p.pos:], s) {
		return false
	}
	p.pos += len(s)
	return true
}

// header reads [a.b] or [[a.b]] and gives the table that follows it.
func (p *toml) header() (map[string]any, error) {
	list := p.take("[[")
	if !list {
		p.take("[")
	}
	path, err := p.path()
	if err != nil {
		return nil, err
	}
	if end := "]"; !p.take(end) || list && !p.take(end) {
		return nil, errTOML
	}
	parent, err := descend(p.root, path[:len(path)-1])
	if err != nil {
		return nil, err
	}
	last := path[len(path)-1]
	if list {
		return appendTable(parent, last)
	}
	// An element of a list opens its tables anew, so that names below a list
	// are not remembered.
	name := strconv.Quote(strings.Join(path, "\x00"))
	t, ok := parent[last].(map[string]any)
	switch {
	case parent[last] == nil:
		t = map[string]any{}
		parent[last] = t
	case !ok || p.defined[name]:
		return nil, errTOML
	}
	if !throughList(p.root, path[:len(path)-1]) {
		p.defined[name] = true
	}
	return t, nil
}

func appendTable(parent map[string]any, name string) (map[string]any, error) {
	list, ok := parent[name].([]any)
	if parent[name] != nil && !ok {
		return nil, errTOML
	}
	t := map[string]any{}
	parent[name] = append(list, t)
	return t, nil
}

// throughList reports whether a path crosses an array of tables.
func throughList(t map[string]any, path []string) bool {
	for _, k := range path {
		switch v := t[k].(type) {
		case map[string]any:
			t = v
		case []any:
			return true
		}
	}
	return false
}

// descend walks to a table and makes what is missing; a list stands for its
// last element.
func descend(t map[string]any, path []string) (map[string]any, error) {
	for _, k := range path {
		switch v := t[k].(type) {
		case nil:
			next := map[string]any{}
			t[k] = next
			t = next
		case map[string]any:
			t = v
		case []any:
			var last any
			if len(v) > 0 {
				last = v[len(v)-1]
			}
			var ok bool
			if t, ok = last.(map[string]any); !ok {
				return nil, errTOML
			}
		default:
			return nil, errTOML
		}
	}
	return t, nil
}

// path reads a key, which may be dotted, and the spaces around it.
func (p *toml) path() ([]string, error) {
	var out []string
	for {
		p.blank(false)
		k, err := p.key()
		if err != nil || len(out) == tomlDepth {
			return nil, errTOML
		}
		out = append(out, k)
		if p.blank(false); !p.take(".") {
			return out, nil
		}
	}
}

func (p *toml) key() (string, error) {
	if p.pos < len(p.text) && (p.text[p.pos] == '"' || p.text[p.pos] == '\'') {
		return p.line()
	}
	start := p.pos
	for p.pos < len(p.text) && bare(p.text[p.pos]) {
		p.pos++
	}
	if start == p.pos {
		return "", errTOML
	}
	return p.text[start:p.pos], nil
}

func bare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// pair reads key = value into t.
func (p *toml) pair(t map[string]any, depth int) error {
	path, err := p.path()
	if err != nil {
		return err
	}
	if !p.take("=") {
		return errTOML
	}
	t, err = descend(t, path[:len(path)-1])
	if err != nil {
		return err
	}
	last := path[len(path)-1]
	if _, taken := t[last]; taken {
		return errTOML
	}
	v, err := p.value(depth)
	if err != nil {
		return err
	}
	t[last] = v
	return nil
}
