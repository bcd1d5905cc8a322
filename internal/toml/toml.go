// Package toml reads TOML 1.0 strictly: a name that is defined twice, a table
// that is opened twice, and text that is not UTF-8 are refused. It never follows
// anything, and its work is linear in the text. There is no decoder into structs
// and no encoder: what others wrote is read and looked at.
//
// The text is init-data of guests and pyproject.toml of plugins, both foreign.
// Whoever calls it bounds the size.
package toml

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Deepest is how many parts a name may have, and how far values may be nested.
const Deepest = 16

// Date is a date, a time, or both, as it is written.
type Date string

// Parse reads a document. Values are string, bool, float64, [Date], []any and
// map[string]any, so that all of them are JSON: a number that a float64 does not
// hold exactly, an infinite one, and one that is none are refused. Faults are
// Invalid and name the line.
func Parse(text string) (map[string]any, error) {
	if !utf8.ValidString(text) {
		return nil, fault.Invalidf("the text is not UTF-8")
	}
	p := &parser{text: strings.ReplaceAll(text, "\r\n", "\n"), root: map[string]any{}, defined: map[string]bool{}}
	here := p.root
	for p.blank(true); p.at < len(p.text); p.blank(true) {
		var err error
		if p.text[p.at] == '[' {
			here, err = p.header()
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
	return p.root, nil
}

type parser struct {
	text string
	at   int
	root map[string]any
	// defined holds the tables that a header has opened, so that none is opened
	// twice.
	defined map[string]bool
}

func (p *parser) fail(what string) error {
	return fault.Invalidf("line %d: %s", 1+strings.Count(p.text[:min(p.at, len(p.text))], "\n"), what)
}

// blank skips spaces and comments, and line ends too if lines is set.
func (p *parser) blank(lines bool) {
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

func (p *parser) take(s string) bool {
	if !strings.HasPrefix(p.text[p.at:], s) {
		return false
	}
	p.at += len(s)
	return true
}

// header reads [a.b] or [[a.b]] and gives the table that follows it.
func (p *parser) header() (map[string]any, error) {
	closing, list := "]", false
	if p.take("[[") {
		closing, list = "]]", true
	} else {
		p.take("[")
	}
	names, err := p.key()
	if err != nil {
		return nil, err
	}
	if !p.take(closing) {
		return nil, p.fail("a table's name must end with " + closing)
	}
	parent, err := p.descend(p.root, names[:len(names)-1])
	if err != nil {
		return nil, err
	}
	last := names[len(names)-1]
	if list {
		return p.appendTable(parent, last)
	}
	whole := strconv.Quote(strings.Join(names, "\x00"))
	table, ok := parent[last].(map[string]any)
	switch {
	case parent[last] == nil:
		table = map[string]any{}
		parent[last] = table
	case !ok || p.defined[whole]:
		return nil, p.fail("this table is defined already")
	}
	// An element of a list opens its tables anew, so that names below a list are
	// not remembered.
	if !throughList(p.root, names[:len(names)-1]) {
		p.defined[whole] = true
	}
	return table, nil
}

func (p *parser) appendTable(parent map[string]any, name string) (map[string]any, error) {
	list, ok := parent[name].([]any)
	if parent[name] != nil && !ok {
		return nil, p.fail("this name is defined already")
	}
	table := map[string]any{}
	parent[name] = append(list, table)
	return table, nil
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
func (p *parser) descend(table map[string]any, names []string) (map[string]any, error) {
	for _, name := range names {
		switch v := table[name].(type) {
		case nil:
			next := map[string]any{}
			table[name] = next
			table = next
		case map[string]any:
			table = v
		case []any:
			var last any
			if len(v) > 0 {
				last = v[len(v)-1]
			}
			var ok bool
			if table, ok = last.(map[string]any); !ok {
				return nil, p.fail("this name is defined already")
			}
		default:
			return nil, p.fail("this name is defined already")
		}
	}
	return table, nil
}

// key reads a name, which may be dotted, and the spaces around it.
func (p *parser) key() ([]string, error) {
	var names []string
	for {
		p.blank(false)
		name, err := p.simpleKey()
		if err != nil {
			return nil, err
		}
		if names = append(names, name); len(names) > Deepest {
			return nil, p.fail("a name has too many parts")
		}
		if p.blank(false); !p.take(".") {
			return names, nil
		}
	}
}

func (p *parser) simpleKey() (string, error) {
	if p.at < len(p.text) && (p.text[p.at] == '"' || p.text[p.at] == '\'') {
		return p.line()
	}
	from := p.at
	for p.at < len(p.text) && bare(p.text[p.at]) {
		p.at++
	}
	if from == p.at {
		return "", p.fail("a name is missing")
	}
	return p.text[from:p.at], nil
}

func bare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// pair reads name = value into a table.
func (p *parser) pair(table map[string]any, depth int) error {
	names, err := p.key()
	if err != nil {
		return err
	}
	if !p.take("=") {
		return p.fail("a name must be followed by =")
	}
	if table, err = p.descend(table, names[:len(names)-1]); err != nil {
		return err
	}
	last := names[len(names)-1]
	if _, taken := table[last]; taken {
		return p.fail("this name is defined already")
	}
	v, err := p.value(depth)
	if err != nil {
		return err
	}
	table[last] = v
	return nil
}
