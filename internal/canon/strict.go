package canon

import (
	"bytes"
	"errors"
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Strict decodes one JSON text of a stranger into v, a pointer to a zero value.
//
// Names match by case; an unknown or duplicate name, invalid UTF-8, a number
// outside the range of a double, more than maxBytes bytes, nesting deeper than
// maxDepth, a bare null, and anything after the value are Invalid. The public
// text says where, by JSON pointer, and never repeats a value. After an error v
// may be partly filled and must not be used.
func Strict(data []byte, maxBytes, maxDepth int, v any) error {
	return decode(data, maxBytes, maxDepth, v, json.RejectUnknownMembers(true))
}

// Lenient is [Strict] for messages that may grow: unknown names are ignored,
// every other rule holds, also inside the ignored parts.
func Lenient(data []byte, maxBytes, maxDepth int, v any) error {
	return decode(data, maxBytes, maxDepth, v, json.RejectUnknownMembers(false))
}

func decode(data []byte, maxBytes, maxDepth int, v any, unknown json.Options) error {
	if len(data) > maxBytes {
		return fault.Invalidf("the JSON is larger than the %d bytes allowed here", maxBytes)
	}
	if err := survey(data, maxDepth); err != nil {
		return err
	}
	if bytes.Equal(bytes.Trim(data, " \t\r\n"), []byte("null")) {
		return fault.Invalidf("the JSON must not be null")
	}
	if err := json.Unmarshal(data, v, unknown); err != nil {
		return explain(err)
	}
	return nil
}

// survey checks depth and the range of numbers in one pass that allocates
// nothing. The decoder would clamp 1e400 silently and has a depth limit of its
// own that is too high. It need not reject what the decoder rejects anyway.
func survey(data []byte, maxDepth int) error {
	depth := 0
	for i := 0; i < len(data); {
		switch c := data[i]; {
		case c == '"':
			i = closing(data, i+1)
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fault.Invalidf("the JSON is nested deeper than the %d levels allowed here", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		case c == '-' || c >= '0' && c <= '9':
			end, integer := scanNumber(data, i)
			if end < 0 {
				return fault.Invalidf("the JSON has a malformed number (byte %d)", i)
			}
			if !integer || end-i > 300 {
				f, err := strconv.ParseFloat(string(data[i:end]), 64)
				if err != nil || math.IsInf(f, 0) {
					return fault.Invalidf("the JSON has a number that is out of range (byte %d)", i)
				}
			}
			i = end
			continue
		}
		i++
	}
	return nil
}

// closing is where the string ends that begins at start: at the first quote
// behind an even number of backslashes. Texts of evidence are long, so it looks
// for the quotes and not at each byte.
func closing(data []byte, start int) int {
	for {
		n := bytes.IndexByte(data[start:], '"')
		if n < 0 {
			return len(data)
		}
		end := start + n
		escapes := end
		for escapes > start && data[escapes-1] == '\\' {
			escapes--
		}
		if (end-escapes)%2 == 0 {
			return end
		}
		start = end + 1
	}
}

// maxPointer bounds what of a foreign message a public text repeats.
const maxPointer = 120

// explain turns the decoder's error into a public text that names the place and
// no value.
func explain(err error) error {
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		what := "it is not well-formed"
		if errors.Is(s, jsontext.ErrDuplicateName) {
			what = "a member name stands twice"
		}
		return fault.Invalidf("the JSON is not acceptable: %s (at %s, byte %d)", what, place(s.JSONPointer), s.ByteOffset).Because(err)
	}
	if s, ok := errors.AsType[*json.SemanticError](err); ok {
		what := "the value does not have the expected form"
		if errors.Is(s, json.ErrUnknownName) {
			what = "this member is not known here"
		}
		return fault.Invalidf("the JSON is not acceptable: %s (at %s)", what, place(s.JSONPointer)).Because(err)
	}
	return fault.Invalidf("the JSON is not acceptable").Because(err)
}

func place(p jsontext.Pointer) string {
	if p == "" {
		return "the top"
	}
	if len(p) > maxPointer {
		return strconv.QuoteToASCII(string(p[:maxPointer])) + "..."
	}
	return strconv.QuoteToASCII(string(p))
}
