package flow

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Whose packages may run, and from which versions on: the operators' decisions
// about publishers, their keys and lowest versions. Each changes rows whose
// generation every replica watches, so that it acts on running plugins.

// trusted is what was decided so far.
type trusted struct{ plugin.Judging }

func (g *Gate) readTrusted(ctx context.Context) (trusted, error) {
	j, err := g.Store.Judging(ctx)
	return trusted{j}, fault.Wrap(err, "read whom to trust")
}

// publisher is the row of a name; Internal if it is damaged, so that nothing is
// decided on top of it.
func (t trusted) publisher(name string) (plugin.Publisher, error) {
	for _, p := range t.Publishers {
		if p.Name == name {
			return p, nil
		}
	}
	if t.Damaged.Publishers[name] {
		return plugin.Publisher{}, damaged("publisher " + name)
	}
	return plugin.Publisher{}, fault.NotFoundf("no publisher %s is trusted; see: sallyport plugin trust list", name)
}

func (t trusted) key(id string) (plugin.Key, error) {
	for _, k := range t.Keys {
		if k.ID == id {
			return k, nil
		}
	}
	if t.Damaged.Keys[id] {
		return plugin.Key{}, damaged("key " + id)
	}
	return plugin.Key{}, fault.NotFoundf("there is no trusted key %s; see: sallyport plugin trust list", id)
}

// floor is the lowest version of a name, nil if none is demanded.
func (t trusted) floor(name string) (*plugin.Floor, error) {
	for _, f := range t.Floors {
		if f.Name == name {
			return &f, nil
		}
	}
	if t.Damaged.Floors[name] {
		return nil, damaged("the lowest version of " + name)
	}
	return nil, nil
}

func damaged(what string) error {
	return plugin.Refuse(plugin.ReasonDamaged, "what is stored of %s is damaged; restore the database from a backup", what)
}

// trust is by what packages are judged. A key whose publisher has no row is left
// out: without the row nobody knows how many must sign.
func (g *Gate) trust(ctx context.Context) (plugin.Trust, error) {
	read, err := g.readTrusted(ctx)
	if err != nil {
		return plugin.Trust{}, err
	}
	t := plugin.Trust{
		Thresholds: map[string]int{}, Floors: map[string]string{}, Locked: g.Locked, Development: g.Development, Now: g.Now, Addresses: g.Addresses,
		Damaged: read.Damaged,
	}
	for _, p := range read.Publishers {
		t.Thresholds[p.Name] = p.Threshold
	}
	for _, f := range read.Floors {
		t.Floors[f.Name] = f.Lowest
	}
	for _, k := range read.Keys {
		if _, known := t.Thresholds[k.Publisher]; known || k.Use == plugin.UseDevelopment {
			t.Keys = append(t.Keys, k)
		}
	}
	return t, nil
}

// trustChange is one decision about whom to trust, or what.
type trustChange struct {
	action, event string
	kind, name    string            // of what policy is asked about
	target        string            // of the record; the name if empty
	data          map[string]string // of the record
	urgent        bool
	write         func(trusted) ([]unit.Write, error)
}

// changeTrust asks policy, and commits what write makes of the rows as they are.
// The generation of all of them is a condition, since decisions depend on rows
// that they do not change.
func (g *Gate) changeTrust(ctx context.Context, c *Caller, change trustChange) error {
	err := g.decide(ctx, c, func() (unit.Unit, error) {
		record := audit.Record{Type: change.event, Actor: c.actor(), Target: cmp.Or(change.target, change.name), Data: change.data}
		d, err := g.administered(ctx, *c, change.action, record, change.kind, change.name)
		if err != nil {
			return unit.Unit{}, err
		}
		generation, err := g.Store.Generation(ctx, "trust")
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read trust generation")
		}
		all, err := g.readTrusted(ctx)
		if err != nil {
			return unit.Unit{}, err
		}
		writes, err := change.write(all)
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		writes = append(writes, unit.Do("generations.bump", 1, "the trusted publishers have changed, try again", "trust", generation))
		return unit.Unit{Record: record, Urgent: change.urgent, Writes: append(g.still(*c, d.under), writes...)}, nil
	})
	if err != nil {
		return err
	}
	return g.ApplyPlugins(ctx)
}

// PublisherKey is a key that an operator decides to trust.
type PublisherKey struct {
	Publisher string
	Public    ed25519.PublicKey
	Names     []string   // patterns of package names; none means all
	Use       plugin.Use // empty: packages
	NotBefore time.Time
	Expires   time.Time // zero: never
}

// TrustPublisher lets a publisher's key sign packages, or trusts one that it
// knows on other terms. The first key makes the publisher known. A development
// key is refused where the configuration does not allow such packages.
func (g *Gate) TrustPublisher(ctx context.Context, c Caller, k PublisherKey) (plugin.Key, error) {
	if k.Use == "" {
		k.Use = plugin.UsePackage
	}
	if k.Use == plugin.UseDevelopment && !g.Development {
		return plugin.Key{}, fault.Deniedf("this server accepts no packages for development; set plugins.development in its configuration, on a server that is no one's production")
	}
	var next plugin.Key
	c.keyed("publisher.trusted", plainAnswer[plugin.Key]{&next, distrusted}, append([]string{
		k.Publisher, string(k.Public), string(k.Use), k.NotBefore.UTC().String(), k.Expires.UTC().String(),
	}, k.Names...)...)
	data := map[string]string{"publisher": k.Publisher, "use": string(k.Use)}
	err := g.changeTrust(ctx, &c, trustChange{
		action: "trust", event: "publisher.trusted", kind: "publisher", name: k.Publisher, target: plugin.KeyID(k.Public), data: data,
		write: func(all trusted) ([]unit.Write, error) {
			now := g.Now().UTC()
			fresh, err := plugin.NewKey(k.Public, k.Publisher, k.Names, c.Subject.ID, now)
			if err != nil {
				return nil, err
			}
			if fresh, err = fresh.Limited(k.Use, k.NotBefore, k.Expires); err != nil {
				return nil, err
			}
			var writes []unit.Write
			_, err = all.publisher(k.Publisher)
			if err != nil && !fault.Is(err, fault.NotFound) {
				return nil, err
			}
			if err != nil && k.Use != plugin.UseDevelopment {
				p, err := plugin.NewPublisher(k.Publisher, c.Subject.ID, now)
				if err != nil {
					return nil, err
				}
				writes = append(writes, unit.Insert(p))
			}
			write := unit.Insert
			old, err := all.key(fresh.ID)
			if err != nil && !fault.Is(err, fault.NotFound) {
				return nil, err
			}
			if err == nil {
				if fresh, err = old.Again(fresh); err != nil {
					return nil, err
				}
				write = unit.Update
			}
			next = fresh
			data["names"] = strings.Join(fresh.Names, " ")
			limits(data, fresh)
			return append(writes, write(fresh)), nil
		},
	})
	return next, err
}

// limits adds a key's time to a record.
func limits(data map[string]string, k plugin.Key) {
	if !k.NotBefore.IsZero() {
		data["not_before"] = k.NotBefore.UTC().Format(time.RFC3339)
	}
	if !k.Expires.IsZero() {
		data["expires"] = k.Expires.UTC().Format(time.RFC3339)
	}
}

// distrusted refuses to say again that a key is trusted which is not any more.
func distrusted(ctx context.Context, g *Gate, was plugin.Key) error {
	all, err := g.readTrusted(ctx)
	if err != nil {
		return err
	}
	if now, err := all.key(was.ID); err != nil || now.State != plugin.Active {
		return gone("the key was taken out of trust")
	}
	return nil
}

// DistrustPublisher takes a key out of trust. Plugins that only it has signed
// stop.
func (g *Gate) DistrustPublisher(ctx context.Context, c Caller, keyID string) error {
	return g.endKey(ctx, c, keyID, "distrust", "publisher.distrusted", "", func(k plugin.Key, now time.Time) (plugin.Key, error) {
		return k.Remove(c.Subject.ID, now)
	})
}

// RetirePublisherKey lets a key sign nothing new. What it signed and is installed goes on.
func (g *Gate) RetirePublisherKey(ctx context.Context, c Caller, keyID string) error {
	return g.endKey(ctx, c, keyID, "retire", "publisher.retired", "", func(k plugin.Key, now time.Time) (plugin.Key, error) {
		return k.Retire(c.Subject.ID, now)
	})
}

// RevokePublisherKey ends a key that is believed to be in the wrong hands, for ever.
// Plugins that do not run without its signature are killed.
func (g *Gate) RevokePublisherKey(ctx context.Context, c Caller, keyID, reason string) error {
	return g.endKey(ctx, c, keyID, "revoke", "publisher.revoked", reason, func(k plugin.Key, now time.Time) (plugin.Key, error) {
		return k.Revoke(reason, c.Subject.ID, now)
	})
}

func (g *Gate) endKey(ctx context.Context, c Caller, keyID, action, event, reason string, end func(plugin.Key, time.Time) (plugin.Key, error)) error {
	c.keyed(event, happened(), keyID, reason)
	data := map[string]string{}
	if reason != "" {
		data["reason"] = reason
	}
	return g.changeTrust(ctx, &c, trustChange{
		action: action, event: event, kind: "publisher", name: keyID, data: data, urgent: true,
		write: func(all trusted) ([]unit.Write, error) {
			old, err := all.key(keyID)
			if err != nil {
				return nil, err
			}
			next, err := end(old, g.Now().UTC())
			if err != nil {
				return nil, err
			}
			data["publisher"] = next.Publisher
			return []unit.Write{unit.Update(next)}, nil
		},
	})
}

// DemandSignatures sets how many distinct keys of a publisher must have signed
// its packages.
func (g *Gate) DemandSignatures(ctx context.Context, c Caller, publisher string, threshold int) (plugin.Publisher, error) {
	var next plugin.Publisher
	c.keyed("publisher.changed", plainAnswer[plugin.Publisher]{to: &next}, publisher, strconv.Itoa(threshold))
	err := g.changeTrust(ctx, &c, trustChange{
		action: "threshold", event: "publisher.changed", kind: "publisher", name: publisher,
		data: map[string]string{"threshold": strconv.Itoa(threshold)},
		write: func(all trusted) ([]unit.Write, error) {
			p, err := all.publisher(publisher)
			if err != nil {
				return nil, err
			}
			if next, err = p.Demand(threshold, all.Keys, c.Subject.ID, g.Now().UTC()); err != nil {
				return nil, err
			}
			return []unit.Write{unit.Update(next)}, nil
		},
	})
	return next, err
}

// RotatePublisher applies a publisher's own statement which keys are its own
// from now on (see [plugin.Publisher.Rotate]). It brings its authority with it,
// so the operator is not asked whether the new key is genuine.
func (g *Gate) RotatePublisher(ctx context.Context, c Caller, statement []byte) (plugin.Rotated, error) {
	r, _, err := plugin.ReadRotation(statement)
	if err != nil {
		return plugin.Rotated{}, err
	}
	var out plugin.Rotated
	c.keyed("publisher.rotated", plainAnswer[plugin.Rotated]{to: &out}, string(statement))
	data := map[string]string{"serial": strconv.FormatInt(r.Serial, 10)}
	err = g.changeTrust(ctx, &c, trustChange{
		action: "rotate", event: "publisher.rotated", kind: "publisher", name: r.Publisher, data: data, urgent: len(r.Revoked) > 0,
		write: func(all trusted) ([]unit.Write, error) {
			p, err := all.publisher(r.Publisher)
			if err != nil {
				return nil, err
			}
			if out, err = p.Rotate(statement, all.Keys, c.Subject.ID, g.Now().UTC()); err != nil {
				return nil, err
			}
			writes := []unit.Write{unit.Update(out.Publisher)}
			for _, list := range []string{"added", string(plugin.Retired), string(plugin.Revoked)} {
				delete(data, list) // of an attempt before this one
			}
			for _, k := range out.Added {
				writes = append(writes, unit.Insert(k))
				data["added"] = strings.TrimSpace(data["added"] + " " + k.ID)
			}
			for _, k := range out.Ended {
				writes = append(writes, unit.Update(k))
				data[string(k.State)] = strings.TrimSpace(data[string(k.State)] + " " + k.ID)
			}
			data["signers"], data["threshold"] = strings.Join(out.Signers, " "), strconv.Itoa(out.Publisher.Threshold)
			return writes, nil
		},
	})
	if err != nil {
		return plugin.Rotated{}, err
	}
	return out, nil
}

// Trusted is a publisher with its keys, those that were removed left out.
type Trusted struct {
	plugin.Publisher
	Keys []plugin.Key
}

// Publishers lists the trusted publishers, then the keys of development under a
// publisher of no name.
func (g *Gate) Publishers(ctx context.Context, c Caller) ([]Trusted, error) {
	record := audit.Record{Type: "publisher.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "publisher", ""); err != nil {
		return nil, err
	}
	all, err := g.readTrusted(ctx)
	if err != nil {
		return nil, err
	}
	var out []Trusted
	for _, p := range all.Publishers {
		t := Trusted{Publisher: p}
		for _, k := range all.Keys {
			if k.Publisher == p.Name && k.State != plugin.Removed && k.Use != plugin.UseDevelopment {
				t.Keys = append(t.Keys, k)
			}
		}
		if len(t.Keys) > 0 {
			out = append(out, t)
		}
	}
	development := activeOnly(all.Keys, func(k plugin.Key) bool { return k.Use == plugin.UseDevelopment && k.State != plugin.Removed })
	if len(development) > 0 {
		out = append(out, Trusted{Publisher: plugin.Publisher{Threshold: 1}, Keys: development})
	}
	return out, nil
}

// SetFloor demands a lowest version of a package. What is below stops. With lower
// it may go down, for a floor that a bad package has set too high.
func (g *Gate) SetFloor(ctx context.Context, c Caller, name, lowest string, lower bool) (plugin.Floor, error) {
	var next plugin.Floor
	c.keyed("plugin.floor", plainAnswer[plugin.Floor]{to: &next}, name, lowest, strconv.FormatBool(lower))
	data := map[string]string{"lowest": lowest, "origin": plugin.ByOperator}
	err := g.changeTrust(ctx, &c, trustChange{
		action: "floor", event: "plugin.floor", kind: "plugin", name: name, data: data, urgent: true,
		write: func(all trusted) ([]unit.Write, error) {
			old, err := all.floor(name)
			if err != nil {
				return nil, err
			}
			if next, err = plugin.RaiseFloor(old, name, lowest, plugin.ByOperator, lower, c.Subject.ID, g.Now().UTC()); err != nil {
				return nil, err
			}
			if old == nil {
				return []unit.Write{unit.Insert(next)}, nil
			}
			data["before"] = old.Lowest
			return []unit.Write{unit.Update(next)}, nil
		},
	})
	return next, err
}

// Floors lists the lowest versions that packages must have.
func (g *Gate) Floors(ctx context.Context, c Caller) ([]plugin.Floor, error) {
	record := audit.Record{Type: "plugin.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "plugin", ""); err != nil {
		return nil, err
	}
	all, err := g.readTrusted(ctx)
	slices.SortFunc(all.Floors, func(a, b plugin.Floor) int { return strings.Compare(a.Name, b.Name) })
	return all.Floors, err
}
