package annex

import (
	"context"
	"database/sql"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Query implements [plugin.Database]. Most is at most 10000, and so it is if it is
// not given; an answer has at most 3 MiB.
func (a *Annexes) Query(ctx context.Context, name string, s plugin.Statement, most int) (plugin.Rows, error) {
	if err := a.check(s); err != nil {
		return plugin.Rows{}, err
	}
	if most <= 0 || most > mostRows {
		most = mostRows
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, free, err := a.conn(ctx, name)
	if err != nil {
		return plugin.Rows{}, err
	}
	defer free()
	unwatch, err := a.eng.watch(ctx, c)
	if err != nil {
		return plugin.Rows{}, a.failed(err)
	}
	defer unwatch()
	rows, err := c.QueryContext(ctx, s.SQL, s.Arguments...)
	if err != nil {
		return plugin.Rows{}, a.failed(err)
	}
	defer func() { _ = rows.Close() }()
	out, err := read(rows, most)
	return out, a.failed(err)
}

func read(rows *sql.Rows, most int) (plugin.Rows, error) {
	columns, err := rows.Columns()
	if err != nil {
		return plugin.Rows{}, err //nolint:wrapcheck // explained by the caller
	}
	out := plugin.Rows{Columns: columns}
	size := 0
	for rows.Next() {
		if len(out.Rows) == most {
			out.More = true
			return out, nil
		}
		row := make([]any, len(columns))
		to := make([]any, len(columns))
		for n := range row {
			to[n] = &row[n]
		}
		if err := rows.Scan(to...); err != nil {
			return plugin.Rows{}, err //nolint:wrapcheck // explained by the caller
		}
		for n, v := range row {
			row[n] = value(v)
			size += weight(row[n])
		}
		if size > mostAnswer {
			return plugin.Rows{}, fault.Exhaustedf("the answer is larger than %d bytes: ask for fewer rows", mostAnswer)
		}
		out.Rows = append(out.Rows, row)
	}
	return out, rows.Err() //nolint:wrapcheck // explained by the caller
}

// value is what came from an engine as one of the five types.
func value(v any) any {
	switch x := v.(type) {
	case bool:
		if x {
			return int64(1)
		}
		return int64(0)
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano)
	case int64, float64, string, nil:
		return x
	case []byte:
		return append([]byte(nil), x...)
	default:
		return nil // no engine gives database/sql anything else
	}
}

func weight(v any) int {
	switch x := v.(type) {
	case string:
		return len(x) + 16
	case []byte:
		return len(x) + 16
	}
	return 16
}

// Exec implements [plugin.Database]: at most 256 statements.
func (a *Annexes) Exec(ctx context.Context, name string, statements []plugin.Statement) ([]int64, error) {
	if len(statements) == 0 || len(statements) > mostPerExec {
		return nil, fault.Invalidf("give between 1 and %d statements", mostPerExec)
	}
	for _, s := range statements {
		if err := a.check(s); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, free, err := a.conn(ctx, name)
	if err != nil {
		return nil, err
	}
	defer free()
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return nil, a.failed(err)
	}
	out := make([]int64, 0, len(statements))
	for _, s := range statements {
		r, err := tx.ExecContext(ctx, s.SQL, s.Arguments...)
		if err != nil {
			_ = tx.Rollback()
			return nil, a.failed(err)
		}
		n, _ := r.RowsAffected() // both drivers always know
		out = append(out, n)
	}
	if err := tx.Commit(); err != nil {
		return nil, a.failed(err)
	}
	return out, nil
}

// check looks at a statement and its arguments.
func (a *Annexes) check(s plugin.Statement) error {
	for _, v := range s.Arguments {
		switch v.(type) {
		case nil, int64, float64, string, []byte:
		default:
			return fault.Internalf("an argument of a statement has a type that is not known")
		}
		if weight(v) > mostArgument {
			return fault.Invalidf("an argument of a statement must have at most %d bytes", mostArgument)
		}
	}
	return a.eng.dialect().plain(s.SQL)
}
