package flow

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Fetcher gets endorsements from their makers over the network. What it brings is
// judged like an import. It bounds size, time and rate by itself, and asks for
// one thing again only after a while. A kind that it does not fetch is NotFound.
type Fetcher interface {
	// Fetch gets one endorsement, with the certificates of its signer.
	Fetch(ctx context.Context, w evidence.Want) ([]reference.File, error)
	// With names what is used together with an endorsement.
	With(w evidence.Want) []evidence.Want
}

// mostRounds bounds how often evidence is looked at again after something that it
// needs was fetched.
const mostRounds = 4

// verify judges the evidence by the present material. What is missing is fetched
// if that is switched on, and stored, and then the evidence is judged anew.
func (a attesting) verify(ctx context.Context, given evidence.Attestation) (evidence.Verdict, material, error) {
	g := a.gate
	for round := 0; ; round++ {
		m, err := g.references.now()
		if err != nil {
			return evidence.Verdict{}, m, err
		}
		verdict, err := g.Guests.with(m.verifiers).Verify(ctx, a.handshake.TEE, given, g.Now())
		r, refused := errors.AsType[*evidence.RefusedError](err)
		if !refused || r.Want.Kind == "" || g.Guests.Fetcher == nil || round == mostRounds {
			return verdict, m, err
		}
		failed := g.fetch(ctx, r.Want, func(m material, files []reference.File) error { return a.helped(ctx, given, m, files) })
		if refused, ok := errors.AsType[*evidence.RefusedError](failed); ok {
			return evidence.Verdict{}, m, refused
		}
		if failed != nil {
			g.Log.WarnContext(ctx, "an endorsement could not be fetched", slog.String("endorsement", reference.EndorsementID(r.Want.Kind, r.Want.Key)), slog.Any("err", failed))
			return verdict, m, err
		}
	}
}

// helped refuses to store what does not make evidence good: a stranger can name
// any version of a chip, and its maker hands out an endorsement for each.
func (a attesting) helped(ctx context.Context, given evidence.Attestation, m material, files []reference.File) error {
	g := a.gate
	found, err := g.Guests.Library.Read(files, "", m.shelf)
	if err != nil {
		return err
	}
	shelf := m.shelf.Clone()
	for _, f := range found {
		if !m.removed(reference.EndorsementID(f.Kind, f.Key)) {
			shelf.Put(f.Endorsement)
		}
	}
	verifiers, err := g.Guests.Library.Verifiers(shelf)
	if err != nil {
		return err
	}
	_, err = g.Guests.with(verifiers).Verify(ctx, a.handshake.TEE, given, g.Now())
	if r, refused := errors.AsType[*evidence.RefusedError](err); refused && r.Want.Kind != "" {
		return nil // something else is wanted, too
	}
	return err
}

// fetch gets an endorsement from its maker and stores it if it helps, with what is
// used together with it as far as that can be had.
func (g *Gate) fetch(ctx context.Context, w evidence.Want, helps func(material, []reference.File) error) error {
	if err := g.fetchOne(ctx, w, helps); err != nil {
		return err
	}
	for _, other := range g.Guests.Fetcher.With(w) {
		m, err := g.references.now()
		if err != nil {
			return err
		}
		if m.shelf.Find(other.Kind, other.Key) != nil {
			continue
		}
		if err := g.fetchOne(ctx, other, nil); err != nil {
			g.Log.WarnContext(ctx, "an endorsement could not be fetched", slog.String("endorsement", reference.EndorsementID(other.Kind, other.Key)), slog.Any("err", err))
		}
	}
	return nil
}

// fetchOne gets and stores one; helps may be nil.
func (g *Gate) fetchOne(ctx context.Context, w evidence.Want, helps func(material, []reference.File) error) error {
	m, err := g.references.now()
	if err != nil {
		return err
	}
	if m.removed(reference.EndorsementID(w.Kind, w.Key)) {
		return fault.NotFoundf("an operator has removed it, so that it is not fetched: import it to have it again")
	}
	files, err := g.Guests.Fetcher.Fetch(ctx, w)
	if err == nil && helps != nil {
		err = helps(m, files)
	}
	if err != nil {
		return err
	}
	err = g.decide(ctx, nil, func() (unit.Unit, error) {
		if err := g.Reload(ctx); err != nil {
			return unit.Unit{}, err
		}
		u, list, err := g.shelve(files, "", "")
		if err != nil {
			return unit.Unit{}, err
		}
		u.Record = audit.Record{Type: "reference.fetched", Actor: audit.System("fetcher"), Target: reference.EndorsementID(w.Kind, w.Key), Data: shelved(list)}
		return u, nil
	})
	if err != nil && !errors.Is(err, errShelved) {
		return fault.Wrap(err, "store what was fetched")
	}
	if err := g.Reload(ctx); err != nil {
		return err
	}
	m, err = g.references.now()
	if err == nil && m.shelf.Find(w.Kind, w.Key) == nil {
		err = fault.Unavailablef("what was fetched is something else")
	}
	return err
}

// TendReferences fetches anew what was fetched before and ends soon. It is called
// now and then, on one replica.
func (g *Gate) TendReferences(ctx context.Context) error {
	if g.Guests.Fetcher == nil {
		return nil
	}
	m, err := g.references.now()
	if err != nil {
		return err
	}
	for _, e := range m.endorsements {
		if e.State != reference.Active || e.Author != "" || e.NotAfter.IsZero() || !g.ends(e) {
			continue
		}
		if err := g.fetchOne(ctx, evidence.Want{Kind: e.Kind, Key: e.Key}, nil); err != nil && !fault.Is(err, fault.NotFound) {
			g.Log.WarnContext(ctx, "an endorsement could not be fetched anew", slog.String("endorsement", e.ID()), slog.Any("err", err))
		}
	}
	return nil
}

// ends reports whether a fifth or less of the endorsement's time is left, or a
// day.
func (g *Gate) ends(e reference.Endorsement) bool {
	left := e.NotAfter.Sub(g.Now())
	return left < 24*time.Hour || left < e.NotAfter.Sub(e.NotBefore)/5
}
