package annex

import (
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// A statement of an extension is looked at before an engine sees it: it must be
// one, and begin with a word that is allowed. What it may touch is not judged
// here but by the engine (authoriser, role), whose parser is the one that counts.

// reserved begins the names of what the host keeps in a database of an extension.
const reserved = "sallyport_"

// own is the table of applied migrations.
const own = reserved + "migrations"

// dialect is how an engine reads the characters of SQL. It is followed to the letter:
// what is a text here and words there would hide a statement from this look.
type dialect string

// The dialects, by the names of the engines.
const (
	ofSQLite   dialect = "sqlite"
	ofPostgres dialect = "postgres"
)

// token is a part of a statement: a word, a quoted text, or one other character.
type token struct {
	text   string // words in lower case, quoted texts without their quotes
	word   bool
	quoted bool
	value  bool // quoted, and no name
	end    bool // a semicolon
}

// scan cuts SQL into tokens. It leaves comments out.
func (d dialect) scan(sql string) ([]token, []int, error) {
	if len(sql) > mostSQL {
		return nil, nil, fault.Invalidf("a statement must have at most %d bytes", mostSQL)
	}
	if strings.IndexByte(sql, 0) >= 0 {
		return nil, nil, fault.Invalidf("a statement must not have a NUL byte")
	}
	var out []token
	var at []int // where each token ends
	for i := 0; i < len(sql); {
		n, t, err := d.next(sql[i:])
		if err != nil {
			return nil, nil, err
		}
		i += n
		if t != (token{}) {
			out, at = append(out, t), append(at, i)
		}
	}
	return out, at, nil
}

// next is the first token of s and its length; no token for space and comments.
func (d dialect) next(s string) (int, token, error) {
	switch c := s[0]; {
	case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v' && d == ofPostgres: // from version 16 on
		return 1, token{}, nil
	case strings.HasPrefix(s, "--"):
		return d.comment(s), token{}, nil
	case c == '\v': // SQLite takes it for a space after another space, and for an error elsewhere
		return 0, token{}, fault.Invalidf("a statement must not have a vertical tab")
	case strings.HasPrefix(s, "/*"):
		n := strings.Index(s[2:], "*/")
		if n < 0 || strings.Contains(s[2:n+3], "/*") { // PostgreSQL nests comments, also by /*/, SQLite does not
			return 0, token{}, fault.Invalidf("a statement has a comment without an end, or one in another")
		}
		return n + 4, token{}, nil
	case c == '\'' || c == '"' || d == ofSQLite && (c == '`' || c == '['): // in PostgreSQL an operator, and what an array has
		return quoted(s)
	case c == ';':
		return 1, token{text: ";", end: true}, nil
	case letter(c):
		return d.word(s)
	case c == '$' && len(s) > 1 && (s[1] == '$' || letter(s[1])):
		return 0, token{}, fault.Invalidf("texts between dollar signs are not taken")
	case d == ofSQLite && strings.IndexByte("$:@#", c) >= 0:
		return parameter(s)
	default:
		return 1, token{text: s[:1]}, nil
	}
}

// comment is the length of a comment to the end of its line, which in PostgreSQL a
// carriage return is.
func (d dialect) comment(s string) int {
	ends := "\n"
	if d == ofPostgres {
		ends = "\n\r"
	}
	if n := strings.IndexAny(s, ends); n >= 0 {
		return n + 1
	}
	return len(s)
}

// word is a key word or a name without quotes. PostgreSQL, which reads 0xA as a
// number, begins a text at the dollar sign in 0xA$$, and not in a$$.
func (d dialect) word(s string) (int, token, error) {
	n := 1
	for n < len(s) && (letter(s[n]) || digit(s[n]) || s[n] == '$') {
		n++
	}
	w := strings.ToLower(s[:n])
	if d == ofPostgres && strings.IndexByte(w, '$') >= 0 {
		return 0, token{}, fault.Invalidf("write names with a dollar sign in quotes")
	}
	if n < len(s) && (s[n] == '\'' && (w == "e" || w == "u") || s[n] == '&' && w == "u") {
		return 0, token{}, fault.Invalidf("write texts without escapes: E'' and U&'' are not taken")
	}
	if strings.HasPrefix(w, "\ufeff") {
		return 0, token{}, fault.Invalidf("a statement must not have a byte order mark: SQLite takes it for a space")
	}
	return n, token{text: w, word: true}, nil
}

// parameter is one of SQLite by its number. By a name it may end in brackets around
// anything, quotes too.
func parameter(s string) (int, token, error) {
	n := 1
	for n < len(s) && digit(s[n]) {
		n++
	}
	if s[0] != '$' && n > 1 || n < len(s) && (letter(s[n]) || s[n] == '(' || s[n] == ':') {
		return 0, token{}, fault.Invalidf("name parameters by their numbers: $1")
	}
	return n, token{text: s[:n]}, nil
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

// quoted is a text in quotes, in which a doubled quote is one.
func quoted(s string) (int, token, error) {
	end := s[0]
	if end == '[' {
		end = ']'
	}
	for i := 1; i < len(s); i++ {
		if s[i] != end {
			continue
		}
		if end != ']' && i+1 < len(s) && s[i+1] == end {
			i++
			continue
		}
		return i + 1, token{text: strings.ToLower(s[1:i]), quoted: true, value: end == '\''}, nil
	}
	return 0, token{}, fault.Invalidf("a statement has a text without an end")
}

// plain checks one statement that reads or changes rows.
func (d dialect) plain(sql string) error {
	tokens, _, err := d.scan(sql)
	if err != nil {
		return err
	}
	for len(tokens) > 0 && tokens[len(tokens)-1].end {
		tokens = tokens[:len(tokens)-1]
	}
	if len(tokens) == 0 {
		return fault.Invalidf("the statement is empty")
	}
	switch first := tokens[0]; {
	case !first.word:
	case oneOf(first.text, "select", "with", "values", "insert", "replace", "update", "delete"):
		if d == ofPostgres && makesTable(tokens) {
			return fault.Deniedf("SELECT INTO makes a table: tables are made by migrations")
		}
		return single(tokens)
	}
	return fault.Deniedf("an extension runs SELECT, VALUES, WITH, INSERT, REPLACE, UPDATE and DELETE; tables are made by its migrations, and the host runs transactions")
}

// makesTable reports whether there is an INTO of a SELECT, which makes a table of
// any name: it stands behind neither INSERT nor MERGE.
func makesTable(tokens []token) bool {
	for n, t := range tokens {
		if n > 0 && t.word && t.text == "into" && !oneOf(tokens[n-1].text, "insert", "merge") {
			return true
		}
	}
	return false
}

// single demands that tokens are one statement that leaves the host's names alone.
func single(tokens []token) error {
	for _, t := range tokens {
		if t.end {
			return fault.Invalidf("give one statement at a time")
		}
	}
	return unreserved(tokens)
}

func unreserved(tokens []token) error {
	for n, t := range tokens {
		if strings.HasPrefix(t.text, reserved) {
			return fault.Deniedf("names that begin with %s belong to the host", reserved)
		}
		if t.text == "pg_settings" && !t.value { // who changes its rows changes settings, also how texts are read
			return fault.Deniedf("the settings of PostgreSQL are not for extensions")
		}
		if called := n+1 < len(tokens) && tokens[n+1].text == "("; called && (t.word || t.quoted && !t.value) && outward(t.text) {
			return fault.Deniedf("the function %.40s is not for extensions: it takes what all users of the database share, or runs a text as a statement", t.text)
		}
	}
	return nil
}

// outward reports whether a function of PostgreSQL that every role may call takes
// from a store that all roles share (the table of locks, that of large objects,
// which lie in no schema), or would do so by a statement in a text, which is not
// looked at.
func outward(function string) bool {
	switch function {
	case "ts_stat", "ts_rewrite", "loread", "lowrite", "set_config", "xpath_table", "connectby", "pg_notify", "pg_logical_emit_message":
		return true
	}
	for _, front := range []string{
		"pg_advisory_", "pg_try_advisory_", "query_to_xml", "cursor_to_xml", "lo_", "dblink", "crosstab",
	} {
		if strings.HasPrefix(function, front) {
			return true
		}
	}
	return false
}

// split cuts a migration into its statements and checks each of them. The body
// of a trigger, which only SQLite has, ends as its own shell sees it: with END after
// a semicolon.
func (d dialect) split(text string) ([]string, error) {
	tokens, at, err := d.scan(text)
	if err != nil {
		return nil, err
	}
	var out []string
	from, start := 0, 0 // token and byte where the statement begins
	for n, t := range tokens {
		last := n == len(tokens)-1
		if !t.end && !last || t.end && d == ofSQLite && inTrigger(tokens[from:n]) && !last {
			continue
		}
		part := tokens[from : n+1]
		if part[len(part)-1].end {
			part = part[:len(part)-1]
		}
		if len(part) > 0 {
			if err := changes(part); err != nil {
				return nil, err
			}
			out = append(out, strings.TrimSuffix(strings.TrimSpace(text[start:at[n]]), ";"))
		}
		from, start = n+1, at[n]
	}
	if len(out) == 0 {
		return nil, fault.Invalidf("the migration has no statement")
	}
	return out, nil
}

// inTrigger reports whether a statement is a trigger whose body is not at its end.
func inTrigger(tokens []token) bool {
	if len(tokens) < 2 || tokens[0].text != "create" || tokens[1].text != "trigger" {
		return false
	}
	n := len(tokens)
	return tokens[n-1].text != "end" || !tokens[n-2].end
}

// changes checks one statement of a migration.
func changes(tokens []token) error {
	second := ""
	if len(tokens) > 1 && tokens[1].word {
		second = tokens[1].text
	}
	ok := false
	switch tokens[0].text {
	case "create":
		ok = oneOf(second, "table", "index", "unique", "view", "sequence", "trigger")
	case "alter", "drop":
		ok = oneOf(second, "table", "index", "view", "sequence", "trigger")
	case "insert", "update", "delete", "with", "replace":
		ok = true
	}
	if !ok || !tokens[0].word {
		return fault.Deniedf("a migration makes, alters and drops tables, indexes, views, sequences and triggers, and changes rows; nothing else")
	}
	return unreserved(tokens)
}

func oneOf(s string, list ...string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
