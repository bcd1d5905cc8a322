package plugin

import (
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Floor is the lowest version of a package that may run: a row of table floors.
// It outlives the package, so that removing and installing is no way below it.
type Floor struct {
	Name    string    `json:"name"` // the row's id
	Version int64     `json:"-"`
	Lowest  string    `json:"lowest"`
	Origin  string    `json:"origin"` // "operator", or the digest of the package that demanded it
	At      time.Time `json:"at"`
	Author  string    `json:"author"`
}

// ByOperator is the origin of a floor that a person has set.
const ByOperator = "operator"

// Older reports whether version a is before b in the order of semantic versions.
// Build metadata does not count.
func Older(a, b string) bool { return manifest.CompareVersions(a, b) < 0 }

// RaiseFloor makes the row that demands lowest of a package, the next version of
// old if there is one. With lower it may also go down. What changes nothing, or
// would go down, is a Conflict; what is no version is Invalid.
func RaiseFloor(old *Floor, name, lowest, origin string, lower bool, author string, now time.Time) (Floor, error) {
	if !manifest.ValidName(name) || !manifest.ValidVersion(lowest) {
		return Floor{}, fault.Invalidf("a lowest version is for the name of a package, and is a semantic version such as 1.2.3")
	}
	row := Floor{Name: name, Version: 1, Lowest: lowest, Origin: origin, At: now, Author: author}
	if old == nil {
		return row, nil
	}
	switch {
	case old.Lowest == lowest:
		return Floor{}, fault.Conflictf("%s must be at least %s already", name, lowest)
	case Older(lowest, old.Lowest) && !lower:
		return Floor{}, fault.Conflictf("%s must be at least %s already; say so if you mean to go below that", name, old.Lowest)
	}
	row.Version = old.Version + 1
	return row, nil
}

// Table names the store's table.
func (Floor) Table() string { return "floors" }

// Columns gives the row: id (name), version, lowest, origin, at (microseconds),
// author.
func (f Floor) Columns() []any {
	return []any{f.Name, f.Version, f.Lowest, f.Origin, unit.Micros(f.At), f.Author}
}

// Scan fills the row from columns in the order of [Floor.Columns].
func (f *Floor) Scan(scan unit.Scanner) error {
	var at int64
	if err := scan(&f.Name, &f.Version, &f.Lowest, &f.Origin, &at, &f.Author); err != nil {
		return err
	}
	f.At = unit.Moment(at)
	return nil
}
