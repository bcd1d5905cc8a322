package store

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Grant reads a grant by its id.
func (s *Store) Grant(ctx context.Context, id string) (grant.Grant, error) {
	return one[grant.Grant](ctx, s, "grant", "grants", "WHERE id = $1", id)
}

// Grants lists grants by id, after the one given. Those of one subject are
// found through the records that name them, in place or pending
// (docs/decisions/0003).
func (s *Store) Grants(ctx context.Context, f grant.Filter) ([]grant.Grant, error) {
	if f.Subject == "" {
		w := grantsWhere(f)
		clause := w.clause("id", f.Limit)
		return many[grant.Grant](ctx, s, "grants", clause, w.args...)
	}
	ids, err := s.grantsNamed(ctx, f.Subject)
	if err != nil {
		return nil, err
	}
	at, _ := slices.BinarySearch(ids, f.After)
	var list []grant.Grant
	most := int(page(f.Limit))
	for some := range slices.Chunk(ids[at:], chunk) {
		w := grantsWhere(f)
		among(&w, "id", some)
		clause := w.clause("id", most-len(list))
		found, err := many[grant.Grant](ctx, s, "grants", clause, w.args...)
		if err != nil {
			return nil, err
		}
		if list = append(list, found...); len(list) >= most {
			break
		}
	}
	return list, nil
}

func grantsWhere(f grant.Filter) where {
	w := where{}
	w.and("id > ?", f.After)
	if f.Subject != "" {
		w.and("subject = ?", f.Subject)
	}
	if f.Kind != "" {
		w.and("kind = ?", f.Kind)
	}
	if f.State != "" {
		w.and("state = ?", string(f.State))
	}
	return w
}

// GrantsToRecall lists the active grants of a subject by id, after the one given.
// Damaged rows are left out; [Store.CountGrants] counts them.
func (s *Store) GrantsToRecall(ctx context.Context, subjectID, after string, limit int) ([]grant.Grant, error) {
	return s.held(ctx, subjectID, after, limit, func(w *where) { w.and("state = ?", string(grant.Active)) })
}

// LiveGrants lists the grants of a subject whose credentials may still work at
// time now, by id. Damaged rows are left out.
func (s *Store) LiveGrants(ctx context.Context, subjectID string, now time.Time, limit int) ([]grant.Grant, error) {
	return s.held(ctx, subjectID, "", limit, func(w *where) {
		w.parts = append(w.parts, "state IN ('active', 'revoking', 'manual')")
		w.and("expires > ?", unit.Micros(now))
	})
}

// held lists those grants of a subject that are also restricted otherwise.
func (s *Store) held(ctx context.Context, subjectID, after string, limit int, restrict func(*where)) ([]grant.Grant, error) {
	ids, err := s.grantsNamed(ctx, subjectID)
	if err != nil {
		return nil, err
	}
	at, _ := slices.BinarySearch(ids, after)
	var list []grant.Grant
	most := int(page(limit))
	for some := range slices.Chunk(ids[at:], chunk) {
		w := grantsWhere(grant.Filter{Subject: subjectID, After: after})
		restrict(&w)
		among(&w, "id", some)
		clause := w.clause("id", most-len(list))
		found, err := sound[grant.Grant](ctx, s, "grants", clause, w.args...)
		if err != nil {
			return nil, err
		}
		if list = append(list, found...); len(list) >= most {
			break
		}
	}
	return list, nil
}

// CountGrants counts the grants of a subject by their state, as it is stored:
// damaged rows too.
func (s *Store) CountGrants(ctx context.Context, subjectID string) (map[grant.State]int, error) {
	ids, err := s.grantsNamed(ctx, subjectID)
	if err != nil {
		return nil, err
	}
	counts := map[grant.State]int{}
	for some := range slices.Chunk(ids, chunk) {
		w := grantsWhere(grant.Filter{Subject: subjectID})
		among(&w, "id", some)
		clause := w.clause("id", chunk)
		err := s.query(ctx, "SELECT state FROM grants "+clause, w.args, func(rows foundRow) error {
			var state string
			err := rows.Scan(&state)
			counts[grant.State(state)]++
			return err //nolint:wrapcheck // query's
		})
		if err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// maxFingerprints is the most entries that one lookup takes.
const maxFingerprints = chunk

// GrantsByFingerprint lists every grant that has one of the fingerprints,
// whatever its state, by id. It reads a row for each 4,096 records of the ledger
// (docs/decisions/0011).
func (s *Store) GrantsByFingerprint(ctx context.Context, fingerprints []string) ([]grant.Grant, error) {
	if len(fingerprints) == 0 {
		return nil, nil
	}
	if len(fingerprints) > maxFingerprints {
		return nil, fault.Invalidf("%d fingerprints are too many: at most %d", len(fingerprints), maxFingerprints)
	}
	ids, err := s.grantsFingerprinted(ctx, fingerprints)
	if err != nil {
		return nil, err
	}
	var list []grant.Grant
	for some := range slices.Chunk(ids, chunk) {
		w := where{}
		among(&w, "id", some)
		clause := w.clause("id", chunk)
		found, err := many[grant.Grant](ctx, s, "grants", clause, w.args...)
		if err != nil {
			return nil, err
		}
		for _, g := range found {
			if slices.ContainsFunc(g.Fingerprints, func(fp string) bool { return slices.Contains(fingerprints, fp) }) {
				list = append(list, g)
			}
		}
	}
	return list, nil
}

// GrantsDue lists the grants that the sweeper must look at, the oldest first.
// Damaged rows are left out.
func (s *Store) GrantsDue(ctx context.Context, now time.Time, limit int) ([]grant.Grant, error) {
	return sound[grant.Grant](ctx, s, "grants",
		"WHERE due > 0 AND due <= $1 ORDER BY due, id LIMIT $2", unit.Micros(now), page(limit))
}

// RevokedHandles lists the grants of a kind that were revoked before the end of
// their lease: what a revocation list must name.
func (s *Store) RevokedHandles(ctx context.Context, kind string, now time.Time) ([]grant.Grant, error) {
	return many[grant.Grant](ctx, s, "grants",
		"WHERE kind = $1 AND state = 'revoked' AND expires > $2 ORDER BY expires, id", kind, unit.Micros(now))
}

// LastExpiry is when the last grant of a kind expires whose handle begins with a
// prefix of ASCII; the zero time if there is none. It reads all grants.
func (s *Store) LastExpiry(ctx context.Context, kind, prefix string) (time.Time, error) {
	last, err := s.number(ctx, "grant",
		"SELECT COALESCE(MAX(expires), 0) FROM grants WHERE kind = $1 AND handle >= $2 AND handle < $3", kind, prefix, prefix+"\x7f")
	return unit.Moment(last), err
}

// Outcome reads the first answer to an idempotent call.
func (s *Store) Outcome(ctx context.Context, id string) (unit.Outcome, error) {
	return one[unit.Outcome](ctx, s, "outcome", "outcomes", "WHERE id = $1", id)
}
