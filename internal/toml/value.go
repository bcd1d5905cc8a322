package toml

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// value reads one value of any kind.
func (p *parser) value(depth int) (any, error) {
	p.blank(false)
	switch {
	case depth > Deepest:
		return nil, p.fail("values are nested too deeply")
	case p.at == len(p.text):
		return nil, p.fail("a value is missing")
	case p.text[p.at] == '"' || p.text[p.at] == '\'':
		return p.str()
	case p.take("["):
		return p.list(depth)
	case p.take("{"):
		return p.inline(depth)
	}
	return p.scalar()
}

func (p *parser) list(depth int) (any, error) {
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
		if p.blank(true); p.take("]") {
			return out, nil
		}
		if !p.take(",") {
			return nil, p.fail("a list must go on with a comma or end with ]")
		}
	}
}

func (p *parser) inline(depth int) (any, error) {
	out := map[string]any{}
	if p.blank(false); p.take("}") {
		return out, nil
	}
	for {
		if err := p.pair(out, depth+1); err != nil {
			return nil, err
		}
		if p.blank(false); p.take("}") {
			return out, nil
		}
		if !p.take(",") {
			return nil, p.fail("a table must go on with a comma or end with }")
		}
	}
}

const (
	day  = `[0-9]{4}-[0-9]{2}-[0-9]{2}`
	hour = `[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?`
)

// The forms of what is neither text, list nor table (TOML 1.0, integer, float,
// offset and local date-time).
var (
	decimal = regexp.MustCompile(`^[+-]?(0|[1-9](_?[0-9])*)$`)
	based   = regexp.MustCompile(`^0(x[0-9A-Fa-f](_?[0-9A-Fa-f])*|o[0-7](_?[0-7])*|b[01](_?[01])*)$`)
	float   = regexp.MustCompile(`^[+-]?(0|[1-9](_?[0-9])*)(\.[0-9](_?[0-9])*)?([eE][+-]?[0-9](_?[0-9])*)?$`)
	date    = regexp.MustCompile(`^(` + day + `|` + hour + `|` + day + `[Tt ]` + hour + `([Zz]|[+-][0-9]{2}:[0-9]{2})?)$`)
)

// scalar reads a boolean, a number or a date.
func (p *parser) scalar() (any, error) {
	from := p.at
	for p.at < len(p.text) && (bare(p.text[p.at]) || strings.IndexByte("+.:", p.text[p.at]) >= 0) {
		p.at++
	}
	// A space may stand between a date and its time.
	if rest := p.text[p.at:]; p.at-from == len("2006-01-02") && len(rest) > 3 && rest[0] == ' ' && rest[3] == ':' {
		for p.at++; p.at < len(p.text) && (bare(p.text[p.at]) || strings.IndexByte("+.:", p.text[p.at]) >= 0); p.at++ {
		}
	}
	s := p.text[from:p.at]
	switch {
	case s == "true" || s == "false":
		return s == "true", nil
	case len(s) > 64:
		return nil, p.fail("a value is too long")
	case decimal.MatchString(s) || based.MatchString(s):
		n, err := strconv.ParseInt(strings.TrimPrefix(s, "+"), 0, 64)
		if err != nil || n > 1<<53-1 || n < -(1<<53-1) {
			return nil, p.fail("a number is too large")
		}
		return float64(n), nil
	case float.MatchString(s):
		f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
		if err != nil || math.IsInf(f, 0) {
			return nil, p.fail("a number is too large")
		}
		return f, nil
	case s != "" && date.MatchString(s):
		return Date(s), nil
	}
	return nil, p.fail("a value is neither text, number, date, true nor false")
}

// str reads a string of any of the four kinds.
func (p *parser) str() (string, error) {
	for _, q := range []string{`"""`, `'''`} {
		if p.take(q) {
			p.take("\n") // a line end right after the opening does not count
			return p.until(q, true)
		}
	}
	return p.line()
}

// line reads a string that ends on its line.
func (p *parser) line() (string, error) {
	q := p.text[p.at : p.at+1]
	p.at++
	return p.until(q, false)
}

// until reads up to the closing quotes. Strings in double quotes know escapes.
func (p *parser) until(q string, lines bool) (string, error) {
	var b strings.Builder
	for p.at < len(p.text) {
		c := p.text[p.at]
		switch {
		case strings.HasPrefix(p.text[p.at:], q):
			p.at += len(q)
			// Up to two quotes may stand right before the closing three.
			for range 2 {
				if lines && p.take(q[:1]) {
					b.WriteByte(q[0])
				}
			}
			return b.String(), nil
		case c == '\n' && !lines:
			return "", p.fail("a string must end in its line")
		case c < ' ' && c != '\t' && c != '\n', c == 0x7f:
			return "", p.fail("a string has a control character")
		case c == '\\' && q[0] == '"':
			p.at++
			if err := p.escape(&b, lines); err != nil {
				return "", err
			}
		default:
			b.WriteByte(c)
			p.at++
		}
	}
	return "", p.fail("a string has no end")
}

func (p *parser) escape(b *strings.Builder, lines bool) error {
	if p.at == len(p.text) {
		return p.fail("a string has no end")
	}
	c := p.text[p.at]
	p.at++
	if i := strings.IndexByte(`btnfr"\`, c); i >= 0 {
		b.WriteByte("\b\t\n\f\r\"\\"[i])
		return nil
	}
	switch {
	case c == 'u':
		return p.rune(b, 4)
	case c == 'U':
		return p.rune(b, 8)
	case lines && (c == '\n' || c == ' ' || c == '\t'):
		// A backslash at the end of a line swallows it and the blanks after it.
		rest := strings.TrimLeft(p.text[p.at-1:], " \t")
		if strings.HasPrefix(rest, "\n") {
			p.at = len(p.text) - len(strings.TrimLeft(rest, " \t\n"))
			return nil
		}
	}
	return p.fail("a string has an escape that is not known")
}

func (p *parser) rune(b *strings.Builder, digits int) error {
	if p.at+digits > len(p.text) {
		return p.fail("a string has no end")
	}
	n, err := strconv.ParseUint(p.text[p.at:p.at+digits], 16, 32)
	if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) { // #nosec G115 -- bounded by the check before
		return p.fail("a string has an escape that is no character")
	}
	b.WriteRune(rune(n)) // #nosec G115 -- as above
	p.at += digits
	return nil
}
