package flow

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// SetReferenceValues stores what evidence is compared with, each in place of what
// was there. source says how the values came, for people. All are set, or none.
func (g *Gate) SetReferenceValues(ctx context.Context, c Caller, list []reference.Setting, source string) ([]reference.Value, error) {
	if len(list) == 0 || len(list) > reference.MaxValues {
		return nil, fault.Invalidf("1 to %d reference values can be set at once, not %d", reference.MaxValues, len(list))
	}
	said := []string{source}
	for _, s := range list {
		said = append(said, s.Name, string(s.JSON), strconv.FormatInt(unit.Micros(s.Expires), 10))
	}
	var out []reference.Value
	c.keyed("reference.set", plainAnswer[[]reference.Value]{to: &out}, said...)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		if err := g.Reload(ctx); err != nil {
			return unit.Unit{}, err
		}
		// Every name is the policy's to allow.
		record := audit.Record{Type: "reference.set", Actor: c.actor(), Data: map[string]string{"source": source}}
		var d decided
		for i, s := range list {
			if slices.ContainsFunc(list[:i], func(o reference.Setting) bool { return o.Name == s.Name }) {
				return unit.Unit{}, fault.Invalidf("a reference value is named twice")
			}
			var err error
			record.Target = s.Name
			if d, err = g.administered(ctx, c, "set", record, "reference", s.Name); err != nil {
				return unit.Unit{}, err
			}
		}
		m, err := g.references.now()
		if err != nil {
			return unit.Unit{}, err
		}
		writes := g.still(c, d.under)
		out = out[:0]
		for _, s := range list {
			v, write, err := g.setting(m, s, source, c.Subject.ID)
			if err != nil {
				return unit.Unit{}, err
			}
			out, writes = append(out, v), append(writes, write)
		}
		record.Policy, record.Target = d.Documents, summary(out, record.Data)
		return unit.Unit{Record: record, Writes: append(writes, g.references.next(m))}, nil
	})
	if err != nil {
		return nil, err
	}
	return out, g.Reload(ctx)
}

func (g *Gate) setting(m material, s reference.Setting, source, author string) (reference.Value, unit.Write, error) {
	old, known := m.byName[s.Name]
	if !known {
		v, err := s.Store(nil, source, author, g.Now().UTC())
		return v, unit.Insert(v), err
	}
	v, err := s.Store(&old, source, author, g.Now().UTC())
	return v, unit.Update(v), err
}

// summary fills in what the record says of values: the digest of each, as long as
// there is room for them.
func summary(list []reference.Value, data map[string]string) (target string) {
	const room = 64
	data["values"] = strconv.Itoa(len(list))
	names := make([]string, 0, len(list))
	for i, v := range list {
		if names = append(names, v.Name); i < room {
			data["value "+v.Name] = "sha256:" + v.SHA256() + " v" + strconv.FormatInt(v.Version, 10)
		}
	}
	target = strings.Join(names, " ")
	if len(target) > 512 {
		target = strings.ToValidUTF8(target[:512], "") + "..."
	}
	return target
}

// RegisterReferenceValues takes a message in the form of Trustee's RVPS. Values
// that it sets as they are already are left alone.
func (g *Gate) RegisterReferenceValues(ctx context.Context, c Caller, message []byte) error {
	list, err := reference.ParseMessage(message)
	if err != nil {
		return err
	}
	_, err = g.SetReferenceValues(ctx, c, list, "message")
	return err
}

// RemoveReferenceValue takes a value out of use: policies see none by its name.
func (g *Gate) RemoveReferenceValue(ctx context.Context, c Caller, name string) error {
	c.keyed("reference.removed", happened(), "value", name)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		if err := g.Reload(ctx); err != nil {
			return unit.Unit{}, err
		}
		record := audit.Record{Type: "reference.removed", Actor: c.actor(), Target: name, Data: map[string]string{"kind": "value"}}
		d, err := g.administered(ctx, c, "remove", record, "reference", name)
		if err != nil {
			return unit.Unit{}, err
		}
		m, err := g.references.now()
		if err != nil {
			return unit.Unit{}, err
		}
		old, known := m.byName[name]
		if !known {
			return unit.Unit{}, reference.NoValue(name)
		}
		next, err := old.Remove(c.Subject.ID, g.Now().UTC())
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		record.Data["sha256"] = old.SHA256()
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), unit.Update(next), g.references.next(m))}, nil
	})
	if err != nil {
		return err
	}
	return g.Reload(ctx)
}

// ReferenceValues lists the values that are set, expired ones too.
func (g *Gate) ReferenceValues(ctx context.Context, c Caller) ([]reference.Value, error) {
	record := audit.Record{Type: "reference.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "reference", ""); err != nil {
		return nil, err
	}
	m, err := g.references.now()
	return activeOnly(m.values, func(v reference.Value) bool { return v.State == reference.Active }), err
}

// ReferenceValue reads one value. One that has expired is NotFound, as for
// policies.
func (g *Gate) ReferenceValue(ctx context.Context, c Caller, name string) (reference.Value, error) {
	record := audit.Record{Type: "reference.read", Actor: c.actor(), Target: name}
	if _, err := g.inspected(ctx, c, "get", record, "reference", name); err != nil {
		return reference.Value{}, err
	}
	m, err := g.references.now()
	if err != nil {
		return reference.Value{}, err
	}
	if v, ok := m.byName[name]; ok && v.Good(g.Now()) {
		return v, nil
	}
	return reference.Value{}, reference.NoValue(name)
}

// Recorded are the devices of a decision, with what was found of them.
type Recorded struct {
	Record  string
	Devices []RecordedDevice
}

// RecordedDevice is one of them.
type RecordedDevice struct {
	Name   string // cpu0
	TEE    string
	Claims map[string]any
}

// RecordedClaims reads what an attested guest's evidence said, by the record of
// the decision, for as long as the attestation result is kept: until it expires.
func (g *Gate) RecordedClaims(ctx context.Context, c Caller, recordID string) (Recorded, error) {
	record := audit.Record{Type: "reference.read", Actor: c.actor(), Target: recordID}
	if _, err := g.inspected(ctx, c, "get", record, "reference", ""); err != nil {
		return Recorded{}, err
	}
	gone := fault.NotFoundf("the claims of this decision are not kept any more: a guest's attestation result lives for minutes; attest again, or record from a file")
	entry, err := g.Store.RecordByID(ctx, recordID)
	if err != nil {
		return Recorded{}, err
	}
	r, err := audit.ParseLeaf(entry.Leaf)
	if err != nil {
		return Recorded{}, fault.Wrap(err, "read record")
	}
	if r.Type != "workload.attested" {
		return Recorded{}, fault.Invalidf("record %s is not of an attested guest", recordID)
	}
	passport, err := g.Store.Passport(ctx, r.Target)
	if fault.Is(err, fault.NotFound) || err == nil && !passport.Good(g.Now()) {
		return Recorded{}, gone
	}
	if err != nil {
		return Recorded{}, fault.Wrap(err, "read passport")
	}
	attested, err := g.Guests.Trust.VerifyKept(passport.Token)
	if err != nil {
		return Recorded{}, fault.Wrap(err, "check own attestation result")
	}
	devices, err := recordedDevices(attested.Claims)
	return Recorded{Record: recordID, Devices: devices}, err
}

// recordedDevices reads the annotated evidence in the claims of a result.
func recordedDevices(claims map[string]any) ([]RecordedDevice, error) {
	var out []RecordedDevice
	submods, _ := claims["submods"].(map[string]any)
	for name, v := range submods {
		submod, _ := v.(map[string]any)
		annotated, _ := submod["ear.veraison.annotated-evidence"].(map[string]any)
		for tee, found := range annotated {
			if values, ok := found.(map[string]any); ok && !strings.HasSuffix(tee, "_claims") {
				out = append(out, RecordedDevice{Name: name, TEE: tee, Claims: values})
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the attestation result has no claims of a device")
	}
	slices.SortFunc(out, func(a, b RecordedDevice) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
