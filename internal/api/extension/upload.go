package extension

import (
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// upload is the body of a request. It is read while the answer may already be on its
// way.
type upload struct {
	from    io.Reader
	control *http.ResponseController

	mu      sync.Mutex
	reading bool
	ended   bool // nothing more comes
	closed  bool
}

// newUpload limits the body by a reader that does not know w, whose headers only the
// answer may touch.
func newUpload(w http.ResponseWriter, body io.ReadCloser) *upload {
	return &upload{from: http.MaxBytesReader(nil, body, MaxBody), control: http.NewResponseController(w)}
}

var errClosed = fault.Invalidf("nobody waits for the body of this request any more")

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return 0, errClosed
	}
	u.reading = true
	u.mu.Unlock()
	n, err := u.from.Read(p)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reading, u.ended = false, err != nil
	return n, err //nolint:wrapcheck // io.EOF
}

// Close implements io.Closer. A Read that waits for the caller ends, and with it the
// connection or stream: only what the caller may still send is lost.
func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	if !u.reading {
		return nil
	}
	return fault.Wrap(u.control.SetReadDeadline(time.Unix(1, 0)), "end reading")
}

// beside prepares an answer to HTTP/1 that begins before the body has ended: the
// server must neither wait for the rest nor take it for the next request. HTTP/2 needs
// no preparation.
func (u *upload) beside(h http.Header) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.ended {
		_ = u.control.EnableFullDuplex() // a writer that cannot has no connection behind it
		h.Set("Connection", "close")
	}
}
