// Package resource is about addressed secrets: what lies at
// repository/type/tag, in which version, and who put it there. The value is
// sealed under the envelope; this package never opens it.
package resource

import (
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// MaxValue is the largest value of a resource, in bytes: the default payload
// limit of the KBS protocol.
const MaxValue = 2 << 20

// Resource is one row of table resources. The id is the path.
//
// The row outlives the value: versions of a path only grow, so that path and
// version name one secret for ever, and no two values of a path are sealed
// under the same additional data.
type Resource struct {
	ID      string
	Version int64
	Sealed  []byte // empty once deleted
	Author  string // subject id of who changed it last
	Bytes   int64  // length of the value
	Created time.Time
	Changed time.Time
	Deleted time.Time // zero while there is a value
}

// Delete returns what is left of the resource, one version later: no value.
func (r Resource) Delete(author string, now time.Time) Resource {
	r.Version++
	r.Sealed, r.Bytes, r.Author, r.Changed, r.Deleted = nil, 0, author, now, now
	return r
}

// ParsePath checks a path of exactly three segments of letters, digits, "_",
// "-" and ".", none beginning with a dot (the KBS protocol's rule), each up to
// 128 bytes.
func ParsePath(segments []string) (string, error) {
	if len(segments) != 3 {
		return "", fault.Invalidf("a resource path has three segments, repository/type/tag; this one has %d", len(segments))
	}
	for _, s := range segments {
		if !validSegment(s) {
			return "", fault.Invalidf("a segment of a resource path has 1 to 128 letters, digits, '_', '-' and '.', and begins with no dot")
		}
	}
	return strings.Join(segments, "/"), nil
}

func validSegment(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
		if !ok {
			return false
		}
	}
	return true
}

// Table names the store's table.
func (Resource) Table() string { return "resources" }

// Columns gives the row in the order of the table's columns.
func (r Resource) Columns() []any {
	return []any{r.ID, r.Version, r.Sealed, r.Bytes, r.Author, unit.Micros(r.Created), unit.Micros(r.Changed), unit.Micros(r.Deleted)}
}

// Scan fills the resource from columns in the order of Columns.
func (r *Resource) Scan(scan unit.Scanner) error {
	var created, changed, deleted int64
	if err := scan(&r.ID, &r.Version, &r.Sealed, &r.Bytes, &r.Author, &created, &changed, &deleted); err != nil {
		return err
	}
	r.Created, r.Changed, r.Deleted = unit.Moment(created), unit.Moment(changed), unit.Moment(deleted)
	return nil
}
