package plugintest

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// The limits of a host, see docs/plugins/contract.md.
const (
	maxKey   = 256
	maxValue = 64 << 10
	maxList  = 1000
	maxRows  = 10_000
)

// keep does a call of service kv; h.mu is held.
func (h *Host) keep(c *own.HostCall) *own.HostAnswer {
	switch b := c.GetBody().(type) {
	case *own.HostCall_KvGet:
		v := h.values[b.KvGet.GetKey()]
		return keptValue(v.data, v.version)
	case *own.HostCall_KvPut:
		key := b.KvPut.GetKey()
		switch {
		case key == "" || len(key) > maxKey || !utf8.ValidString(key):
			return no(own.Code_CODE_INVALID, "a key has 1 to %d bytes of UTF-8", maxKey)
		case len(b.KvPut.GetValue()) > maxValue:
			return no(own.Code_CODE_INVALID, "a value has at most %d bytes", maxValue)
		case b.KvPut.IfVersion != nil && h.values[key].version != b.KvPut.GetIfVersion():
			return no(own.Code_CODE_CONFLICT, "the key has changed")
		}
		h.version++
		h.values[key] = value{slices.Clone(b.KvPut.GetValue()), h.version}
		return keptValue(nil, h.version)
	case *own.HostCall_KvDelete:
		key := b.KvDelete.GetKey()
		if b.KvDelete.IfVersion != nil && h.values[key].version != b.KvDelete.GetIfVersion() {
			return no(own.Code_CODE_CONFLICT, "the key has changed")
		}
		delete(h.values, key)
		return done()
	case *own.HostCall_KvList:
		return h.list(b.KvList)
	}
	return no(own.Code_CODE_UNIMPLEMENTED, "this host does not know this kind of call")
}

func keptValue(data []byte, version uint64) *own.HostAnswer {
	return &own.HostAnswer{Body: &own.HostAnswer_KvValue{KvValue: &own.KvValue{Value: data, Version: version}}}
}

func (h *Host) list(q *own.KvList) *own.HostAnswer {
	var keys []string
	for key := range h.values {
		if strings.HasPrefix(key, q.GetPrefix()) && key > q.GetAfter() {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	limit := int(q.GetLimit())
	if limit == 0 || limit > maxList {
		limit = maxList
	}
	more := len(keys) > limit
	return &own.HostAnswer{Body: &own.HostAnswer_KvKeys{KvKeys: &own.KvKeys{Keys: keys[:min(len(keys), limit)], More: more}}}
}

// database does a call of service database.
func (h *Host) database(ctx context.Context, c *own.HostCall) *own.HostAnswer {
	if h.cfg.Database == nil {
		return no(own.Code_CODE_UNAVAILABLE, "this test has no database: set Config.Database")
	}
	var a *own.HostAnswer
	var err error
	if q := c.GetQuery(); q != nil {
		a, err = h.query(ctx, q)
	} else {
		a, err = h.exec(ctx, c.GetExec())
	}
	if err != nil {
		return no(own.Code_CODE_INVALID, "%s", err)
	}
	return a
}

func (h *Host) query(ctx context.Context, q *own.Query) (*own.HostAnswer, error) {
	rows, err := h.cfg.Database.QueryContext(ctx, q.GetStatement().GetSql(), arguments(q.GetStatement())...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	out := &own.Rows{}
	if out.Columns, err = rows.Columns(); err != nil {
		return nil, err
	}
	most := int(q.GetMaxRows())
	if most == 0 || most > maxRows {
		most = maxRows
	}
	for rows.Next() {
		if len(out.GetRows()) == most {
			out.More = true
			break
		}
		cells := make([]any, len(out.GetColumns()))
		for n := range cells {
			cells[n] = new(any)
		}
		if err := rows.Scan(cells...); err != nil {
			return nil, err
		}
		row := &own.Row{}
		for _, cell := range cells {
			row.Values = append(row.Values, wireValue(*cell.(*any))) //nolint:forcetypeassert // made above
		}
		out.Rows = append(out.Rows, row)
	}
	return &own.HostAnswer{Body: &own.HostAnswer_Rows{Rows: out}}, rows.Err()
}

// exec runs statements in one transaction.
func (h *Host) exec(ctx context.Context, q *own.Exec) (_ *own.HostAnswer, err error) {
	tx, err := h.cfg.Database.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreDone(tx.Rollback()))
		}
	}()
	out := &own.Affected{}
	for _, s := range q.GetStatements() {
		r, err := tx.ExecContext(ctx, s.GetSql(), arguments(s)...)
		if err != nil {
			return nil, err
		}
		n, err := r.RowsAffected()
		if err != nil {
			return nil, err
		}
		out.Rows = append(out.Rows, n)
	}
	return &own.HostAnswer{Body: &own.HostAnswer_Affected{Affected: out}}, tx.Commit()
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

func arguments(s *own.Statement) []any {
	out := make([]any, 0, len(s.GetArguments()))
	for _, a := range s.GetArguments() {
		switch x := a.GetValue().(type) {
		case *own.Value_Integer:
			out = append(out, x.Integer)
		case *own.Value_Real:
			out = append(out, x.Real)
		case *own.Value_Text:
			out = append(out, x.Text)
		case *own.Value_Blob:
			out = append(out, x.Blob)
		default:
			out = append(out, nil)
		}
	}
	return out
}

func wireValue(v any) *own.Value {
	switch x := v.(type) {
	case int64:
		return &own.Value{Value: &own.Value_Integer{Integer: x}}
	case bool:
		one := int64(0)
		if x {
			one = 1
		}
		return &own.Value{Value: &own.Value_Integer{Integer: one}}
	case float64:
		return &own.Value{Value: &own.Value_Real{Real: x}}
	case string:
		return &own.Value{Value: &own.Value_Text{Text: x}}
	case []byte:
		return &own.Value{Value: &own.Value_Blob{Blob: x}}
	case time.Time:
		return &own.Value{Value: &own.Value_Text{Text: x.UTC().Format(time.RFC3339Nano)}}
	}
	return &own.Value{}
}
