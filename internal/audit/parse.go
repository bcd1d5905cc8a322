package audit

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// ParseLeaf reads the canonical bytes of a record; anything else, another form
// of the same record included, is Invalid.
//
// It reads only the one form that [Record.Leaf] writes, at a fraction of the
// cost of decoding any JSON strictly, because every record of an export passes
// here. A fuzz test holds it against the strict decoder.
func ParseLeaf(leaf []byte) (Record, error) {
	if len(leaf) > MaxLeaf {
		return Record{}, fault.Invalidf("the audit record is larger than %d bytes", MaxLeaf)
	}
	return parse(string(leaf), true)
}

// parse is ParseLeaf; without keep it checks everything, but leaves out Data,
// Reasons and Policy.
func parse(leaf string, keep bool) (Record, error) {
	p := parser{s: leaf, keep: keep}
	r := p.record()
	if p.failed || p.pos != len(p.s) {
		return Record{}, fault.Invalidf("the audit record is not in canonical form")
	}
	if err := r.validate(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// parser reads the members of a record in their canonical order and fails on
// any other way to write the same.
type parser struct {
	s      string
	pos    int
	keep   bool
	failed bool
}

func (p *parser) record() Record {
	var r Record
	p.want(`{"actor":{`)
	r.Actor.Address = p.first(`"address":`)
	r.Actor.Issuer = p.first(`"iss":`)
	p.want(`"kind":`)
	r.Actor.Kind = p.text()
	r.Actor.Session = p.optional(`,"session":`)
	r.Actor.Bearer = p.optional(`,"sub":`)
	r.Actor.Subject = p.optional(`,"subject":`)
	r.Actor.Via = p.optional(`,"via":`)
	p.want(`},"at":`)
	r.At = p.time()
	r.Data = p.facts(`,"data":{`)
	r.Grant = p.optional(`,"grant":`)
	p.want(`,"id":`)
	r.ID = p.text()
	p.want(`,"outcome":`)
	r.Outcome = Outcome(p.text())
	r.Policy = p.list(`,"policy":[`)
	r.Reasons = p.list(`,"reasons":[`)
	r.Serial = p.optional(`,"serial":`)
	r.Subject = p.optional(`,"subject":`)
	r.Target = p.optional(`,"target":`)
	p.want(`,"type":`)
	r.Type = p.text()
	p.want(`,"v":1}`)
	r.Version = Version
	return r
}

func (p *parser) next(token string) bool {
	if end := p.pos + len(token); end <= len(p.s) && p.s[p.pos:end] == token {
		p.pos = end
		return true
	}
	return false
}

func (p *parser) want(token string) {
	if !p.next(token) {
		p.failed = true
	}
}

// first reads a member that stands before one that is always there, empty if it is
// not.
func (p *parser) first(name string) string {
	s := p.optional(name)
	if s != "" {
		p.want(`,`)
	}
	return s
}

func (p *parser) optional(name string) string {
	if !p.next(name) {
		return ""
	}
	s := p.text()
	if s == "" { // would have been left out
		p.failed = true
	}
	return s
}

// time reads a moment in UTC with microseconds, written as briefly as can be.
func (p *parser) time() time.Time {
	text := p.text()
	at, err := time.Parse(time.RFC3339Nano, text)
	at = at.UTC()
	var again [len(time.RFC3339Nano)]byte
	if err != nil || at.Nanosecond()%1000 != 0 || string(at.AppendFormat(again[:0], time.RFC3339Nano)) != text {
		p.failed = true
	}
	return at
}

func (p *parser) list(open string) []string {
	if !p.next(open) {
		return nil
	}
	var list []string
	for !p.failed {
		if s := p.text(); p.keep {
			list = append(list, s)
		}
		if !p.next(`,`) {
			break
		}
	}
	p.want(`]`)
	return list
}

func (p *parser) facts(open string) map[string]string {
	if !p.next(open) {
		return nil
	}
	var facts map[string]string
	if p.keep {
		facts = make(map[string]string)
	}
	for last, first := "", true; !p.failed; first = false {
		name := p.text()
		if !first && canon.Compare(last, name) >= 0 {
			p.failed = true
		}
		last = name
		p.want(`:`)
		if value := p.text(); p.keep {
			facts[name] = value
		}
		if !p.next(`,`) {
			break
		}
	}
	p.want(`}`)
	return facts
}

func (p *parser) text() string {
	if p.want(`"`); p.failed {
		return ""
	}
	start, ascii := p.pos, true
	for i := start; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '"':
			p.pos = i + 1
			s := p.s[start:i]
			if !ascii && !utf8.ValidString(s) {
				p.failed = true
			}
			return s
		case c == '\\':
			return p.escaped(start, i)
		case c < 0x20:
			p.failed = true
			return ""
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	p.failed = true
	return ""
}

// escaped finishes a text that begins at start and has its first escape at i.
// It takes the escapes of RFC 8785 section 3.2.2.2, each only for what has no
// shorter form.
func (p *parser) escaped(start, i int) string {
	b := []byte(p.s[start:i])
	for s := p.s[i:]; len(s) > 1; {
		switch {
		case s[0] == '"':
			p.pos = len(p.s) - len(s) + 1
			if !utf8.Valid(b) {
				p.failed = true
			}
			return string(b)
		case s[0] < 0x20:
			s = ""
		case s[0] != '\\':
			b, s = append(b, s[0]), s[1:]
		default:
			c, n := unescape(s)
			b, s = append(b, c), s[n:]
			if n == 0 {
				s = ""
			}
		}
	}
	p.failed = true
	return ""
}

// unescape reads the escape that s begins with, and how long it is; zero if it
// is none that the canonical form has.
func unescape(s string) (c byte, n int) {
	if k := strings.IndexByte(`"\btnfr`, s[1]); k >= 0 {
		return "\"\\\b\t\n\f\r"[k], 2
	}
	if len(s) < 6 || s[1:4] != "u00" || s[4] > '1' {
		return 0, 0
	}
	low := strings.IndexByte("0123456789abcdef", s[5])
	if low < 0 || s[4] < '0' {
		return 0, 0
	}
	c = (s[4]-'0')<<4 | byte(low) //nolint:gosec // below 16
	if strings.IndexByte("\b\t\n\f\r", c) >= 0 {
		return 0, 0
	}
	return c, 6
}
