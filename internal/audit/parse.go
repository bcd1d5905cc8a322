package audit

import (
	"bytes"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// ParseLeaf reads the canonical bytes of a record; anything else, another form
// of the same record included, is Invalid.
//
// It reads only the one form that [Record.Leaf] writes, and proves that by
// writing the record again and comparing. That is a third of the cost of
// decoding any JSON strictly, and every record of an export passes here.
func ParseLeaf(leaf []byte) (Record, error) {
	r, _, err := parseLeaf(leaf, make([]byte, 0, len(leaf)))
	return r, err
}

// parseLeaf is ParseLeaf with a buffer to write the record into again, which
// it returns, perhaps grown.
func parseLeaf(leaf, scratch []byte) (Record, []byte, error) {
	if len(leaf) > MaxLeaf {
		return Record{}, scratch, fault.Invalidf("the audit record is larger than %d bytes", MaxLeaf)
	}
	p := parser{s: string(leaf)}
	r := p.record()
	if p.failed || p.pos != len(p.s) {
		return Record{}, scratch, fault.Invalidf("the audit record is not in canonical form")
	}
	if err := r.validate(); err != nil {
		return Record{}, scratch, err
	}
	again, err := r.append(scratch[:0])
	if err != nil {
		return Record{}, again, err
	}
	if !bytes.Equal(again, leaf) || r.At.Nanosecond()%1000 != 0 {
		return Record{}, again, fault.Invalidf("the audit record is not in canonical form")
	}
	return r, again, nil
}

// parser reads the members of a record in their canonical order. It may take
// more than the canonical form; the comparison afterwards does not.
type parser struct {
	s      string
	pos    int
	failed bool
}

func (p *parser) record() Record {
	var r Record
	p.want(`{"actor":{`)
	if p.next(`"address":`) {
		r.Actor.Address = p.text()
		p.want(`,`)
	}
	p.want(`"kind":`)
	r.Actor.Kind = p.text()
	r.Actor.Session = p.optional(`,"session":`)
	r.Actor.Subject = p.optional(`,"subject":`)
	r.Actor.Via = p.optional(`,"via":`)
	p.want(`},"at":`)
	at, err := time.Parse(time.RFC3339Nano, p.text())
	if err != nil {
		p.failed = true
	}
	r.At = at.UTC()
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

func (p *parser) optional(name string) string {
	if p.next(name) {
		return p.text()
	}
	return ""
}

func (p *parser) list(open string) []string {
	if !p.next(open) {
		return nil
	}
	var list []string
	for !p.failed {
		list = append(list, p.text())
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
	facts := make(map[string]string)
	for !p.failed {
		name := p.text()
		p.want(`:`)
		facts[name] = p.text()
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
	start := p.pos
	for i := start; i < len(p.s); i++ {
		switch p.s[i] {
		case '"':
			p.pos = i + 1
			return p.s[start:i]
		case '\\':
			return p.escaped(start, i)
		}
	}
	p.failed = true
	return ""
}

const hexDigits = "0123456789abcdef"

// escaped finishes a text that begins at start and has its first escape at i.
// It knows the escapes of RFC 8785 section 3.2.2.2 and no others.
func (p *parser) escaped(start, i int) string {
	b := []byte(p.s[start:i])
	s := p.s[i:]
	for len(s) > 1 {
		switch {
		case s[0] == '"':
			p.pos = len(p.s) - len(s) + 1
			return string(b)
		case s[0] != '\\':
			b = append(b, s[0])
			s = s[1:]
		case s[1] == 'u' && len(s) > 6 && s[2:4] == "00":
			high, low := strings.IndexByte(hexDigits, s[4]), strings.IndexByte(hexDigits, s[5])
			if high < 0 || low < 0 {
				s = ""
				break
			}
			b = append(b, byte(high<<4|low)) //nolint:gosec // two digits of four bits
			s = s[6:]
		default:
			k := strings.IndexByte(`"\btnfr`, s[1])
			if k < 0 {
				s = ""
				break
			}
			b = append(b, "\"\\\b\t\n\f\r"[k])
			s = s[2:]
		}
	}
	p.failed = true
	return ""
}
