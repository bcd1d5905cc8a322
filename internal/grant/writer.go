package grant

import (
	"strconv"

	"github.com/sallyport-project/sallyport/internal/canon"
)

// writer writes the members of JSON objects, which its user opens and closes.
type writer struct {
	text []byte
	err  error
}

func (w *writer) name(name string) {
	if w.text[len(w.text)-1] != '{' {
		w.text = append(w.text, ',')
	}
	w.text = append(append(append(w.text, '"'), name...), `":`...)
}

func (w *writer) number(name string, n int64) {
	w.name(name)
	w.text = strconv.AppendInt(w.text, n, 10)
}

// value writes a JSON value as canon knows them.
func (w *writer) value(name string, v any) {
	w.name(name)
	if text, err := canon.AppendValue(w.text, v); err != nil {
		w.err = err
	} else {
		w.text = text
	}
}

// some writes a text that is not empty.
func (w *writer) some(name, text string) {
	if text != "" {
		w.value(name, text)
	}
}

// list writes texts, if there are any.
func (w *writer) list(name string, texts []string) {
	if len(texts) == 0 {
		return
	}
	list := make([]any, len(texts))
	for i, t := range texts {
		list[i] = t
	}
	w.value(name, list)
}
