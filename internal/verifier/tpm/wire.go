package tpm

import (
	"bytes"
	"encoding/base64"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// maxEvidence bounds evidence in bytes; the event log in it is base64.
const maxEvidence = 16<<10 + eventlog.MaxSize/3*4 + 4

// wireEvidence is evidence as guests send it. event_log is an addition of ours,
// which others do not send.
type wireEvidence struct {
	AK    string `json:"ak_public"`
	Quote struct {
		Signature string    `json:"signature"`
		Message   string    `json:"message"`
		PCRs      Registers `json:"pcrs"`
	} `json:"tpm_quote"`
	Log string `json:"event_log"`
}

// texts are the members of evidence, in base64 but for the registers. They may
// share memory with the evidence.
type texts struct {
	ak, signature, message, log []byte
	pcrs                        Registers
}

// base64text is how evidence carries bytes.
var base64text = base64.StdEncoding.Strict()

// parse reads evidence into what is checked.
func parse(body []byte) (s Shown, ak string, log []byte, err error) {
	t, ok := plain(body)
	if !ok {
		if t, err = decode(body); err != nil {
			return s, "", nil, err
		}
	}
	fields := [4][]byte{}
	for i, f := range []struct {
		name string
		text []byte
		most int
	}{
		{"ak_public", t.ak, maxStructure},
		{"tpm_quote.signature", t.signature, maxStructure},
		{"tpm_quote.message", t.message, maxStructure},
		{"event_log", t.log, maxEvidence},
	} {
		if len(f.text) > f.most {
			return s, "", nil, fault.Invalidf("%s is too long", f.name)
		}
		fields[i] = make([]byte, base64text.DecodedLen(len(f.text)))
		n, err := base64text.Decode(fields[i], f.text)
		if err != nil {
			return s, "", nil, fault.Invalidf("%s must be standard base64", f.name)
		}
		fields[i] = fields[i][:n]
	}
	if s.PCRs, err = t.pcrs.Values(); err != nil {
		return s, "", nil, err
	}
	if s.Key, err = publicKey(fields[0]); err != nil {
		return s, "", nil, err
	}
	if s.Signature, err = ParseSignature(fields[1]); err != nil {
		return s, "", nil, err
	}
	s.Message, s.Bank = fields[2], eventlog.SHA256
	return s, string(t.ak), fields[3], nil
}

// decode reads any evidence, and says what is wrong with it.
func decode(body []byte) (texts, error) {
	var w wireEvidence
	if err := canon.Lenient(body, maxEvidence, 8, &w); err != nil {
		return texts{}, err
	}
	return texts{[]byte(w.AK), []byte(w.Quote.Signature), []byte(w.Quote.Message), []byte(w.Log), w.Quote.PCRs}, nil
}

// plain reads evidence of the form that guests write, in a tenth of the time:
// the known members alone, each at most once, and texts without escapes. It reports
// false for everything else, be it well-formed or not: [decode] is who judges that.
func plain(body []byte) (t texts, ok bool) {
	if len(body) > maxEvidence {
		return t, false
	}
	p := &plainReader{rest: body}
	quote := false
	p.object(func(name string) {
		switch name {
		case "ak_public":
			p.text(&t.ak)
		case "event_log":
			p.text(&t.log)
		case "tpm_quote":
			quote, p.other = true, p.other || quote
			p.object(func(name string) {
				switch name {
				case "signature":
					p.text(&t.signature)
				case "message":
					p.text(&t.message)
				case "pcrs":
					p.registers(&t.pcrs)
				default:
					p.other = true
				}
			})
		default:
			p.other = true
		}
	})
	return t, !p.other && len(space(p.rest)) == 0
}

// plainReader takes parts of JSON from the front, until it meets another form.
type plainReader struct {
	rest  []byte
	other bool
}

func (p *plainReader) mark(c byte) {
	rest, ok := after(p.rest, c)
	p.rest, p.other = rest, p.other || !ok
}

// object reads an object; value reads the value of a member.
func (p *plainReader) object(value func(name string)) {
	p.mark('{')
	for first := true; !p.other; first = false {
		if rest, ok := after(p.rest, '}'); ok && !first {
			p.rest = rest
			return
		}
		if !first {
			p.mark(',')
		}
		name := p.take()
		p.mark(':')
		if !p.other {
			value(string(name))
		}
	}
}

// take reads a text without escapes. Of what no text of JSON may hold it looks for
// line ends alone: base64, hex and the names of members have no room for the rest.
func (p *plainReader) take() []byte {
	p.mark('"')
	end := bytes.IndexByte(p.rest, '"')
	if p.other || end < 0 {
		p.other = true
		return nil
	}
	text := p.rest[:end:end]
	p.rest = p.rest[end+1:]
	p.other = bytes.IndexByte(text, '\\') >= 0 || bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0
	return text
}

// text reads a text into a place that must be empty.
func (p *plainReader) text(into *[]byte) {
	text := p.take()
	p.other = p.other || *into != nil
	*into = text
}

func (p *plainReader) registers(into *Registers) {
	end := bytes.IndexByte(p.rest, ']')
	if end < 0 || into.all != nil || into.UnmarshalJSON(p.rest[:end+1]) != nil {
		p.other = true
		return
	}
	p.rest = p.rest[end+1:]
}
