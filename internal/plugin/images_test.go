package plugin

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// What is copied is what is hashed, whatever the size and however it comes; an
// error of either side is returned.
func TestCopyHashed(t *testing.T) {
	bad := errors.New("broken")
	for _, size := range []int{0, 1, 256 << 10, 256<<10 + 1, 3<<20 - 7} {
		data := bytes.Repeat([]byte("sallyport"), size/9+1)[:size]
		for name, src := range map[string]io.Reader{
			"whole": bytes.NewReader(data), "halves": iotest.HalfReader(bytes.NewReader(data)), "with its end": iotest.DataErrReader(bytes.NewReader(data)),
		} {
			var to bytes.Buffer
			n, sum, err := copyHashed(&to, src)
			if want := sha256.Sum256(data); err != nil || n != int64(size) || !bytes.Equal(to.Bytes(), data) || !bytes.Equal(sum, want[:]) {
				t.Errorf("%d bytes, %s: %d, %v", size, name, n, err)
			}
		}
		if _, _, err := copyHashed(io.Discard, io.MultiReader(bytes.NewReader(data), iotest.ErrReader(bad))); !errors.Is(err, bad) {
			t.Errorf("%d bytes, then an error: %v", size, err)
		}
		r, w := io.Pipe()
		_ = r.CloseWithError(bad)
		if _, _, err := copyHashed(w, bytes.NewReader(data)); size > 0 && !errors.Is(err, bad) {
			t.Errorf("%d bytes to a broken place: %v", size, err)
		}
	}
}
