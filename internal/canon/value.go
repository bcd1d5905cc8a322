package canon

import (
	"math"
	"slices"
	"strconv"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// AppendValue appends the RFC 8785 form of a JSON value as [Strict] decodes it:
// nil, bool, string, float64, []any and map[string]any. Any other type, a number
// that is not finite, text that is not valid UTF-8, and nesting beyond
// [MaxDepth] are Invalid. It gives what [JCS] gives, in a fraction of the time.
func AppendValue(dst []byte, v any) ([]byte, error) { return appendValue(dst, v, 0) }

func appendValue(dst []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case string:
		return AppendString(dst, v)
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return dst, fault.Invalidf("a number is out of range")
		}
		return appendFloat(dst, v), nil
	}
	if depth == MaxDepth {
		return dst, fault.Invalidf("the value is nested too deeply")
	}
	switch v := v.(type) {
	case []any:
		if v == nil {
			return append(dst, "null"...), nil
		}
		return appendArray(dst, v, depth+1)
	case map[string]any:
		if v == nil {
			return append(dst, "null"...), nil
		}
		return appendObject(dst, v, depth+1)
	}
	return dst, fault.Invalidf("the value is of a type that JSON does not have")
}

func appendArray(dst []byte, list []any, depth int) ([]byte, error) {
	dst = append(dst, '[')
	for i, item := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendValue(dst, item, depth); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendObject(dst []byte, members map[string]any, depth int) ([]byte, error) {
	var few [8]string
	names := few[:0]
	for name := range members {
		names = append(names, name)
	}
	slices.SortFunc(names, Compare)
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = AppendString(dst, name); err != nil {
			return dst, err
		}
		if dst, err = appendValue(append(dst, ':'), members[name], depth); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}
