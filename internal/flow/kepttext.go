package flow

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// keptText are bytes that are text nearly always, as credentials are. In JSON
// they are a string: a mark, and then the text or, of what is no UTF-8, base64.
// Base64 for all would be a third longer.
type keptText []byte

const (
	markText   = "="
	markBase64 = "+"
)

// marked is the string before JSON.
func (t keptText) marked() string {
	if utf8.Valid(t) {
		return markText + string(t)
	}
	return markBase64 + base64.StdEncoding.EncodeToString(t)
}

func (t *keptText) UnmarshalJSON(data []byte) (err error) {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err //nolint:wrapcheck // json's to wrap
	}
	switch {
	case text == "":
		return errors.New("text without a mark")
	case text[:1] == markText:
		*t = []byte(text[1:])
	case text[:1] == markBase64:
		*t, err = base64.StdEncoding.DecodeString(text[1:])
	default:
		return errors.New("text with an unknown mark")
	}
	return err //nolint:wrapcheck // json's to wrap
}
