package store

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// maxPage is the most rows that one read returns.
const maxPage = 1000

func page(limit int) int64 {
	if limit <= 0 || limit > maxPage {
		return maxPage
	}
	return int64(limit)
}

// reading prepares a query once and keeps it.
func (s *Store) reading(ctx context.Context, text string) (*sql.Stmt, error) {
	if known, ok := s.readings.Load(text); ok {
		return known.(*sql.Stmt), nil //nolint:forcetypeassert // nothing else is stored
	}
	stmt, err := s.reader.PrepareContext(ctx, text)
	if err != nil {
		return nil, s.unreadable(ctx, err)
	}
	known, loaded := s.readings.LoadOrStore(text, stmt)
	if loaded {
		_ = stmt.Close()
	}
	return known.(*sql.Stmt), nil //nolint:forcetypeassert // nothing else is stored
}

// unreadable is the answer to a read that the database did not give.
func (s *Store) unreadable(ctx context.Context, err error) error {
	if s.closed.Load() || ctx.Err() != nil {
		return fault.Unavailablef("the store gives no answer").Because(err)
	}
	return fault.Unavailablef("the store cannot be read").Because(err)
}

// foundRow is a row that a query found.
type foundRow interface{ Scan(dest ...any) error }

// query runs a prepared query and hands its rows to each.
func (s *Store) query(ctx context.Context, text string, args []any, each func(foundRow) error) error {
	if s.readers == nil {
		return s.queryPostgres(ctx, text, args, each)
	}
	err := s.readers.query(ctx, text, args, each)
	if said, ok := errors.AsType[eachError](err); ok {
		return said.error
	}
	if err != nil {
		return s.unreadable(ctx, err)
	}
	return nil
}

func (s *Store) queryPostgres(ctx context.Context, text string, args []any, each func(foundRow) error) error {
	stmt, err := s.reading(ctx, text)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return s.unreadable(ctx, err)
	}
	for rows.Next() {
		if err := each(rows); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return s.unreadable(ctx, err)
	}
	return nil
}

// rowOf is a pointer to T that can be filled from a row.
type rowOf[T any] interface {
	*T
	scanned
}

// many reads rows of one table. The rest of the query begins after the table's
// name and is made of constants. One damaged row fails the whole read: what was
// asked for cannot be answered truly.
func many[T any, P rowOf[T]](ctx context.Context, s *Store, tableName, rest string, args ...any) ([]T, error) {
	return list[T, P](ctx, s, nil, tableName, rest, args...)
}

// sound reads rows of one table and leaves damaged ones out, which are counted
// and logged. It is for lists of work, where one damaged row must not keep all
// others from being done.
func sound[T any, P rowOf[T]](ctx context.Context, s *Store, tableName, rest string, args ...any) ([]T, error) {
	return list[T, P](ctx, s, func(string) {}, tableName, rest, args...)
}

// list reads rows. Damaged ones are named to skip and left out; without skip they
// fail the read.
func list[T any, P rowOf[T]](ctx context.Context, s *Store, skip func(id string), tableName, rest string, args ...any) ([]T, error) {
	t := s.catalogue.tables[tableName]
	var found []T
	r := newRaw(t)
	err := s.query(ctx, "SELECT "+t.all+" FROM "+tableName+" "+rest, args, func(rows foundRow) error {
		if err := rows.Scan(r.dest...); err != nil {
			return s.unreadable(ctx, err)
		}
		var v T
		err := s.believe(ctx, t, r, P(&v))
		if skip != nil && fault.Is(err, fault.Internal) {
			skip(r.texts[0])
			return nil
		}
		if err == nil {
			found = append(found, v)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// one reads one row, or NotFound with the noun that is missing.
func one[T any, P rowOf[T]](ctx context.Context, s *Store, noun, tableName, rest string, args ...any) (T, error) {
	list, err := many[T, P](ctx, s, tableName, rest, args...)
	if err == nil && len(list) == 0 {
		err = fault.NotFoundf("there is no such %s", noun)
	}
	if err != nil {
		var none T
		return none, err
	}
	return list[0], nil
}

// remembered reads a row by one of the columns that [cached] finds it by, from
// memory where that is as good.
func remembered[T any, P rowOf[T]](ctx context.Context, s *Store, noun, tableName string, column int, value string) (T, error) {
	row, found, epoch := recall[T](&s.identities, tableName, column, value)
	if found {
		return row, nil
	}
	name := s.catalogue.tables[tableName].columns[column].name
	row, err := one[T, P](ctx, s, noun, tableName, "WHERE "+name+" = $1", value)
	if err == nil {
		s.identities.remember(epoch, tableName, column, value, row)
	}
	return row, err
}

// where builds a condition of the filters that are set.
type where struct {
	parts []string
	args  []any
}

// and adds a condition whose one "?" stands for the argument.
func (w *where) and(condition string, arg any) {
	w.parts = append(w.parts, strings.ReplaceAll(condition, "?", w.next(arg)))
}

// next adds an argument and gives its name.
func (w *where) next(arg any) string {
	w.args = append(w.args, arg)
	return "$" + strconv.Itoa(len(w.args))
}

// clause is the text from WHERE to LIMIT.
func (w *where) clause(order string, limit int) string {
	text := ""
	if len(w.parts) > 0 {
		text = "WHERE " + strings.Join(w.parts, " AND ") + " "
	}
	w.args = append(w.args, page(limit))
	return text + "ORDER BY " + order + " LIMIT $" + strconv.Itoa(len(w.args))
}

// number reads one number.
func (s *Store) number(ctx context.Context, noun, text string, args ...any) (int64, error) {
	var n int64
	found := false
	err := s.query(ctx, text, args, func(rows foundRow) error {
		found = true
		return rows.Scan(&n) //nolint:wrapcheck // wrapped by query's caller
	})
	if err == nil && !found {
		err = fault.NotFoundf("there is no such %s", noun)
	}
	return n, err
}
