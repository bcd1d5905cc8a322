package flow

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// meet gives a certificate of the operator's own CA a row when it is first
// shown. From then on it is like one that was issued here: it can be revoked by
// itself, and whoever revokes it knows whose it is and so raises the version of
// its subject. Of a first use and a revocation at the same time one inserts the
// row, and the other finds it.
func (g *Gate) meet(ctx context.Context, c Caller, who Identity) (subject.Certificate, error) {
	if err := c.standing(); err != nil {
		return subject.Certificate{}, err
	}
	row := subject.Certificate{
		ID: who.Fingerprint, Version: 1, Subject: who.Subject, Serial: who.Serial, Issuer: who.Issuer, NotAfter: who.NotAfter,
	}
	err := g.commit(ctx, unit.Unit{Writes: []unit.Write{unit.Insert(row)}, Record: audit.Record{
		Type: "certificate.seen", Actor: c.actor(), Subject: row.Subject, Target: row.ID,
		Data: map[string]string{"serial": row.Serial, "issuer": row.Issuer},
	}})
	if fault.Is(err, fault.Conflict) {
		return g.Store.Certificate(ctx, who.Fingerprint)
	}
	return row, err
}

// RevokedCertificate is what became of a certificate that is taken away.
type RevokedCertificate struct {
	Certificate subject.Certificate
	Seen        bool // false: nobody has shown it here yet; it is refused when it comes
	Sessions    int  // that end with it
}

var (
	fingerprintForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	serialForm      = regexp.MustCompile(`^[0-9a-f]{1,40}$`) // RFC 5280, 4.1.2.2: at most 20 octets
)

// RevokeCertificate takes one certificate away from its subject, for good, with
// every session that is bound to it and what those delegated. It is named by its
// fingerprint, or by its serial if only one certificate has it, both in
// lower-case hex. A fingerprint that nobody has shown yet is revoked before its
// first use; an unknown serial is NotFound.
func (g *Gate) RevokeCertificate(ctx context.Context, c Caller, name, reason string) (RevokedCertificate, error) {
	if err := revocable(name, reason); err != nil {
		return RevokedCertificate{}, err
	}
	row, out, already := subject.Certificate{}, RevokedCertificate{}, false
	bound := func(s subject.Session) bool { return s.Certificate == row.ID }
	c.keyed("certificate.revoked", plainAnswer[RevokedCertificate]{to: &out}, name, reason)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		found, err := g.certificate(ctx, name)
		if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
			return unit.Unit{}, err
		}
		row, already = found, false
		record := audit.Record{
			Type: "certificate.revoked", Actor: c.actor(), Subject: row.Subject, Target: row.ID,
			Data: map[string]string{"reason": reason, "serial": row.Serial, "seen": strconv.FormatBool(row.Subject != "")},
		}
		if row.ID == "" {
			record.Target = name
		}
		d, denied := g.administered(ctx, c, "revoke", record, "certificate", record.Target)
		if denied != nil {
			return unit.Unit{}, denied
		}
		if err != nil {
			return unit.Unit{}, err
		}
		if already = !row.Revoked.IsZero(); already {
			return unit.Unit{}, fault.Conflictf("the certificate was revoked already, at %s", row.Revoked.Format(time.RFC3339))
		}
		row = row.Revoke(reason, g.Now().UTC())
		write := unit.Update(row)
		if row.Version == 1 {
			write = unit.Insert(row)
		}
		record.Policy = d.Documents
		writes := append(g.still(c, d.under), write)
		if row.Subject != "" {
			stripped, err := g.strip(ctx, row.Subject, "certificate revoked", &record)
			if err != nil {
				return unit.Unit{}, err
			}
			writes = append(writes, stripped...)
		}
		live, err := g.Store.SessionsOf(ctx, row.Subject)
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read sessions")
		}
		live = slices.DeleteFunc(live, func(s subject.Session) bool { return !bound(s) })
		out = RevokedCertificate{Certificate: row, Seen: row.Subject != "", Sessions: len(live)}
		return unit.Unit{Record: record, Urgent: true, Writes: writes}, nil
	})
	if err != nil && !already {
		return RevokedCertificate{}, err
	}
	if !already {
		row = out.Certificate
	}
	g.endSessions(ctx, c.actor(), row.Subject, "certificate revoked", bound)
	return out, err
}

// revocable checks what a certificate is named by, and why it goes.
func revocable(name, reason string) error {
	switch {
	case len(reason) > 512:
		return fault.Invalidf("a reason has at most 512 bytes")
	case !fingerprintForm.MatchString(name) && !serialForm.MatchString(name):
		return fault.Invalidf("name the certificate by its SHA-256 fingerprint or its serial, in lower-case hex")
	}
	return nil
}

// certificate finds the row that a fingerprint or a serial names. Of a
// fingerprint that nobody has shown it is the beginning of one, in version 0.
func (g *Gate) certificate(ctx context.Context, name string) (subject.Certificate, error) {
	if fingerprintForm.MatchString(name) {
		row, err := g.Store.Certificate(ctx, name)
		if fault.Is(err, fault.NotFound) {
			return subject.Certificate{ID: name}, nil
		}
		return row, err
	}
	rows, err := g.Store.CertificatesBySerial(ctx, name)
	switch {
	case err != nil:
		return subject.Certificate{}, fault.Wrap(err, "read certificates by serial")
	case len(rows) == 0:
		return subject.Certificate{}, fault.NotFoundf("no certificate with this serial was issued or shown here; name it by its SHA-256 fingerprint")
	case len(rows) > 1:
		return subject.Certificate{}, fault.Conflictf("%d certificates have this serial; say which by the SHA-256 fingerprint", len(rows))
	}
	return rows[0], nil
}

// endSessions ends those sessions of a subject that match, after the unit that
// took away what they stand on: none is opened on it any more. They count for
// nothing already, since subject and certificate are asked with every request;
// this is for whoever looks at them, so it never fails, and what a crash leaves
// expires by itself. It is no part of the unit before it, where a session that
// is refreshed again and again would hold up a revocation.
func (g *Gate) endSessions(ctx context.Context, actor audit.Actor, subjectID, reason string, match func(subject.Session) bool) {
	const most = 64 // in one unit
	ctx = context.WithoutCancel(ctx)
	for range tries {
		live, err := g.Store.SessionsOf(ctx, subjectID)
		left := slices.DeleteFunc(live, func(s subject.Session) bool { return !match(s) || !s.Good(g.Now()) })
		if err == nil && len(left) == 0 {
			return
		}
		for some := range slices.Chunk(left, most) {
			writes := make([]unit.Write, len(some))
			for i, s := range some {
				writes[i] = unit.Update(s.End(reason, g.Now().UTC()))
			}
			err = g.commit(ctx, unit.Unit{Urgent: true, Writes: writes, Record: audit.Record{
				Type: "session.revoked", Actor: actor, Subject: subjectID,
				Data: map[string]string{"reason": reason, "sessions": strconv.Itoa(len(some))},
			}})
			if err != nil && !fault.Is(err, fault.Conflict) { // a conflict: one of them was ended by somebody else
				break
			}
		}
		if err != nil && !fault.Is(err, fault.Conflict) {
			g.Log.WarnContext(ctx, "sessions that count for nothing any more are not marked as ended", slog.Any("subject", subjectID), slog.Any("err", err))
			return
		}
	}
}
