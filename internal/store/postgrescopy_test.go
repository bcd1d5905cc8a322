package store_test

import (
	"context"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// TestPostgreSQL_Copy sees by the transaction in which a row says it was written
// that a batch goes in by COPY, without savepoints, and with them when a row of it
// exists already; and that the connection is of use after the server's refusal.
func TestPostgreSQL_Copy(t *testing.T) {
	ctx := context.Background()
	e := postgres(t).Engine()
	cfg := e.Config(t)
	s, db := storetest.Open(t, cfg), e.DB(t, cfg)
	sub := storetest.Subject("a")
	noError(t, s.Commit(ctx, storetest.Birth(sub)))
	issue := func(writes ...unit.Write) unit.Unit {
		g := storetest.Grant(sub.ID)
		g.Handle, g.Sealed = "\\N\t\r\n'\"\\\\x00 \\. \u2028", []byte{0, '\\', 0xff} // nothing in it means anything to COPY
		return storetest.Issue(g, writes...)
	}
	twice := issue()
	for _, test := range []struct {
		name         string
		units        []unit.Unit
		refused      int // which unit; -1 for none
		transactions int // that the rows name: a savepoint is one of its own
	}{
		{"rows alone", []unit.Unit{issue(), twice, issue()}, -1, 1},
		{"rows behind checks", []unit.Unit{issue(unit.Check("subjects", sub.ID, 1)), issue()}, -1, 1},
		{"a row that exists", []unit.Unit{issue(), twice, issue()}, 1, 2},
		{"afterwards", []unit.Unit{issue(), issue()}, -1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			answers, err := s.Batch(test.units...)
			noError(t, err)
			ids := []string{}
			for i, err := range answers {
				if refused := fault.Is(err, fault.Conflict); refused != (i == test.refused) || !refused && err != nil {
					t.Errorf("unit %d: %v", i, err)
				}
				if i != test.refused {
					ids = append(ids, test.units[i].Record.ID)
				}
			}
			var rows, transactions int
			noError(t, db.QueryRowContext(ctx, "SELECT count(*), count(DISTINCT p.xmin::text) FROM pending p JOIN grants g ON g.id = p.grant_id AND g.xmin = p.xmin WHERE p.id = ANY($1)", ids).
				Scan(&rows, &transactions))
			if rows != len(ids) || transactions != test.transactions {
				t.Errorf("%d rows of %d transactions, want %d of %d", rows, transactions, len(ids), test.transactions)
			}
			for _, id := range ids {
				var leaf string
				noError(t, db.QueryRowContext(ctx, "SELECT leaf FROM pending WHERE id = $1", id).Scan(&leaf))
				for _, u := range test.units {
					if want, err := u.Record.Leaf(); u.Record.ID == id && (err != nil || leaf != string(want)) {
						t.Errorf("record %s is %q, want %q: %v", id, leaf, want, err)
					}
				}
			}
			for i, u := range test.units {
				if i == test.refused {
					continue
				}
				if _, err := s.Grant(ctx, u.Record.Grant); err != nil { // checks the MAC over all columns
					t.Errorf("grant of unit %d: %v", i, err)
				}
			}
		})
	}
}
