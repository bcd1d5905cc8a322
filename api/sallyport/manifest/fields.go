package manifest

import (
	"fmt"
	"math"
	"sort"
	"unicode/utf8"
)

// Fields is the form of a flat JSON object: what may be in it, by name. A name
// that is not listed is refused.
type Fields map[string]Field

// Field is the form of one value.
type Field struct {
	// Type is string, integer, boolean or strings (a list of strings).
	// Integers are within plus or minus 2^53; larger ones travel as strings.
	Type     string   `json:"type"`
	Required bool     `json:"required,omitempty"`
	Values   []string `json:"values,omitempty"`    // the only strings allowed
	MaxBytes int      `json:"max_bytes,omitempty"` // of a string, of each in a list; 0 is 4096
	MaxItems int      `json:"max_items,omitempty"` // of a list; 0 is 64
	Secret   bool     `json:"secret,omitempty"`    // in config: never shown
	Default  any      `json:"default,omitempty"`   // what an absent value means
	Help     string   `json:"help,omitempty"`
}

// The types of a field.
const (
	TypeString  = "string"
	TypeInteger = "integer"
	TypeBoolean = "boolean"
	TypeStrings = "strings"
)

const (
	maxFields       = 64
	defaultMaxBytes = 4096
	defaultMaxItems = 64
	safeInteger     = 1 << 53
)

var fieldPattern = expression{text: `^[a-z][a-z0-9_]{0,63}$`}

func (f Fields) validate() error {
	if len(f) > maxFields {
		return fmt.Errorf("at most %d fields", maxFields)
	}
	for _, name := range f.names() {
		field := f[name]
		switch {
		case !fieldPattern.MatchString(name):
			return fmt.Errorf("field %q must be lower-case letters, digits and underscores", name)
		case field.MaxBytes < 0 || field.MaxItems < 0 || len(field.Values) > 256 || !plain(field.Help):
			return fmt.Errorf("field %q has a limit or a text that is out of range", name)
		case field.Required && field.Default != nil:
			return fmt.Errorf("field %q cannot be required and have a default", name)
		}
		switch field.Type {
		case TypeString, TypeInteger, TypeBoolean, TypeStrings:
		default:
			return fmt.Errorf("field %q: type must be string, integer, boolean or strings", name)
		}
		if field.Default != nil {
			if err := field.check(field.Default); err != nil {
				return fmt.Errorf("field %q: default %w", name, err)
			}
		}
	}
	return nil
}

// Check reports the first reason for which values, JSON values as
// encoding/json decodes them, do not have this form. The error names the field
// and repeats no value.
func (f Fields) Check(values map[string]any) error {
	for _, name := range sorted(values) {
		field, ok := f[name]
		if !ok {
			return fmt.Errorf("%s is not known here; known are %v", clip(name), f.names())
		}
		if err := field.check(values[name]); err != nil {
			return fmt.Errorf("%s %w", name, err)
		}
	}
	for _, name := range f.names() {
		if _, ok := values[name]; !ok && f[name].Required {
			return fmt.Errorf("%s is missing", name)
		}
	}
	return nil
}

// Fill returns values with the defaults of what is absent. The argument is not
// changed.
func (f Fields) Fill(values map[string]any) map[string]any {
	out := make(map[string]any, len(values)+len(f))
	for name, v := range values {
		out[name] = v
	}
	for name, field := range f {
		if _, ok := out[name]; !ok && field.Default != nil {
			out[name] = field.Default
		}
	}
	return out
}

func (f Field) check(v any) error {
	switch f.Type {
	case TypeString:
		s, ok := v.(string)
		if !ok {
			return fmt.Errorf("must be a string")
		}
		return f.checkString(s)
	case TypeInteger:
		n, ok := v.(float64)
		if !ok || n != math.Trunc(n) || math.Abs(n) > safeInteger {
			return fmt.Errorf("must be a whole number")
		}
	case TypeBoolean:
		if _, ok := v.(bool); !ok {
			return fmt.Errorf("must be true or false")
		}
	case TypeStrings:
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("must be a list of strings")
		}
		limit := f.MaxItems
		if limit == 0 {
			limit = defaultMaxItems
		}
		if len(list) > limit {
			return fmt.Errorf("must have at most %d entries", limit)
		}
		for _, e := range list {
			s, ok := e.(string)
			if !ok {
				return fmt.Errorf("must be a list of strings")
			}
			if err := f.checkString(s); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("has a type that is not known")
	}
	return nil
}

func (f Field) checkString(s string) error {
	limit := f.MaxBytes
	if limit == 0 {
		limit = defaultMaxBytes
	}
	if len(s) > limit || !utf8.ValidString(s) {
		return fmt.Errorf("must be valid text of at most %d bytes", limit)
	}
	if len(f.Values) > 0 && !contains(f.Values, s) {
		return fmt.Errorf("must be one of %v", f.Values)
	}
	return nil
}

func (f Fields) names() []string { return sorted(f) }

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func clip(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return fmt.Sprintf("%q", s)
}
