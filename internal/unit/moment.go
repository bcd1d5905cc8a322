package unit

import "time"

// Micros is how a moment is stored: microseconds since the epoch, UTC, and 0
// for the zero time.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Moment is the inverse of [Micros].
func Moment(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// Scanner hands the columns of one row, in the table's order, to destinations
// of the types *string, *int64 and *[]byte.
type Scanner func(dest ...any) error
