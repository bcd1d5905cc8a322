package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// yamlOf writes JSON as YAML in block style, with members in the order of the
// JSON text. Texts that a YAML reader could take for something else are quoted
// as JSON, which YAML 1.2 reads alike.
func yamlOf(text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var b bytes.Buffer
	if err := yamlValue(&b, d, 0, true); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// yamlValue writes the next value. fresh says that the cursor stands at the
// beginning of a line, already indented.
func yamlValue(b *bytes.Buffer, d *json.Decoder, indent int, fresh bool) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch v := t.(type) {
	case json.Delim:
		if !d.More() {
			if _, err := d.Token(); err != nil {
				return err
			}
			lead(b, fresh)
			b.WriteString(map[json.Delim]string{'{': "{}\n", '[': "[]\n"}[v])
			return nil
		}
		if v == '{' {
			return yamlObject(b, d, indent, fresh)
		}
		return yamlList(b, d, indent, fresh)
	case string:
		lead(b, fresh)
		fmt.Fprintln(b, yamlText(v))
	case nil:
		lead(b, fresh)
		b.WriteString("null\n")
	default: // json.Number, bool
		lead(b, fresh)
		fmt.Fprintln(b, v)
	}
	return nil
}

func lead(b *bytes.Buffer, fresh bool) {
	if !fresh {
		b.WriteByte(' ')
	}
}

func yamlObject(b *bytes.Buffer, d *json.Decoder, indent int, fresh bool) error {
	if !fresh {
		b.WriteByte('\n')
	}
	for n := 0; d.More(); n++ {
		name, err := d.Token()
		if err != nil {
			return err
		}
		if n > 0 || !fresh {
			b.WriteString(strings.Repeat("  ", indent))
		}
		text, _ := name.(string)
		b.WriteString(yamlText(text) + ":")
		if err := yamlValue(b, d, indent+1, false); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func yamlList(b *bytes.Buffer, d *json.Decoder, indent int, fresh bool) error {
	if !fresh {
		b.WriteByte('\n')
	}
	for n := 0; d.More(); n++ {
		if n > 0 || !fresh {
			b.WriteString(strings.Repeat("  ", indent))
		}
		b.WriteString("- ")
		if err := yamlValue(b, d, indent+1, true); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

var (
	plainText = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./@+-]*$`)
	reserved  = regexp.MustCompile(`(?i)^(y|yes|n|no|true|false|on|off|null|nan|inf)$`)
)

func yamlText(text string) string {
	if plainText.MatchString(text) && !reserved.MatchString(text) {
		return text
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // a string can always be written
	return strings.TrimSuffix(b.String(), "\n")
}
