package token

import (
	"crypto/sha256"
	"sync"
	"time"
)

// Bounds of the memory of verified tokens: in number, in bytes of the text of one,
// and of all together. Most have two thousand bytes, and what they say takes some
// times as much; those with event logs are verified anew.
const (
	maxSeen     = 2048
	maxSeenSize = 16 << 10
	maxSeenSum  = 4 << 20
)

// seen remembers tokens whose signature was verified, because one token is
// presented many times and verifying costs more than all else. It holds only
// what a full verification accepted, under the hash of the whole text. Times,
// and whether the signer still counts, are checked at every use.
type seen[T any] struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]sighting[T]
	order [][sha256.Size]byte // of known, the oldest first
	sum   int                 // of weights
}

type sighting[T any] struct {
	said   T
	at     time.Time // when it was verified
	until  time.Time // when its signer's trust ends; zero for no end
	weight int       // bytes of the text
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
		s.known = map[[sha256.Size]byte]sighting[T]{}
	}
	if old, ok := s.known[sum]; ok {
		s.sum -= old.weight
	} else {
		s.order = append(s.order, sum)
	}
	s.known[sum] = x
	s.sum += x.weight
	for len(s.order) > maxSeen || s.sum > maxSeenSum {
		s.sum -= s.known[s.order[0]].weight
		delete(s.known, s.order[0])
		s.order = s.order[1:]
	}
}

// clear forgets everything, after trust in a signer has ended early.
func (s *seen[T]) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.known)
	s.order, s.sum = nil, 0
}
