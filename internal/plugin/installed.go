package plugin

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Installed is an operator's decision that a package runs: a row of table
// plugins. Replicas agree by it; each finds the files in its own [Store].
type Installed struct {
	Name      string    `json:"name"` // the row's id
	Version   int64     `json:"-"`    // of the row
	Package   string    `json:"version"`
	Digest    string    `json:"digest"`
	Publisher string    `json:"publisher"`
	KeyIDs    []string  `json:"key_ids"`
	Use       Use       `json:"signed_for"` // what the keys are trusted for
	Offer     Offer     `json:"offer"`
	Asks      []string  `json:"asks"` // what the operator has accepted, see [Asks]
	State     RowState  `json:"state"`
	At        time.Time `json:"at"`
	Author    string    `json:"author"`
}

// Offer is what a package does: its roles, for its kinds, and where an extension's
// routes are.
type Offer struct {
	Contract string   `json:"contract"`
	Roles    []string `json:"roles"`
	Kinds    []string `json:"kinds"`
	Prefix   string   `json:"prefix,omitempty"`   // below /api/v1/; empty for none
	Evidence []string `json:"evidence,omitempty"` // of role verifier
}

// NewInstalled makes the row for a package that [Store.Install] accepted. With
// old, the row of the same name in whatever state, it is the next version of it.
func NewInstalled(e Entry, old *Installed, author string, now time.Time) (Installed, error) {
	m := e.Manifest
	row := Installed{
		Name: m.Name, Version: 1, Package: m.Version, Digest: e.Digest, Publisher: m.Publisher,
		KeyIDs: e.KeyIDs, Use: e.Use, Offer: offerOf(m), Asks: Asks(m, manifest.ForServer), State: Active, At: now, Author: author,
	}
	if old != nil {
		if old.Name != m.Name {
			return Installed{}, fault.Internalf("the old row is of another plugin")
		}
		row.Version = old.Version + 1
	}
	return row, nil
}

func offerOf(m manifest.Manifest) Offer {
	o := Offer{Contract: m.Contract, Roles: m.Roles, Kinds: m.Kinds, Evidence: m.Evidence}
	if m.Extension != nil {
		o.Prefix = m.Extension.Prefix
	}
	return o
}

// Unreadable stands for a row that is damaged. Whoever can write rows can give them
// any name, so that it counts against the plugin and for nothing.
func Unreadable(name string) Installed { return Installed{Name: name, State: Unread} }

// Stands reports whether there is a decision that the plugin runs, or one that
// cannot be read.
func (i Installed) Stands() bool { return i.State == Active || i.State == Unread }

// Readable refuses a row that is damaged: Denied with [ReasonDamaged]. Nothing is
// decided on top of it.
func (i Installed) Readable() error {
	if i.State == Unread {
		return refuse(ReasonDamaged, "what is stored of plugin %s is damaged, so that it does not run; restore the database from a backup", i.Name)
	}
	return nil
}

// Remove is the row in its next version, no longer running. A plugin that was
// removed already is a Conflict.
func (i Installed) Remove(author string, now time.Time) (Installed, error) {
	if i.State != Active {
		return Installed{}, fault.Conflictf("plugin %s is not installed any more", i.Name)
	}
	i.Version, i.State, i.At, i.Author = i.Version+1, Removed, now, author
	return i, nil
}

// Purge is the row of a plugin that was removed, in its next version: what it has
// kept is removed with it, and until [Installed.Purged] nothing of its name is
// installed. It can be repeated. A plugin that is installed is a Conflict.
func (i Installed) Purge(author string, now time.Time) (Installed, error) {
	if i.State == Active {
		return Installed{}, fault.Conflictf("plugin %s is installed; remove it first: sallyport plugin remove %s", i.Name, i.Name)
	}
	i.Version, i.State, i.At, i.Author = i.Version+1, Purging, now, author
	return i, nil
}

// Purged is the row when nothing is left of what the plugin kept: the name belongs
// to no publisher any more.
func (i Installed) Purged() Installed {
	i.Version, i.State, i.Publisher = i.Version+1, Removed, ""
	return i
}

// CheckUpgrade reports whether a package may take the place of the row of its
// name, in whatever state that is: an older version only if that is said to be
// meant, and another publisher's only once the plugin was removed and what it kept
// was purged. Names are not divided among publishers whose keys may sign all, and
// what one has kept under a name is not for another, nor for a package that only a
// developer's key says is the publisher's. The fault is Denied with
// [ReasonRollback] or [ReasonConflict].
func CheckUpgrade(old *Installed, next Installed, allowDowngrade bool) error {
	switch {
	case old == nil:
		return nil
	case old.State == Purging:
		return refuse(ReasonConflict, "what plugin %s kept is being removed; try again, and if that was interrupted: sallyport plugin purge %s", old.Name, old.Name)
	case old.Publisher == "":
	case next.Use == UseDevelopment && old.Use != UseDevelopment:
		return refuse(ReasonConflict, "plugin %s is or was installed from publisher %s, and a package that is signed for development does not get what it kept; "+
			"remove the plugin and purge that first, or give yours another name", old.Name, old.Publisher)
	case old.Publisher == next.Publisher:
	case old.State == Active:
		return refuse(ReasonConflict, "plugin %s is installed from publisher %s, and this package of the same name is of publisher %s; "+
			"if the publisher has really changed, remove the plugin and purge what it kept first", old.Name, old.Publisher, next.Publisher)
	default:
		return refuse(ReasonConflict, "plugin %s was installed from publisher %s, whose data are kept, and this package of the same name is of publisher %s; "+
			"remove them first: sallyport plugin purge %s", old.Name, old.Publisher, next.Publisher, old.Name)
	}
	if allowDowngrade || !Older(next.Package, old.Package) {
		return nil
	}
	return refuse(ReasonRollback, "package %s %s is older than %s, which is or was installed; install a newer one, or say that you mean to go back (--allow-downgrade)",
		next.Name, next.Package, old.Package)
}

// Unlike is the refusal of a package that is not the one with the digest that
// was agreed to.
func Unlike(e Entry, digest string) error {
	return refuse(ReasonDigest, "the package is %s %s with digest %s, not the one that was to be installed (%s)",
		e.Manifest.Name, e.Manifest.Version, e.Digest, clip(digest, 80))
}

// CheckRoles reports whether a package may run beside those that are active:
// one implementation per role and credential kind. The fault is a Conflict that
// names both. A package of the same name does not stand in its own way.
func CheckRoles(active []Installed, name string, offer Offer) error {
	taken := map[slot]string{}
	for _, i := range active {
		if i.State != Active || i.Name == name {
			continue
		}
		for _, slot := range i.Offer.slots() {
			taken[slot] = i.Name
		}
	}
	for _, slot := range offer.slots() {
		if other, ok := taken[slot]; ok {
			return &reasoned{fault.Conflictf("plugin %s and plugin %s both serve %s; remove one of them", other, name, slot), ReasonConflict}
		}
	}
	return nil
}

// slots are the pairs of role and kind that an offer takes. A vender of our own
// contract does all stages, so it takes all four. A verifier takes its kinds of
// evidence. Notifiers take none: there may be several.
func (o Offer) slots() []slot {
	roles := o.Roles
	if o.Contract == manifest.ContractSallyport && contains(roles, manifest.RoleVender) {
		roles = append(slices.Clone(roles), manifest.RoleValidator, manifest.RoleAnalyzer, manifest.RoleSerializer)
	}
	var out []slot
	for _, r := range roles {
		about := o.Kinds
		switch r {
		case manifest.RoleVerifier:
			about = o.Evidence
		case manifest.RoleNotifier, manifest.RoleExtension, manifest.RoleCLI:
			about = nil
		}
		for _, k := range about {
			out = append(out, slot{r, k})
		}
	}
	if o.Prefix != "" {
		out = append(out, slot{manifest.RoleExtension, "/api/v1/" + o.Prefix})
	}
	return out
}

// slot is what one package alone can serve.
type slot struct{ role, kind string }

// String names the slot in messages.
func (s slot) String() string { return s.role + " for " + s.kind }

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// Table names the store's table.
func (Installed) Table() string { return "plugins" }

// Columns gives the row: id (name), version, package_version, digest,
// publisher, key_ids (JSON list), purpose (of the keys), offer (JSON
// object), asks (JSON list), state, at (microseconds), author.
func (i Installed) Columns() []any {
	offer, err := json.Marshal(i.Offer)
	if err != nil {
		offer = []byte("{}") // unreachable: strings always encode
	}
	return []any{
		i.Name, i.Version, i.Package, i.Digest, i.Publisher, jsonList(i.KeyIDs), string(i.Use),
		string(offer), jsonList(i.Asks), string(i.State), unit.Micros(i.At), i.Author,
	}
}

// Scan fills the row from columns in the order of [Installed.Columns].
func (i *Installed) Scan(scan unit.Scanner) error {
	var ids, use, offer, asks, state string
	var at int64
	err := scan(&i.Name, &i.Version, &i.Package, &i.Digest, &i.Publisher, &ids, &use, &offer, &asks, &state, &at, &i.Author)
	if err != nil {
		return err
	}
	i.KeyIDs, i.Offer, i.Asks = nil, Offer{}, nil
	if err := json.Unmarshal([]byte(ids), &i.KeyIDs); err != nil {
		return fault.Internalf("plugin row %s has broken key ids", i.Name).Because(err)
	}
	if err := json.Unmarshal([]byte(offer), &i.Offer); err != nil {
		return fault.Internalf("plugin row %s has a broken offer", i.Name).Because(err)
	}
	if err := json.Unmarshal([]byte(asks), &i.Asks); err != nil {
		return fault.Internalf("plugin row %s has a broken list of what it asks for", i.Name).Because(err)
	}
	i.Use, i.State, i.At = Use(use), RowState(state), unit.Moment(at)
	return nil
}
