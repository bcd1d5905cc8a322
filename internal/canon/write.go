package canon

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/fault"
)

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string in the form of RFC 8785 section
// 3.2.2.2: only what must be escaped is. Text that is not valid UTF-8 is
// Invalid. It is exported for encoders of one fixed type on a hot path; they
// must be proved equal to [JCS].
func AppendString(dst []byte, s string) ([]byte, error) {
	dst = append(dst, '"')
	start, ascii := 0, true
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			ascii = ascii && c < utf8.RuneSelf
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	if !ascii && !utf8.ValidString(s) {
		return dst, fault.Invalidf("a text is not valid UTF-8")
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"'), nil
}

// appendFloat appends a finite double as ECMAScript writes it (RFC 8785 section
// 3.2.2.3).
func appendFloat(dst []byte, f float64) []byte {
	if f == 0 {
		return append(dst, '0') // also for minus zero
	}
	format := byte('f')
	if abs := math.Abs(f); abs < 1e-6 || abs >= 1e21 {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if n := len(dst); format == 'e' && n >= 4 && dst[n-4] == 'e' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // e-09 is written e-9
		dst = dst[:n-1]
	}
	return dst
}

// scanNumber returns the end of the JSON number that begins at pos, and whether
// it is written as an integer; a negative end if it is malformed.
func scanNumber(data []byte, pos int) (end int, integer bool) {
	digits := func() bool {
		from := pos
		for pos < len(data) && data[pos] >= '0' && data[pos] <= '9' {
			pos++
		}
		return pos > from
	}
	if pos < len(data) && data[pos] == '-' {
		pos++
	}
	if pos < len(data) && data[pos] == '0' {
		pos++
	} else if !digits() {
		return -1, false
	}
	integer = true
	if pos < len(data) && data[pos] == '.' {
		integer = false
		if pos++; !digits() {
			return -1, false
		}
	}
	if pos < len(data) && (data[pos] == 'e' || data[pos] == 'E') {
		integer = false
		pos++
		if pos < len(data) && (data[pos] == '+' || data[pos] == '-') {
			pos++
		}
		if !digits() {
			return -1, false
		}
	}
	return pos, integer
}

// Compare orders two valid UTF-8 strings by their UTF-16 code units, as RFC 8785
// section 3.2.3 orders member names. That is the order of bytes, but for
// characters beyond U+FFFF, whose surrogates sort before U+E000.
func Compare(a, b string) int {
	n := min(len(a), len(b))
	i := 0
	for i < n && a[i] == b[i] {
		i++
	}
	if i == n {
		return len(a) - len(b)
	}
	if a[i] < utf8.RuneSelf || b[i] < utf8.RuneSelf {
		return strings.Compare(a[i:], b[i:])
	}
	for i > 0 && !utf8.RuneStart(a[i]) {
		i--
	}
	ra, _ := utf8.DecodeRuneInString(a[i:])
	rb, _ := utf8.DecodeRuneInString(b[i:])
	if (ra > 0xffff) != (rb > 0xffff) && min(ra, rb) >= 0xe000 {
		return int(rb - ra)
	}
	return int(ra - rb)
}
