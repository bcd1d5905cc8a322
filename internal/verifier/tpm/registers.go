package tpm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Registers are the values of the 24 registers of the SHA-256 bank, read from
// JSON: a list of as many texts in hex. It is read by hand: a list of hexadecimal
// texts of one length has no other form, and nothing is built of a longer one.
// The zero value is a list that was absent.
type Registers struct{ all []byte }

// UnmarshalJSON implements json.Unmarshaler.
func (r *Registers) UnmarshalJSON(list []byte) error {
	all := make([]byte, registers*sha256.Size)
	if !readHex(list, all) {
		return noRegisters()
	}
	r.all = all
	return nil
}

func noRegisters() error {
	return fault.Invalidf("pcrs must be a list of the values of %d registers, of %d bytes in hex", registers, sha256.Size)
}

// Values are the values in the order of the registers; Invalid if there were none.
func (r *Registers) Values() ([][]byte, error) {
	if r.all == nil {
		return nil, noRegisters()
	}
	out := make([][]byte, registers)
	for i := range out {
		out[i] = r.all[i*sha256.Size : (i+1)*sha256.Size : (i+1)*sha256.Size]
	}
	return out, nil
}

// readHex fills all from a JSON list of texts in hex, each the value of one
// register, and reports whether the list is exactly that.
func readHex(list, all []byte) bool {
	const width = 2 * sha256.Size
	rest, ok := after(list, '[')
	for first := true; len(all) > 0; first, all = false, all[sha256.Size:] {
		if !first && ok {
			rest, ok = after(rest, ',')
		}
		if ok {
			rest, ok = after(rest, '"')
		}
		if !ok || len(rest) <= width || rest[width] != '"' {
			return false
		}
		if _, err := hex.Decode(all[:sha256.Size], rest[:width]); err != nil {
			return false
		}
		rest = rest[width+1:]
	}
	rest, ok = after(rest, ']')
	return ok && len(space(rest)) == 0
}

// after skips white space of JSON and one mark.
func after(text []byte, mark byte) ([]byte, bool) {
	text = space(text)
	if len(text) == 0 || text[0] != mark {
		return nil, false
	}
	return text[1:], true
}

// space skips white space of JSON.
func space(text []byte) []byte {
	for len(text) > 0 && (text[0] == ' ' || text[0] == '\n' || text[0] == '\r' || text[0] == '\t') {
		text = text[1:]
	}
	return text
}

// names are pcr00 to pcr23.
var names = func() (out [registers]string) {
	for i := range out {
		out[i] = fmt.Sprintf("pcr%02d", i)
	}
	return out
}()

// PCRClaims are the registers for policies: pcr00 to pcr23.
func PCRClaims(pcrs [][]byte) map[string]any {
	out := make(map[string]any, len(pcrs)+6) // and what Verify adds
	var text strings.Builder
	text.Grow(len(pcrs) * 2 * sha256.Size)
	var one [2 * sha256.Size]byte
	for _, v := range pcrs {
		text.Write(hex.AppendEncode(one[:0], v))
	}
	whole := text.String() // of which each claim is a part
	for i, v := range pcrs {
		out[names[i]], whole = whole[:2*len(v)], whole[2*len(v):]
	}
	return out
}
