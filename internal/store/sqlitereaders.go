package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"sync"
)

// sqliteReaders are connections that only read, without database/sql: it costs as
// much as a query of one row by its key, and most are. Safe for concurrent use;
// each connection belongs to one query at a time.
//
// The one that was used last is used first: it has the upper pages of the trees,
// which each connection reads anew after a commit. In turns, all would read them.
type sqliteReaders struct {
	turns  chan struct{} // as many as connections are free
	mu     sync.Mutex
	free   []*connection // the one used last at the end
	closed chan struct{}
}

func openReaders(dsn string, n int) (*sqliteReaders, error) {
	r := &sqliteReaders{turns: make(chan struct{}, n), closed: make(chan struct{})}
	for range n {
		c, err := connect(dsn)
		if err != nil {
			for _, opened := range r.free {
				err = errors.Join(err, opened.close())
			}
			return nil, err
		}
		r.give(c)
	}
	return r, nil
}

var errReadersClosed = errors.New("the read connections are closed")

// query hands the rows that a query finds to each. It ends early with the context,
// between two rows, and with the first error of each, which it returns as it is.
func (r *sqliteReaders) query(ctx context.Context, text string, args []any, each func(foundRow) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-r.turns:
	default:
		select {
		case <-r.turns:
		case <-r.closed:
			return errReadersClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c := r.take()
	defer r.give(c)
	return c.each(ctx, text, args, each)
}

// take is for who has got a turn.
func (r *sqliteReaders) take() *connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.free) - 1
	c := r.free[last]
	r.free = r.free[:last]
	return c
}

func (r *sqliteReaders) give(c *connection) {
	r.mu.Lock()
	r.free = append(r.free, c)
	r.mu.Unlock()
	r.turns <- struct{}{}
}

// close waits for the queries that run, and closes all connections.
func (r *sqliteReaders) close() error {
	close(r.closed)
	var errs []error
	for range cap(r.turns) {
		<-r.turns
		errs = append(errs, r.take().close())
	}
	return errors.Join(errs...)
}

// each runs a query. A row is valid until each returns.
func (c *connection) each(ctx context.Context, text string, args []any, each func(foundRow) error) (err error) {
	p, err := c.prepare(text)
	if err != nil {
		return err
	}
	for i, a := range args {
		if driver.IsValue(a) {
			continue
		}
		if args[i], err = driver.DefaultParameterConverter.ConvertValue(a); err != nil {
			return fmt.Errorf("argument %d of a query: %w", i+1, err)
		}
	}
	// Not the caller's context: the driver would start a goroutine for each query to
	// interrupt it by. Queries are bounded by their rows.
	rows, err := p.QueryContext(context.Background(), c.bind(args))
	if err != nil {
		return err //nolint:wrapcheck // wrapped by the caller
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	found := make(cells, len(rows.Columns()))
	for ctx.Err() == nil {
		switch err := rows.Next(found); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err //nolint:wrapcheck // wrapped by the caller
		}
		if err := each(found); err != nil {
			return eachError{err}
		}
	}
	return ctx.Err()
}

// eachError is what a function said about a row, not the database.
type eachError struct{ error }

func (e eachError) Unwrap() error { return e.error }

// cells is one row as the driver gives it: numbers, texts and copies of blobs.
type cells []driver.Value

// Scan copies the row, as that of sql.Rows, into the kinds of values that the
// store keeps. Nothing is stored as NULL.
func (row cells) Scan(dest ...any) error {
	if len(dest) != len(row) {
		return fmt.Errorf("a row has %d columns, not %d", len(row), len(dest))
	}
	for i, d := range dest {
		if !assign(d, row[i]) {
			return fmt.Errorf("column %d is a %T, which does not fit a %T", i+1, row[i], d)
		}
	}
	return nil
}

func assign(dest any, v driver.Value) bool {
	switch v := v.(type) {
	case int64:
		switch d := dest.(type) {
		case *int64:
			*d = v
			return true
		case *uint64:
			*d = uint64(v) //nolint:gosec // positions are not negative
			return v >= 0
		}
	case string:
		switch d := dest.(type) {
		case *string:
			*d = v
			return true
		case *[]byte:
			*d = []byte(v)
			return true
		case *sql.RawBytes:
			*d = []byte(v)
			return true
		}
	case []byte:
		switch d := dest.(type) {
		case *[]byte:
			*d = v
			return true
		case *sql.RawBytes:
			*d = v
			return true
		}
	}
	return false
}
