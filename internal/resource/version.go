package resource

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Version is what once stood at a path: one row of table resource_versions. A
// row is written when the next version is, with the value sealed as it was, so
// that it opens as the resource of that path and version; the value may be gone
// later, the row stays.
type Version struct {
	Path    string
	Number  int64
	Sealed  []byte // empty if the value was erased, or this version was a deletion
	Bytes   int64  // length of the value, also when it is gone
	Author  string // subject id
	At      time.Time
	Deleted bool // this version was a deletion
}

// Past is the row that keeps r when the next version of its path is written,
// with or without the value.
func (r Resource) Past(value bool) Version {
	v := Version{Path: r.ID, Number: r.Version, Bytes: r.Bytes, Author: r.Author, At: r.Changed, Deleted: !r.Deleted.IsZero()}
	if value {
		v.Sealed = r.Sealed
	}
	return v
}

// numberWidth makes ids sort by number. A path of a million million versions is
// none.
const numberWidth = 12

// VersionID is the id of a row: ids of a path sort by number, and no path is the
// beginning of another's, because none holds "@".
func VersionID(path string, number int64) string {
	return fmt.Sprintf("%s@%0*d", path, numberWidth, number)
}

// Table names the store's table.
func (Version) Table() string { return "resource_versions" }

// Columns gives the row in the order of the table's columns.
func (v Version) Columns() []any {
	deleted := int64(0)
	if v.Deleted {
		deleted = 1
	}
	return []any{VersionID(v.Path, v.Number), int64(1), v.Sealed, v.Bytes, v.Author, unit.Micros(v.At), deleted}
}

// Scan fills the version from columns in the order of Columns.
func (v *Version) Scan(scan unit.Scanner) error {
	var name string
	var version, at, deleted int64
	if err := scan(&name, &version, &v.Sealed, &v.Bytes, &v.Author, &at, &deleted); err != nil {
		return err
	}
	path, number, ok := strings.Cut(name, "@")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil {
		return fault.Internalf("resource version %.400q has a broken name", name)
	}
	v.Path, v.Number, v.At, v.Deleted = path, n, unit.Moment(at), deleted != 0
	return nil
}
