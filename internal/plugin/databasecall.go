package plugin

import (
	"context"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// The service database of the host: statements of a plugin, for its own database.

// tables refuses a plugin that has none, or none any more: another publisher's have
// its name now.
func (h *Host) tables(name, publisher string) error {
	if h.cfg.Databases == nil {
		return fault.Unavailablef("this host keeps no databases")
	}
	for _, r := range h.table.Load().routes {
		if r.name() == name && r.row.Publisher != publisher {
			return fault.Unavailablef("plugin %s is of another publisher now", name)
		}
	}
	return nil
}

// query answers a HostCall of kind query.
func (h *Host) query(ctx context.Context, name, publisher string, q *own.Query) (*own.Rows, error) {
	if err := h.tables(name, publisher); err != nil {
		return nil, err
	}
	s, err := readStatement(q.GetStatement())
	if err != nil {
		return nil, err
	}
	rows, err := h.cfg.Databases.Query(ctx, name, s, int(q.GetMaxRows()))
	if err != nil {
		return nil, err
	}
	out := &own.Rows{Columns: rows.Columns, More: rows.More}
	for _, row := range rows.Rows {
		r := &own.Row{}
		for _, v := range row {
			r.Values = append(r.Values, wireValue(v))
		}
		out.Rows = append(out.Rows, r)
	}
	return out, nil
}

// exec answers a HostCall of kind exec.
func (h *Host) exec(ctx context.Context, name, publisher string, q *own.Exec) (*own.Affected, error) {
	if err := h.tables(name, publisher); err != nil {
		return nil, err
	}
	statements := make([]Statement, 0, len(q.GetStatements()))
	for _, w := range q.GetStatements() {
		s, err := readStatement(w)
		if err != nil {
			return nil, err
		}
		statements = append(statements, s)
	}
	n, err := h.cfg.Databases.Exec(ctx, name, statements)
	return &own.Affected{Rows: n}, err
}

func readStatement(w *own.Statement) (Statement, error) {
	s := Statement{SQL: w.GetSql()}
	const most = 1000
	if len(w.GetArguments()) > most {
		return Statement{}, fault.Invalidf("a statement has at most %d arguments", most)
	}
	for _, a := range w.GetArguments() {
		switch x := a.GetValue().(type) {
		case nil:
			s.Arguments = append(s.Arguments, nil)
		case *own.Value_Integer:
			s.Arguments = append(s.Arguments, x.Integer)
		case *own.Value_Real:
			s.Arguments = append(s.Arguments, x.Real)
		case *own.Value_Text:
			s.Arguments = append(s.Arguments, x.Text)
		case *own.Value_Blob:
			s.Arguments = append(s.Arguments, x.Blob)
		default:
			return Statement{}, fault.Invalidf("an argument of a statement has a type that this host does not know")
		}
	}
	return s, nil
}

func wireValue(v any) *own.Value {
	switch x := v.(type) {
	case int64:
		return &own.Value{Value: &own.Value_Integer{Integer: x}}
	case float64:
		return &own.Value{Value: &own.Value_Real{Real: x}}
	case string:
		return &own.Value{Value: &own.Value_Text{Text: x}}
	case []byte:
		return &own.Value{Value: &own.Value_Blob{Blob: x}}
	}
	return &own.Value{}
}
