package plugin

import "sync"

// images keeps one sealed image per package in memory while the package is in
// use, so that a restart copies and hashes nothing: what is sealed cannot have
// changed.
type images struct {
	mu   sync.Mutex
	held map[string]*held
}

type held struct {
	image *image
	users int
}

// use returns the image of an entry and the function that gives it back.
func (s *images) use(e Entry, store *Store) (*image, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[e.Digest]
	if h == nil {
		img, err := store.image(e)
		if err != nil {
			return nil, nil, err
		}
		h = &held{image: img}
		s.held[e.Digest] = h
	}
	h.users++
	var once sync.Once
	return h.image, func() { once.Do(func() { s.free(e.Digest) }) }, nil
}

func (s *images) free(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[digest]
	if h == nil {
		return
	}
	if h.users--; h.users == 0 {
		_ = h.image.Close()
		delete(s.held, digest)
	}
}
