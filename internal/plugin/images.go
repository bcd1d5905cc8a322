package plugin

import (
	"crypto/sha256"
	"errors"
	"io"
	"sync"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// newImage copies an executable once and hashes it in the same pass. What is not
// the file that was signed is Denied with [ReasonDigest].
func newImage(src io.Reader, f manifest.File) (*image, error) {
	return seal("plugin:"+f.SHA256[:16], true, func(w io.Writer) error { return copyVerified(w, src, f) })
}

// copyVerified copies a file of the store and compares size and digest.
func copyVerified(w io.Writer, src io.Reader, f manifest.File) error {
	n, sum, err := copyHashed(w, io.LimitReader(src, f.Size+1))
	if err != nil {
		return fault.Wrap(err, "copy plugin into memory")
	}
	if n != f.Size || !sameDigest(sum, f.SHA256) {
		return refuse(ReasonDigest, "%s in the plugin store is not the file that was signed; install the package again", f.Path)
	}
	return nil
}

// copyHashed copies src once and hashes what it copies, the one beside the other:
// they take about the same time, and both stand between an operator and a first
// start. What is hashed is still in the processor's cache then.
func copyHashed(to io.Writer, src io.Reader) (n int64, sum []byte, err error) {
	const size, ahead = 256 << 10, 4
	free, full := make(chan []byte, ahead), make(chan []byte, ahead)
	for range ahead {
		free <- make([]byte, size)
	}
	hashed := make(chan []byte)
	go func() {
		h := sha256.New()
		for b := range full {
			_, _ = h.Write(b) // never fails
			free <- b[:size]
		}
		hashed <- h.Sum(nil)
	}()
	for err == nil {
		b := <-free
		read, end := io.ReadFull(src, b)
		if read > 0 {
			_, err = to.Write(b[:read])
			n += int64(read)
			full <- b[:read]
		}
		if err == nil {
			err = end
		}
	}
	close(full)
	sum = <-hashed
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, sum, err
}

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
