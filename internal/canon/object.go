package canon

import (
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Object is [Lenient] for an object of which nothing is known, in half of the
// time: a token of a guest that was not met lately is decoded at each request. Its
// values are those of encoding/json: map[string]any, []any, string, float64, bool
// and nil. Its texts are parts of one copy of data, which any of them keeps.
//
// What has no escapes, fractions or negative numbers in it is read here. All else,
// and whatever is wrong, is left to the decoder, which says where: this reads
// nothing that the decoder would refuse, or read differently.
func Object(data []byte, maxBytes, maxDepth int) (map[string]any, error) {
	if len(data) > maxBytes {
		return nil, fault.Invalidf("the JSON is larger than the %d bytes allowed here", maxBytes)
	}
	r := plainReader{text: string(data), depth: maxDepth}
	if v, ok := r.value(); ok && r.next() == 0 && r.at == len(r.text) {
		if object, ok := v.(map[string]any); ok {
			return object, nil
		}
	}
	var object map[string]any
	err := decode(data, maxBytes, maxDepth, &object, json.RejectUnknownMembers(false))
	return object, err
}

// plainReader reads plain JSON. Each method reports false where the text is not
// plain, or wrong; nothing that was read counts then.
type plainReader struct {
	text  string
	at    int
	depth int // levels that are left
}

// next skips white space and gives the byte that follows; 0 at the end, which
// nowhere may stand for itself.
func (r *plainReader) next() byte {
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// skip takes one byte, if it is the next.
func (r *plainReader) skip(c byte) bool {
	if r.next() != c {
		return false
	}
	r.at++
	return true
}

func (r *plainReader) value() (any, bool) {
	switch c := r.next(); {
	case c == '"':
		return r.str()
	case c == '{':
		return r.object()
	case c == '[':
		return r.array()
	case c >= '0' && c <= '9':
		return r.number()
	}
	for _, w := range words {
		if strings.HasPrefix(r.text[r.at:], w.text) {
			r.at += len(w.text) // what follows is a delimiter, or refused by who reads on
			return w.value, true
		}
	}
	return nil, false
}

var words = [...]struct {
	text  string
	value any
}{{"true", true}, {"false", false}, {"null", nil}}

func (r *plainReader) object() (map[string]any, bool) {
	object := map[string]any{}
	ok := r.members('}', func() bool {
		if r.next() != '"' {
			return false
		}
		name, ok := r.str()
		if !ok || !r.skip(':') {
			return false
		}
		if _, twice := object[name]; twice {
			return false
		}
		object[name], ok = r.value()
		return ok
	})
	return object, ok
}

func (r *plainReader) array() ([]any, bool) {
	array := []any{}
	ok := r.members(']', func() bool {
		v, ok := r.value()
		array = append(array, v)
		return ok
	})
	return array, ok
}

// members reads what stands between brackets, and commas between.
func (r *plainReader) members(end byte, one func() bool) bool {
	if r.depth--; r.depth < 0 {
		return false
	}
	r.at++
	for first := true; !r.skip(end); first = false {
		if !first && !r.skip(',') || !one() {
			return false
		}
	}
	r.depth++
	return true
}

// str reads a string without escapes.
func (r *plainReader) str() (string, bool) {
	start := r.at + 1
	n := strings.IndexByte(r.text[start:], '"')
	if n < 0 {
		return "", false
	}
	s := r.text[start : start+n]
	r.at = start + n + 1
	ascii := true
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == '\\':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return s, ascii || utf8.ValidString(s)
}

// number reads an integer that a float64 holds exactly.
func (r *plainReader) number() (float64, bool) {
	const mostDigits = 15
	start, n := r.at, 0
	for ; r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9'; r.at++ {
		n = n*10 + int(r.text[r.at]-'0')
		if r.at-start >= mostDigits {
			return 0, false
		}
	}
	if r.text[start] == '0' && r.at-start > 1 {
		return 0, false
	}
	// A fraction or an exponent is no delimiter: who reads on finds it.
	return float64(n), true
}
