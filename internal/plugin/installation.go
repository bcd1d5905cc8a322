package plugin

import (
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Installation remembers that a package was installed once: a row of table
// installations. Only what is remembered can be gone back to.
type Installation struct {
	Digest     string // the row's id
	Version    int64  // of the row
	Name       string
	Package    string // version of the package
	Repository string // where it came from; empty for a file
	At         time.Time
	Author     string
}

// Remember is the row for a package that is being installed; old is the one of
// the same digest, nil if there is none.
func Remember(i Installed, repository string, old *Installation) Installation {
	row := Installation{
		Digest: i.Digest, Version: 1, Name: i.Name, Package: i.Package, Repository: repository, At: i.At, Author: i.Author,
	}
	if old != nil {
		row.Version = old.Version + 1
		if repository == "" {
			row.Repository = old.Repository
		}
	}
	return row
}

// Earlier picks what a plugin goes back to: the version named, else the newest
// of those older than the present one. NotFound if none was installed before.
func Earlier(all []Installation, now Installed, version string) (Installation, error) {
	var found *Installation
	for _, i := range all {
		switch {
		case i.Name != now.Name || i.Digest == now.Digest && now.State == Active:
			continue
		case version != "" && i.Package != version:
			continue
		case version == "" && manifest.CompareVersions(i.Package, now.Package) >= 0:
			continue
		}
		if found == nil || manifest.CompareVersions(i.Package, found.Package) > 0 || i.Package == found.Package && i.At.After(found.At) {
			found = &i
		}
	}
	switch {
	case found != nil:
		return *found, nil
	case version != "":
		return Installation{}, fault.NotFoundf("%s %s was not installed here before, or is what runs now; install it from a file or a repository", now.Name, version)
	}
	return Installation{}, fault.NotFoundf("no version of %s older than %s was installed here before", now.Name, now.Package)
}

// Table names the store's table.
func (Installation) Table() string { return "installations" }

// Columns gives the row: id (digest), version, name, package_version,
// repository, at (microseconds), author.
func (i Installation) Columns() []any {
	return []any{i.Digest, i.Version, i.Name, i.Package, i.Repository, unit.Micros(i.At), i.Author}
}

// Scan fills the row from columns in the order of [Installation.Columns].
func (i *Installation) Scan(scan unit.Scanner) error {
	var at int64
	if err := scan(&i.Digest, &i.Version, &i.Name, &i.Package, &i.Repository, &at, &i.Author); err != nil {
		return err
	}
	i.At = unit.Moment(at)
	return nil
}
