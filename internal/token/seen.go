package token

import (
	"crypto/sha256"
	"sync"
	"time"
)

// Bounds of the memory of verified tokens, in number and in bytes of a token's
// text. Most have two thousand bytes; those with event logs are verified anew.
const (
	maxSeen     = 512
	maxSeenSize = 16 << 10
)

// seen remembers tokens whose signature was verified, because one token is
// presented many times and verifying costs more than all else. It holds only
// what a full verification accepted, under the hash of the whole text. Times,
// and whether the signer still counts, are checked at every use.
type seen[T any] struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]sighting[T]
	order [maxSeen][sha256.Size]byte // the oldest is overwritten
	next  int
}

type sighting[T any] struct {
	said  T
	at    time.Time // when it was verified
	until time.Time // when its signer's trust ends; zero for no end
}

// recall gives a token back if its signer is still trusted. A clock that went
// back gives nothing.
func (s *seen[T]) recall(sum [sha256.Size]byte, now time.Time) (T, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.known[sum]
	if !ok || now.Before(x.at) || !x.until.IsZero() && !now.Before(x.until) {
		var none T
		return none, false
	}
	return x.said, true
}

func (s *seen[T]) keep(sum [sha256.Size]byte, x sighting[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[[sha256.Size]byte]sighting[T], maxSeen)
	}
	if _, ok := s.known[sum]; !ok {
		delete(s.known, s.order[s.next])
		s.order[s.next] = sum
		s.next = (s.next + 1) % maxSeen
	}
	s.known[sum] = x
}

// clear forgets everything, after trust in a signer has ended early.
func (s *seen[T]) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.known)
}
