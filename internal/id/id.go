// Package id makes the identifiers of the house: ULIDs, which sort by time and
// so keep the pages of an index warm.
//
// An id is a name, not a secret: nothing may be granted because an id is known.
package id

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

var (
	mu      sync.Mutex
	last    uint64 // milliseconds of the newest id
	entropy = ulid.Monotonic(rand.Reader, 0)
	given   = ulid.Monotonic(rand.Reader, 0) // for [At], whose times go to and fro
)

// New returns a fresh ULID of 26 characters. Ids made by one process increase
// strictly, also within a millisecond and when the clock is set back. Safe for
// concurrent use.
func New() string {
	mu.Lock()
	defer mu.Unlock()
	last = max(last, ulid.Now()) // read under the lock: else an older time could come later
	u, err := ulid.New(last, entropy)
	if err != nil { // the 80 random bits of this millisecond are used up
		last++
		u = ulid.MustNew(last, entropy)
	}
	return u.String()
}

// At returns a fresh ULID whose time part is t, which must lie between 1970 and
// the year 10889. Of ids that follow each other with the same millisecond each
// is greater than the one before. Safe for concurrent use.
func At(t time.Time) string {
	mu.Lock()
	defer mu.Unlock()
	u, err := ulid.New(ulid.Timestamp(t), given)
	if err != nil { // the 80 random bits of this millisecond are used up
		given = ulid.Monotonic(rand.Reader, 0)
		u = ulid.MustNew(ulid.Timestamp(t), given)
	}
	return u.String()
}

// Derived returns the id that belongs to a text: always the same one, in the form
// of a ULID whose time means nothing. Different texts have different ids, as far
// as 128 bits of SHA-256 tell them apart.
func Derived(text string) string {
	sum := sha256.Sum256([]byte(text))
	return ulid.ULID(sum[:16]).String()
}

// Valid reports whether s is a well-formed ULID in canonical upper case.
func Valid(s string) bool {
	u, err := ulid.ParseStrict(s)
	return err == nil && u.String() == s
}

// Time is the moment at which the id was made, with millisecond precision;
// false if s is not an id.
func Time(s string) (time.Time, bool) {
	u, err := ulid.ParseStrict(s)
	if err != nil {
		return time.Time{}, false
	}
	return ulid.Time(u.Time()).UTC(), true
}
