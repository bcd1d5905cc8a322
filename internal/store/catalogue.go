package store

import (
	"fmt"
	"strconv"
	"strings"
)

// kind is the type of a column, the same on both engines.
type kind byte

const (
	text kind = iota
	number
	blob
)

type column struct {
	name string
	kind kind
}

// table describes one table of rows, those that implement unit.Row.
type table struct {
	name    string
	columns []column
	mac     bool   // a last column mac guards the row
	quiet   bool   // its statements may run in a unit without a record
	all     string // the column list of a statement, the MAC included
	whose   string // the query of a row by its id with its subject, if it has one
}

// rowTables are the tables whose rows are whole domain values: column names in
// the order of the value's Columns, "#" marking numbers and "!" bytes. Those
// with "*" carry a MAC; those with "~" are not ours to decide on, so that they
// change without a record.
var rowTables = []string{
	"subjects* id version# kind state role name team attributes reason created# changed# recall#",
	"certificates* id version# subject serial issuer not_after# revoked# reason",
	"sessions* id version# subject parent certificate expires# revoked# reason",
	"passports* id version# subject digest token expires# revoked# reason",
	"invitations* id version# kind role team name author expires# used# used_by",
	"grants* id version# state subject session kind document handle prints sealed! attempts# issued# expires# ended# due#",
	"resources id version# sealed! bytes# author created# changed# deleted#",
	"resource_versions id version# sealed! bytes# author at# deleted#",
	"policies* id version# kind source author at# state",
	"policy_versions* id version# kind source author at# state",
	"publishers* id version# threshold# serial# at# author",
	"trust* id version# publisher purpose public_key names not_before# expires# state reason at# author",
	"floors* id version# lowest origin at# author",
	"plugins* id version# package_version digest publisher key_ids purpose offer asks state at# author",
	"installations* id version# name package_version repository at# author",
	"repositories* id version# url root timestamp snapshot state at# author",
	"upload_tokens* id version# digest publisher names audience expires# revoked# reason author created#",
	"endorsements* id version# kind about data! issued# expires# source author at# state",
	"reference_values* id version# value expires# source author at# state",
	"plugin_values*~ id version# value! changed#",
	"keys* id version# purpose algorithm state public sealed! created# signs_from# not_after#",
	"outcomes id version# sealed! expires#",
	"deliveries id version# channel message attempts# due# error done#",
}

func parseTable(line string) *table {
	fields := strings.Fields(line)
	t := &table{}
	t.name, t.quiet = strings.CutSuffix(fields[0], "~")
	t.name, t.mac = strings.CutSuffix(t.name, "*")
	for _, f := range fields[1:] {
		c := column{name: f}
		if n, ok := strings.CutSuffix(f, "#"); ok {
			c = column{n, number}
		} else if n, ok := strings.CutSuffix(f, "!"); ok {
			c = column{n, blob}
		}
		t.columns = append(t.columns, c)
	}
	t.all = t.list("")
	return t
}

// list is the column list of a statement, the MAC included, each name after a prefix.
func (t *table) list(prefix string) string {
	names := make([]string, 0, len(t.columns)+1)
	for _, c := range t.columns {
		names = append(names, prefix+c.name)
	}
	if t.mac {
		names = append(names, prefix+"mac")
	}
	return strings.Join(names, ", ")
}

// width is the number of stored columns.
func (t *table) width() int {
	if t.mac {
		return len(t.columns) + 1
	}
	return len(t.columns)
}

// statement is one entry of the catalogue.
type statement struct {
	name  string
	index int
	sql   string
	args  int
	table *table // set when the arguments are a whole row
	reads bool   // counts the rows that it finds
	quiet bool   // may run in a unit without a record: it decides nothing
	plain bool   // inserts one row of values and nothing else; set by add
}

// catalogue holds every statement that writes.
type catalogue struct {
	postgres   bool
	tables     map[string]*table
	statements map[string]*statement
	all        []*statement
}

func newCatalogue(postgres bool) *catalogue {
	c := &catalogue{postgres: postgres, tables: map[string]*table{}, statements: map[string]*statement{}}
	lock := ""
	if postgres {
		lock = " FOR SHARE"
	}
	for _, line := range rowTables {
		t := parseTable(line)
		c.tables[t.name] = t
		c.generate(t, lock)
	}
	for _, t := range c.tables {
		t.whose = "SELECT " + t.list("a.") + ", " + c.tables["subjects"].list("b.") + " FROM " + t.name + " a JOIN subjects b ON b.id = a.subject WHERE a.id = $1"
	}
	for _, h := range written {
		sql := h.sql
		if postgres && h.postgres != "" {
			sql = h.postgres
		}
		if h.reads {
			sql += lock
		}
		c.add(&statement{name: h.name, sql: sql, args: h.args, reads: h.reads, quiet: h.quiet})
	}
	return c
}

// generate makes the four statements that every table of rows has. An update
// carries the new version and demands the one before it.
func (c *catalogue) generate(t *table, lock string) {
	n := t.width()
	set := make([]string, 0, n)
	for i, name := range strings.Split(t.all, ", ")[1:] {
		set = append(set, fmt.Sprintf("%s = $%d", name, i+2))
	}
	c.add(&statement{
		name: t.name + ".insert", args: len(t.columns), table: t, quiet: t.quiet,
		sql: "INSERT INTO " + t.name + " (" + t.all + ") VALUES (" + placeholders(1, n) + ")",
	})
	c.add(&statement{
		name: t.name + ".update", args: len(t.columns), table: t, quiet: t.quiet,
		sql: "UPDATE " + t.name + " SET " + strings.Join(set, ", ") + " WHERE id = $1 AND version = $2 - 1",
	})
	c.add(&statement{
		name: t.name + ".check", args: 2, reads: true,
		sql: "SELECT 1 FROM " + t.name + " WHERE id = $1 AND version = $2" + lock,
	})
	c.add(&statement{
		name: t.name + ".delete", args: 2, quiet: t.quiet,
		sql: "DELETE FROM " + t.name + " WHERE id = $1 AND version = $2",
	})
}

// anonymous replaces $1, $2, ... by question marks where each stands once and
// in order: SQLite binds those without looking for a name.
func anonymous(text string) string {
	out, n := text, 0
	for {
		before, after, found := strings.Cut(out, "$"+strconv.Itoa(n+1))
		if !found || strings.Contains(before, "$") {
			break
		}
		n++
		out = before + "?" + after
	}
	if strings.Contains(out, "$") {
		return text
	}
	return out
}

func (c *catalogue) add(s *statement) {
	if c.statements[s.name] != nil {
		panic("store: statement " + s.name + " is there twice")
	}
	if !c.postgres {
		s.sql = anonymous(s.sql)
	}
	s.index, s.plain = len(c.all), plainInsert.MatchString(s.sql)
	c.all = append(c.all, s)
	c.statements[s.name] = s
}

// placeholders is "$from, ..., $(from+n-1)".
func placeholders(from, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", from+i)
	}
	return b.String()
}
