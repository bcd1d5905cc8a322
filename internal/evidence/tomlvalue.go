package evidence

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// value reads one value of any supported kind.
func (p *toml) value(depth int) (any, error) {
	p.blank(false)
	if depth > tomlDepth || p.pos == len(p.text) {
		return nil, errTOML
	}
	switch c := p.text[p.pos]; {
	case c == '"' || c == '\'':
		return p.str()
	case p.take("["):
		return p.array(depth)
	case p.take("{"):
		return p.inline(depth)
	case p.take("true"):
		return true, nil
	case p.take("false"):
		return false, nil
	default:
		return p.number()
	}
}

func (p *toml) array(depth int) (any, error) {
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
			return nil, errTOML
		}
	}
}

func (p *toml) inline(depth int) (any, error) {
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
			return nil, errTOML
		}
	}
}

// number reads a decimal integer that a double holds exactly, or a float.
func (p *toml) number() (any, error) {
	start := p.pos
	for p.pos < len(p.text) && strings.IndexByte("+-0123456789_.eE", p.text[p.pos]) >= 0 {
		p.pos++
	}
	s := p.text[start:p.pos]
	if len(s) > 40 || s == "" || strings.Contains(s, "__") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") {
		return nil, errTOML
	}
	s = strings.ReplaceAll(s, "_", "")
	if digits := strings.TrimLeft(s, "+-"); len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		return nil, errTOML // a leading zero: a date, or no number at all
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n > 1<<53-1 || n < -(1<<53-1) {
			return nil, errTOML
		}
		return float64(n), nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || !strings.ContainsAny(s, ".eE") {
		return nil, errTOML
	}
	return f, nil
}

// str reads a string of any of the four kinds.
func (p *toml) str() (string, error) {
	for _, q := range []string{`"""`, `'''`} {
		if p.take(q) {
			p.take("\n") // a line end right after the opening does not count
			return p.until(q, true)
		}
	}
	return p.line()
}

// line reads a string that ends on its line.
func (p *toml) line() (string, error) {
	q := p.text[p.pos : p.pos+1]
	p.pos++
	return p.until(q, false)
}

// until reads up to the closing quotes. Strings in double quotes know escapes.
func (p *toml) until(q string, lines bool) (string, error) {
	var b strings.Builder
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		switch {
		case strings.HasPrefix(p.text[p.pos:], q):
			p.pos += len(q)
			// Up to two quotes may stand right before the closing three.
			for range 2 {
				if lines && p.take(q[:1]) {
					b.WriteByte(q[0])
				}
			}
			return b.String(), nil
		case c == '\n' && !lines, c < ' ' && c != '\t' && c != '\n', c == 0x7f:
			return "", errTOML
		case c == '\\' && q[0] == '"':
			p.pos++
			if err := p.escape(&b, lines); err != nil {
				return "", err
			}
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
	return "", errTOML
}

func (p *toml) escape(b *strings.Builder, lines bool) error {
	if p.pos == len(p.text) {
		return errTOML
	}
	c := p.text[p.pos]
	p.pos++
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
		rest := strings.TrimLeft(p.text[p.pos-1:], " \t")
		if !strings.HasPrefix(rest, "\n") {
			return errTOML
		}
		p.pos = len(p.text) - len(strings.TrimLeft(rest, " \t\n"))
		return nil
	}
	return errTOML
}

func (p *toml) rune(b *strings.Builder, digits int) error {
	if p.pos+digits > len(p.text) {
		return errTOML
	}
	n, err := strconv.ParseUint(p.text[p.pos:p.pos+digits], 16, 32)
	if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) { // #nosec G115 -- bounded by the check before
		return errTOML
	}
	b.WriteRune(rune(n)) // #nosec G115 -- as above
	p.pos += digits
	return nil
}
