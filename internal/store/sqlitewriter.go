package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"

	sqlite "modernc.org/sqlite"
)

// connection is one SQLite connection used without database/sql, whose cost per
// statement is as high as the statement's (docs/decisions/0002). It belongs to
// one goroutine at a time.
type connection struct {
	conn     driver.Conn
	prepared map[string]prepared
	values   []driver.NamedValue
}

type prepared interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

func connect(dsn string) (*connection, error) {
	conn, err := new(sqlite.Driver).Open(dsn)
	if err != nil {
		return nil, fmt.Errorf("open connection: %w", err)
	}
	return &connection{conn: conn, prepared: map[string]prepared{}}, nil
}

func (c *connection) prepare(text string) (prepared, error) {
	if p := c.prepared[text]; p != nil {
		return p, nil
	}
	s, err := c.conn.Prepare(text)
	if err != nil {
		return nil, fmt.Errorf("prepare statement: %w", err)
	}
	p, ok := s.(prepared)
	if !ok {
		return nil, errors.Join(errors.New("the driver's statements take no context"), s.Close())
	}
	c.prepared[text] = p
	return p, nil
}

// bind fills the one argument buffer.
func (c *connection) bind(args []any) []driver.NamedValue {
	for len(c.values) < len(args) {
		c.values = append(c.values, driver.NamedValue{Ordinal: len(c.values) + 1})
	}
	for i, a := range args {
		c.values[i].Value = a
	}
	return c.values[:len(args)]
}

// run executes a statement and returns how many rows it touched.
func (c *connection) run(text string, args []any) (int64, error) {
	p, err := c.prepare(text)
	if err != nil {
		return 0, err
	}
	r, err := p.ExecContext(context.Background(), c.bind(args))
	if err != nil {
		return 0, err //nolint:wrapcheck // classified by the caller
	}
	return r.RowsAffected() //nolint:wrapcheck // never fails
}

// find executes a query and returns how many rows it has, at most two.
func (c *connection) find(text string, args []any) (n int64, err error) {
	p, err := c.prepare(text)
	if err != nil {
		return 0, err
	}
	rows, err := p.QueryContext(context.Background(), c.bind(args))
	if err != nil {
		return 0, err //nolint:wrapcheck // classified by the caller
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	dest := make([]driver.Value, len(rows.Columns()))
	for n < 2 {
		switch err := rows.Next(dest); {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err //nolint:wrapcheck // classified by the caller
		}
		n++
	}
	return n, nil
}

// exec runs a statement without arguments.
func (c *connection) exec(text string) error {
	_, err := c.run(text, nil)
	return err
}

// set runs a pragma that SQLite executes while it is prepared, so that it must
// be prepared each time.
func (c *connection) set(pragma string) error {
	s, err := c.conn.Prepare(pragma)
	if err != nil {
		return fmt.Errorf("%s: %w", pragma, err)
	}
	_, err = s.Exec(nil) //nolint:staticcheck // the driver's statement, without arguments
	return errors.Join(err, s.Close())
}

// numbers runs a pragma that answers one row of numbers.
func (c *connection) numbers(text string) (out []int64, err error) {
	p, err := c.prepare(text)
	if err != nil {
		return nil, err
	}
	rows, err := p.QueryContext(context.Background(), nil)
	if err != nil {
		return nil, err //nolint:wrapcheck // classified by the caller
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	dest := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(dest); err != nil {
		return nil, err //nolint:wrapcheck // classified by the caller
	}
	for _, v := range dest {
		n, _ := v.(int64)
		out = append(out, n)
	}
	return out, nil
}

func (c *connection) close() error {
	if c == nil || c.conn == nil {
		return nil
	}
	var errs []error
	for _, p := range c.prepared {
		errs = append(errs, p.Close())
	}
	return errors.Join(append(errs, c.conn.Close())...)
}

// Records go into the ledger several at once; the statement exists in these
// sizes.
var recordChunks = [...]int{32, 8, 4, 2, 1}

// recordTexts are the statements for recordChunks.
func recordTexts() [len(recordChunks)]string {
	var texts [len(recordChunks)]string
	for i, n := range recordChunks {
		rows := make([]string, n)
		for k := range rows {
			rows[k] = "(" + placeholders(7*k+1, 7) + ")"
		}
		texts[i] = anonymous("INSERT OR FAIL INTO ledger (position, id, subject, type, grant_id, at, leaf) VALUES " + strings.Join(rows, ", "))
	}
	return texts
}
