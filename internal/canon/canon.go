// Package canon is the one place where JSON of strangers is read and where
// JSON that will be hashed or signed is written.
//
// Reading: [Strict] and [Lenient] bound size and depth before anything is
// built, match names by case, and refuse duplicate names, invalid UTF-8,
// numbers outside the range of a double, and trailing data. encoding/json does
// none of this by default, and two parsers that disagree about a message are a
// hole.
//
// Writing: [JCS] and [Transform] give the one byte string of RFC 8785. The
// encoder uses the standard library alone. Canonical bytes are for comparing,
// hashing and signing; they are no way to make a foreign message harmless,
// whose original bytes must be forwarded or refused.
package canon

import (
	"bytes"
	"encoding/json"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// MaxDepth is how deeply arrays and objects may be nested in what [Transform]
// and [JCS] accept.
const MaxDepth = 512

// JCS returns the RFC 8785 form of a Go value, read through encoding/json's
// rules for struct tags and marshalling methods.
//
// What the form cannot carry unchanged is refused as Invalid, not altered:
// infinities and NaN, integers that a double would round (send 64-bit numbers
// as strings), and text that is not valid UTF-8. Because encoding/json writes
// the latter as the escape \ufffd, raw JSON inside v that has that very escape
// is refused too. Safe for concurrent use as far as v is.
func JCS(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fault.Invalidf("the value has no canonical JSON form").Because(err)
	}
	t := transformer{data: b.Bytes(), exact: true}
	return t.run()
}

// Transform returns the RFC 8785 form of one JSON text. Duplicate names,
// invalid UTF-8, unpaired surrogates, numbers beyond the range of a double,
// nesting beyond [MaxDepth] and trailing data are refused as Invalid. A number
// with more digits than a double holds is rounded, as RFC 8785 section 3.2.2.3
// says. The cost is linear in the input but for sorting names; the caller
// bounds the size.
func Transform(data []byte) ([]byte, error) {
	t := transformer{data: data}
	return t.run()
}
