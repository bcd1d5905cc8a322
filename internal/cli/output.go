package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"

	"github.com/sallyport-project/sallyport/internal/fault"
)

var formats = []string{"table", "json", "yaml"}

func known(format string) bool { return slices.Contains(formats, format) }

// formatOf finds --output in a command line that was not understood.
func formatOf(args []string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--output="); ok {
			return v
		}
		if (a == "--output" || a == "-o") && i+1 < len(args) {
			return args[i+1]
		}
	}
	return formats[0]
}

// print writes a value as JSON or YAML, or calls table for people.
func (s *shell) print(value any, table func() error) error {
	if s.output == "table" {
		return table()
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(value); err != nil {
		return fault.Wrap(err, "encode output")
	}
	out := b.Bytes()
	if s.output == "yaml" {
		var err error
		if out, err = yamlOf(out); err != nil {
			return fault.Wrap(err, "encode output")
		}
	}
	_, err := s.out.Write(out)
	return written(err)
}

// raw writes bytes as they are, or, for machines, an object that has them in base64
// as value.
func (s *shell) raw(value []byte, about map[string]any) error {
	about["value"] = value
	return s.print(about, func() error {
		_, err := s.out.Write(value)
		return written(err)
	})
}

// line writes one line of output for people.
func (s *shell) line(format string, args ...any) error {
	_, err := fmt.Fprintln(s.out, visible(fmt.Sprintf(format, args...)))
	return written(err)
}

func written(err error) error {
	if err != nil {
		return fault.Unavailablef("the output cannot be written").Because(err)
	}
	return nil
}

// rows prints a table: columns with a title, one row a line.
func (s *shell) rows(titles []string, rows [][]string) error {
	if len(rows) == 0 {
		return s.line("none")
	}
	width := make([]int, len(titles))
	for i, t := range titles {
		width[i] = lipgloss.Width(t)
	}
	for _, row := range rows {
		for i := range row {
			row[i] = visible(row[i])
			width[i] = max(width[i], lipgloss.Width(row[i]))
		}
	}
	var b strings.Builder
	write := func(row []string, style func(string) string) {
		for i, cell := range row {
			b.WriteString(style(cell))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-lipgloss.Width(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	write(titles, func(t string) string { return s.paint(s.out, bold, t) })
	for _, row := range rows {
		write(row, func(t string) string { return t })
	}
	_, err := io.WriteString(s.out, b.String())
	return written(err)
}

// facts prints pairs of name and value, leaving out those without a value.
func (s *shell) facts(pairs ...string) error {
	width := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, lipgloss.Width(pairs[i]))
		}
	}
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		b.WriteString(s.paint(s.out, bold, pairs[i]) + strings.Repeat(" ", width-lipgloss.Width(pairs[i])+2))
		b.WriteString(visible(pairs[i+1]) + "\n")
	}
	_, err := io.WriteString(s.out, b.String())
	return written(err)
}

// visible shows control characters as escapes, so that no text of a stranger
// acts on the terminal.
func visible(text string) string {
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar
}

// when is a time for people, empty for none.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

type colour int

const (
	bold colour = iota
	red
	yellow
	green
)

var styles = map[colour]lipgloss.Style{
	bold:   lipgloss.NewStyle().Bold(true),
	red:    lipgloss.NewStyle().Foreground(lipgloss.Red),
	yellow: lipgloss.NewStyle().Foreground(lipgloss.Yellow),
	green:  lipgloss.NewStyle().Foreground(lipgloss.Green),
}

// paint colours a text if the stream is a terminal and the user wants colours
// (no-color.org).
func (s *shell) paint(w io.Writer, c colour, text string) string {
	if !terminal(w) || s.Getenv("NO_COLOR") != "" || s.Getenv("TERM") == "dumb" {
		return text
	}
	return styles[c].Render(text)
}

// terminal reports whether a stream is one.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // a character device too
	return err != nil || !os.SameFile(info, null)
}
