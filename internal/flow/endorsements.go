package flow

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Imported is an endorsement after an import, without its bytes.
type Imported struct {
	ID      string
	File    string
	SHA256  string
	Version int64
	Changed bool // false: these bytes were stored already
	// NotAfter is when it ends, zero for never. What has ended is stored all the same.
	NotAfter time.Time
}

// ImportEndorsements stores what makers say about their devices, after it was
// verified by the makers' keys. All files are taken, or none. kind is empty, or
// the one kind that is taken on the operator's word (reference.md). What is
// stored already is left as it is; what is older than that is a Conflict.
func (g *Gate) ImportEndorsements(ctx context.Context, c Caller, files []reference.File, kind string) ([]Imported, error) {
	if g.Guests.Library == nil {
		return nil, fault.NotFoundf("this server takes no guests")
	}
	if len(files) == 0 || len(files) > reference.MaxFiles {
		return nil, fault.Invalidf("1 to %d files can be imported at once, not %d", reference.MaxFiles, len(files))
	}
	said := []string{kind}
	for _, f := range files {
		if err := f.Check(); err != nil {
			return nil, err
		}
		said = append(said, f.Name, string(f.Data))
	}
	var out []Imported
	c.keyed("reference.imported", plainAnswer[[]Imported]{to: &out}, said...)
	record := audit.Record{Type: "reference.imported", Actor: c.actor(), Target: "endorsements"}
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		if err := g.Reload(ctx); err != nil {
			return unit.Unit{}, err
		}
		d, err := g.administered(ctx, c, "import", record, "reference", kind)
		if err != nil {
			return unit.Unit{}, err
		}
		u, list, err := g.shelve(files, kind, c.Subject.ID)
		if out = list; err != nil {
			return unit.Unit{}, err
		}
		u.Record = record
		u.Record.Policy, u.Record.Data = d.Documents, shelved(list)
		u.Writes = append(u.Writes, g.still(c, d.under)...)
		return u, nil
	})
	if errors.Is(err, errShelved) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return out, g.Reload(ctx)
}

// errShelved ends an import of what is stored already.
var errShelved = errors.New("stored already")

// removed reports whether an operator took an endorsement out of use.
func (m material) removed(id string) bool {
	return slices.ContainsFunc(m.endorsements, func(e reference.Endorsement) bool { return e.ID() == id && e.State == reference.Removed })
}

// shelve reads files and makes the writes that store what is in them, under the
// present generation of the material.
func (g *Gate) shelve(files []reference.File, kind, author string) (unit.Unit, []Imported, error) {
	m, err := g.references.now()
	if err != nil {
		return unit.Unit{}, nil, err
	}
	found, err := g.Guests.Library.Read(files, kind, m.shelf)
	if err != nil {
		return unit.Unit{}, nil, err
	}
	if len(found) > reference.MaxFound {
		return unit.Unit{}, nil, fault.Invalidf("the files hold more than %d endorsements: import them in parts", reference.MaxFound)
	}
	var u unit.Unit
	var list []Imported
	seen := map[string]bool{}
	for _, f := range found {
		id := reference.EndorsementID(f.Kind, f.Key)
		if seen[id] { // two answers about one thing have one signer's chain
			continue
		}
		if author == "" && m.removed(id) { // whoever shows evidence must not undo what an operator did
			continue
		}
		seen[id] = true
		var old *reference.Endorsement
		if i := slices.IndexFunc(m.endorsements, func(e reference.Endorsement) bool { return e.ID() == id }); i >= 0 {
			old = &m.endorsements[i]
		}
		next, changed, err := f.Store(old, author, g.Now().UTC())
		if err != nil {
			return unit.Unit{}, nil, err
		}
		list = append(list, Imported{ID: id, File: f.File, SHA256: next.SHA256(), Version: next.Version, Changed: changed, NotAfter: next.NotAfter})
		switch {
		case !changed:
		case old == nil:
			u.Writes = append(u.Writes, unit.Insert(next))
		default:
			u.Writes = append(u.Writes, unit.Update(next))
		}
	}
	if len(u.Writes) == 0 {
		return unit.Unit{}, list, errShelved
	}
	u.Writes = append(u.Writes, g.references.next(m))
	return u, list, nil
}

// next is the write by which a change of the reference material is the only one
// that follows the generation it was decided on.
func (*references) next(m material) unit.Write {
	return unit.Do("generations.bump", 1, "the reference material has changed, try again", "reference", m.generation)
}

// same is the write that demands that the material has not changed.
func (*references) same(m material) unit.Write {
	return unit.Do("generations.check", 1, "the reference material has changed, try again", "reference", m.generation)
}

// shelved is what the record says of an import: each endorsement that changed, with
// its digest and where it came from.
func shelved(list []Imported) map[string]string {
	data := map[string]string{}
	for _, i := range list {
		if i.Changed {
			data[i.ID] = "sha256:" + i.SHA256 + " v" + strconv.FormatInt(i.Version, 10) + " " + i.File
		}
	}
	return data
}

// RemoveEndorsement takes an endorsement out of use. Evidence that needs it is
// refused from the commit on.
func (g *Gate) RemoveEndorsement(ctx context.Context, c Caller, id string) error {
	c.keyed("reference.removed", happened(), "endorsement", id)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		if err := g.Reload(ctx); err != nil {
			return unit.Unit{}, err
		}
		record := audit.Record{Type: "reference.removed", Actor: c.actor(), Target: id, Data: map[string]string{"kind": "endorsement"}}
		d, err := g.administered(ctx, c, "remove", record, "reference", id)
		if err != nil {
			return unit.Unit{}, err
		}
		m, err := g.references.now()
		if err != nil {
			return unit.Unit{}, err
		}
		i := slices.IndexFunc(m.endorsements, func(e reference.Endorsement) bool { return e.ID() == id })
		if i < 0 {
			return unit.Unit{}, reference.NoEndorsement(id)
		}
		next, err := m.endorsements[i].Remove(c.Subject.ID, g.Now().UTC())
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		record.Data["sha256"] = m.endorsements[i].SHA256()
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), unit.Update(next), g.references.next(m))}, nil
	})
	if err != nil {
		return err
	}
	return g.Reload(ctx)
}

// Endorsements lists what is stored, with its bytes.
func (g *Gate) Endorsements(ctx context.Context, c Caller) ([]reference.Endorsement, error) {
	record := audit.Record{Type: "reference.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "reference", ""); err != nil {
		return nil, err
	}
	m, err := g.references.now()
	return activeOnly(m.endorsements, func(e reference.Endorsement) bool { return e.State == reference.Active }), err
}
