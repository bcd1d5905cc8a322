package plugin

import (
	"context"
	"fmt"
	"time"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// Statement is one SQL statement with its arguments, $1 and so on: nil, an integer,
// float64, bool, string, []byte or [time.Time]. SQLite and PostgreSQL both take it
// if it is written in what they have in common.
type Statement struct {
	SQL       string
	Arguments []any
}

// SQL makes a statement.
func SQL(text string, arguments ...any) Statement { return Statement{text, arguments} }

// Rows is the answer of a query. Values are nil, int64, float64, string or []byte;
// a boolean is 0 or 1, a time is RFC 3339.
type Rows struct {
	Columns []string
	Rows    [][]any
	More    bool // there are more than were asked for
}

// Query reads rows of the plugin's own database, at most so many; 0 is 10000.
// Service database. Statements see the tables that the manifest's migrations have
// made, and nothing else.
func (h *Host) Query(ctx context.Context, most int, text string, arguments ...any) (Rows, error) {
	s, err := wireStatement(SQL(text, arguments...))
	if err != nil {
		return Rows{}, err
	}
	const all = 10_000
	a, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_Query{Query: &own.Query{
		Statement: s, MaxRows: uint32(min(max(most, 0), all)),
	}}})
	if err != nil {
		return Rows{}, err
	}
	out := Rows{Columns: a.GetRows().GetColumns(), More: a.GetRows().GetMore()}
	for _, r := range a.GetRows().GetRows() {
		row := make([]any, len(r.GetValues()))
		for n, v := range r.GetValues() {
			switch x := v.GetValue().(type) {
			case *own.Value_Integer:
				row[n] = x.Integer
			case *own.Value_Real:
				row[n] = x.Real
			case *own.Value_Text:
				row[n] = x.Text
			case *own.Value_Blob:
				row[n] = x.Blob
			}
		}
		out.Rows = append(out.Rows, row)
	}
	return out, nil
}

// Exec runs statements in one transaction, all of them or none, and returns how
// many rows each has changed. Service database.
func (h *Host) Exec(ctx context.Context, statements ...Statement) ([]int64, error) {
	q := &own.Exec{}
	for _, s := range statements {
		w, err := wireStatement(s)
		if err != nil {
			return nil, err
		}
		q.Statements = append(q.Statements, w)
	}
	a, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_Exec{Exec: q}})
	return a.GetAffected().GetRows(), err
}

func wireStatement(s Statement) (*own.Statement, error) {
	out := &own.Statement{Sql: s.SQL}
	for n, a := range s.Arguments {
		v := &own.Value{}
		switch x := a.(type) {
		case nil:
		case int:
			v.Value = &own.Value_Integer{Integer: int64(x)}
		case int32:
			v.Value = &own.Value_Integer{Integer: int64(x)}
		case int64:
			v.Value = &own.Value_Integer{Integer: x}
		case bool:
			one := int64(0)
			if x {
				one = 1
			}
			v.Value = &own.Value_Integer{Integer: one}
		case float64:
			v.Value = &own.Value_Real{Real: x}
		case string:
			v.Value = &own.Value_Text{Text: x}
		case []byte:
			v.Value = &own.Value_Blob{Blob: x}
		case time.Time:
			v.Value = &own.Value_Text{Text: x.UTC().Format(time.RFC3339Nano)}
		default:
			return nil, fmt.Errorf("argument %d of a statement has type %T, which no database value has", n+1, a)
		}
		out.Arguments = append(out.Arguments, v)
	}
	return out, nil
}
