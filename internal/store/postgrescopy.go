package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// copyTime bounds one exchange with the server.
const copyTime = time.Minute

// copyRows sends the rows of some tables, behind a first statement if there is
// one, and demands that as many have arrived. Statements and rows go out at once,
// without waiting for the server to ask for each table's: it takes them as it comes
// to them, and after an error it drops what was still on its way. That is why it is
// done by messages: pgx would take three round trips a table. The connection is
// closed when the answer is not understood to its end.
func copyRows(c *pgx.Conn, first string, tables []*pgRows) error {
	var text strings.Builder
	text.WriteString(first)
	for _, t := range tables {
		text.WriteString("COPY " + t.into + " FROM STDIN (FORMAT binary);")
	}
	conn := c.PgConn()
	if err := conn.Conn().SetDeadline(time.Now().Add(copyTime)); err != nil {
		return drop(c, err)
	}
	to := conn.Frontend()
	to.Send(&pgproto3.Query{String: text.String()})
	for _, t := range tables {
		to.Send(&pgproto3.CopyData{Data: t.end()})
		to.Send(&pgproto3.CopyDone{})
	}
	if err := to.Flush(); err != nil {
		return drop(c, err)
	}
	copied, err := copied(conn)
	if err != nil && sqlState(err) == "" {
		return drop(c, err)
	}
	if err := conn.Conn().SetDeadline(time.Time{}); err != nil {
		return drop(c, err)
	}
	if err != nil {
		return err
	}
	if len(copied) != len(tables) {
		return drop(c, fmt.Errorf("%d of %d tables were filled", len(copied), len(tables)))
	}
	for i, t := range tables {
		if copied[i] != t.rows {
			return drop(c, fmt.Errorf("%d of %d rows arrived in %s", copied[i], t.rows, t.into))
		}
	}
	return nil
}

// copied reads answers until the server is ready for more: how many rows each COPY
// has stored, or the server's error.
func copied(conn *pgconn.PgConn) (rows []int64, err error) {
	for {
		m, broken := conn.ReceiveMessage(context.Background())
		if broken != nil {
			return nil, fmt.Errorf("read answer to COPY: %w", broken)
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			err = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CommandComplete:
			if n, ok := strings.CutPrefix(string(m.CommandTag), "COPY "); ok {
				count, bad := strconv.ParseInt(n, 10, 64)
				if bad != nil {
					return nil, fmt.Errorf("read answer to COPY: %w", bad)
				}
				rows = append(rows, count)
			}
		case *pgproto3.ReadyForQuery:
			return rows, err
		}
	}
}

// drop closes a connection of which nobody knows where it stands: the server then
// undoes the transaction.
func drop(c *pgx.Conn, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return errors.Join(err, c.Close(ctx))
}
