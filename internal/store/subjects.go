package store

import (
	"context"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Subject reads a subject by its id.
func (s *Store) Subject(ctx context.Context, id string) (subject.Subject, error) {
	return remembered[subject.Subject](ctx, s, "subject", "subjects", 0, id)
}

// SubjectByName reads the one subject of a kind that has this name and is
// neither revoked nor rejected.
func (s *Store) SubjectByName(ctx context.Context, kind subject.Kind, name string) (subject.Subject, error) {
	return one[subject.Subject](ctx, s, "subject", "subjects",
		"WHERE kind = $1 AND name = $2 AND state NOT IN ('revoked', 'rejected')", string(kind), name)
}

// Subjects lists subjects by id, after the one given.
func (s *Store) Subjects(ctx context.Context, f subject.Filter) ([]subject.Subject, error) {
	w := where{}
	w.and("id > ?", f.After)
	if f.Kind != "" {
		w.and("kind = ?", string(f.Kind))
	}
	if f.State != "" {
		w.and("state = ?", string(f.State))
	}
	clause := w.clause("id", f.Limit)
	return many[subject.Subject](ctx, s, "subjects", clause, w.args...)
}

// SubjectsToRecall lists the subjects whose credentials the sweeper must take
// back, the oldest first. Damaged rows are left out.
func (s *Store) SubjectsToRecall(ctx context.Context, now time.Time, limit int) ([]subject.Subject, error) {
	return sound[subject.Subject](ctx, s, "subjects",
		"WHERE recall > 0 AND recall <= $1 ORDER BY recall, id LIMIT $2", unit.Micros(now), page(limit))
}

// Certificate reads a certificate by its fingerprint.
func (s *Store) Certificate(ctx context.Context, fingerprint string) (subject.Certificate, error) {
	return remembered[subject.Certificate](ctx, s, "certificate", "certificates", 0, fingerprint)
}

// CertificatesBySerial lists the certificates with a serial, in lower-case hex:
// one of each authority that has given it.
func (s *Store) CertificatesBySerial(ctx context.Context, serial string) ([]subject.Certificate, error) {
	return many[subject.Certificate](ctx, s, "certificates", "WHERE serial = $1 ORDER BY id", serial)
}

// CertificatesOf lists the certificates of a subject that are not expired,
// revoked ones included, by the time at which they expire.
func (s *Store) CertificatesOf(ctx context.Context, subjectID string) ([]subject.Certificate, error) {
	return many[subject.Certificate](ctx, s, "certificates",
		"WHERE subject = $1 AND not_after > $2 ORDER BY not_after, id", subjectID, s.now().UnixMicro())
}

// Session reads a session by its id.
func (s *Store) Session(ctx context.Context, id string) (subject.Session, error) {
	return one[subject.Session](ctx, s, "session", "sessions", "WHERE id = $1", id)
}

// SessionsOf lists the sessions of a subject that are neither revoked nor
// expired.
func (s *Store) SessionsOf(ctx context.Context, subjectID string) ([]subject.Session, error) {
	return many[subject.Session](ctx, s, "sessions",
		"WHERE subject = $1 AND revoked = 0 AND expires > $2 ORDER BY id", subjectID, s.now().UnixMicro())
}

// Caller reads a session and its subject as of one moment.
func (s *Store) Caller(ctx context.Context, session string) (subject.Session, subject.Subject, error) {
	return withSubject(ctx, s, "session", "sessions", session, func(x subject.Session) string { return x.Subject })
}

// Guest reads the attestation result of a handshake and its workload as of one
// moment.
func (s *Store) Guest(ctx context.Context, handshake string) (subject.Passport, subject.Subject, error) {
	return withSubject(ctx, s, "attestation result", "passports", handshake, func(x subject.Passport) string { return x.Subject })
}

// withSubject reads a row by its id, and the subject that it belongs to, as of one
// moment: from memory, where a batch takes out both in one step, or by one query.
func withSubject[T any, P rowOf[T]](ctx context.Context, s *Store, noun, tableName, id string, of func(T) string) (T, subject.Subject, error) {
	row, whose, found, epoch := recallPair(&s.identities, tableName, id, of)
	if found {
		return row, whose, nil
	}
	at, bt := s.catalogue.tables[tableName], s.catalogue.tables["subjects"]
	a, b := newRaw(at), newRaw(bt)
	err := s.query(ctx, at.whose, []any{id}, func(rows foundRow) error {
		found = true
		if err := rows.Scan(append(append(make([]any, 0, len(a.dest)+len(b.dest)), a.dest...), b.dest...)...); err != nil {
			return s.unreadable(ctx, err)
		}
		if err := s.believe(ctx, at, a, P(&row)); err != nil {
			return err
		}
		return s.believe(ctx, bt, b, &whose)
	})
	if err == nil && !found {
		err = fault.NotFoundf("there is no such %s", noun)
	}
	if err != nil {
		var none T
		return none, subject.Subject{}, err
	}
	s.identities.remember(epoch, tableName, 0, id, row)
	s.identities.remember(epoch, "subjects", 0, whose.ID, whose)
	return row, whose, nil
}

// Passport reads an attestation result by the id of its handshake.
func (s *Store) Passport(ctx context.Context, handshake string) (subject.Passport, error) {
	return remembered[subject.Passport](ctx, s, "attestation result", "passports", 0, handshake)
}

// PassportByToken reads an attestation result by what its token says: the SHA-256 of
// the signed text, in lower-case hex, and when it expires, which is part of that
// text. By both they lie in the order of their time; by the hash alone each new one
// would change a page of its own.
func (s *Store) PassportByToken(ctx context.Context, digest string, expires time.Time) (subject.Passport, error) {
	const tableName, column = "passports", 3
	row, found, epoch := recall[subject.Passport](&s.identities, tableName, column, digest)
	if found && row.Expires.Equal(expires) {
		return row, nil
	}
	row, err := one[subject.Passport](ctx, s, "attestation result", tableName, "WHERE expires = $1 AND digest = $2", unit.Micros(expires), digest)
	if err == nil {
		s.identities.remember(epoch, tableName, column, digest, row)
	}
	return row, err
}

// Invitation reads a join token by its id.
func (s *Store) Invitation(ctx context.Context, id string) (subject.Invitation, error) {
	return one[subject.Invitation](ctx, s, "invitation", "invitations", "WHERE id = $1", id)
}

// Invitations lists join tokens by id, after the one given.
func (s *Store) Invitations(ctx context.Context, after string, limit int) ([]subject.Invitation, error) {
	return many[subject.Invitation](ctx, s, "invitations", "WHERE id > $1 ORDER BY id LIMIT $2", after, page(limit))
}
