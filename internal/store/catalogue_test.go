package store

import (
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// TestCatalogue_AgreesWithRows holds every table against the value that is
// stored in it.
func TestCatalogue_AgreesWithRows(t *testing.T) {
	c := newCatalogue(false)
	rows := []unit.Row{
		subject.Subject{},
		subject.Certificate{},
		subject.Session{},
		subject.Passport{},
		subject.Invitation{},
		grant.Grant{},
		resource.Resource{},
		resource.Version{},
		policy.Document{},
		policy.Edition{},
		plugin.Publisher{},
		plugin.Key{},
		plugin.Floor{},
		plugin.Installed{},
		plugin.Installation{},
		plugin.Repository{},
		plugin.UploadToken{},
		plugin.Value{},
		reference.Endorsement{},
		reference.Value{},
		keys.Key{},
		unit.Outcome{},
		notify.Delivery{},
	}
	if len(rows) != len(c.tables) {
		t.Errorf("%d kinds of row, %d tables", len(rows), len(c.tables))
	}
	for _, r := range rows {
		tab := c.tables[r.Table()]
		if tab == nil {
			t.Errorf("no table %s", r.Table())
			continue
		}
		columns := r.Columns()
		if len(columns) != len(tab.columns) {
			t.Errorf("%s has %d columns, its value %d", tab.name, len(tab.columns), len(columns))
			continue
		}
		for i, v := range columns {
			good := false
			switch v.(type) {
			case string:
				good = tab.columns[i].kind == text
			case int64:
				good = tab.columns[i].kind == number
			case []byte:
				good = tab.columns[i].kind == blob
			}
			if !good {
				t.Errorf("%s.%s is given as %T", tab.name, tab.columns[i].name, v)
			}
		}
	}
}

// TestCatalogue_HandWrittenLeaveMACsAlone: a statement that is written by hand
// cannot compute a MAC, so it must not write to a guarded table.
func TestCatalogue_HandWrittenLeaveMACsAlone(t *testing.T) {
	c := newCatalogue(false)
	for _, w := range written {
		for _, text := range []string{w.sql, w.postgres} {
			fields := strings.Fields(text)
			for i, f := range fields {
				if i == 0 || fields[i-1] != "INTO" && fields[i-1] != "UPDATE" { // a row that goes needs no MAC
					continue
				}
				if tab := c.tables[f]; tab != nil && tab.mac {
					t.Errorf("%s writes to %s", w.name, f)
				}
			}
			for n := 1; text != "" && n <= w.args; n++ {
				if !strings.Contains(text, "$"+string(rune('0'+n))) {
					t.Errorf("%s does not use argument %d", w.name, n)
				}
			}
		}
	}
}

func TestCatalogue_AnonymousPlaceholders(t *testing.T) {
	for text, want := range map[string]string{
		"VALUES ($1, $2)":                        "VALUES (?, ?)",
		"VALUES ($1), ($2), ($3), ($4)":          "VALUES (?), (?), (?), (?)",
		placeholders(1, 12):                      strings.TrimSuffix(strings.Repeat("?, ", 12), ", "),
		"SET a = $2 WHERE id = $1":               "SET a = $2 WHERE id = $1",
		"WHERE a = $1 AND b = $1":                "WHERE a = $1 AND b = $1",
		"SELECT 1":                               "SELECT 1",
		"SET a = $1 WHERE n = 'x' AND a < $1":    "SET a = $1 WHERE n = 'x' AND a < $1",
		"WHERE name = $1 AND holder = $2 + $3 ":  "WHERE name = ? AND holder = ? + ? ",
		"UPDATE t SET a = $1 WHERE b = $3 OR $2": "UPDATE t SET a = $1 WHERE b = $3 OR $2",
	} {
		if got := anonymous(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
