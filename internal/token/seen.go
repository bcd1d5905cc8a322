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

// seen remembers tokens whose signature was verified, because a guest presents
// one token many times and verifying costs more than all else. It holds only
// what a full verification accepted, under the hash of the whole text, and goes
// away with its Trust when keys or anchors change. Times are checked at every
// use.
type seen struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]sighting
	order [maxSeen][sha256.Size]byte // the oldest is overwritten
	next  int
}

type sighting struct {
	attested Attested
	at       time.Time // when it was verified
	until    time.Time // when its signer's trust ends; zero for no end
}

// recall gives a token back if its signer is still trusted. A clock that went
// back gives nothing.
func (s *seen) recall(sum [sha256.Size]byte, now time.Time) (Attested, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.known[sum]
	if !ok || now.Before(x.at) || !x.until.IsZero() && !now.Before(x.until) {
		return Attested{}, false
	}
	return x.attested, true
}

func (s *seen) keep(sum [sha256.Size]byte, x sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[[sha256.Size]byte]sighting, maxSeen)
	}
	if _, ok := s.known[sum]; !ok {
		delete(s.known, s.order[s.next])
		s.order[s.next] = sum
		s.next = (s.next + 1) % maxSeen
	}
	s.known[sum] = x
}
