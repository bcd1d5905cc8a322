package extension

import (
	"slices"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// A plugin that decodes the whole path must find the segments that policy saw.
func TestDecode_RefusesPathsInDisguise(t *testing.T) {
	for _, path := range []string{"items/5%2Fsecret", "items/..%2fadmin", "items/%2e%2e", "items/a%5Cb", "items/%00", "items/%ff", "items/%"} {
		if got, err := decode(path); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %q %v", path, got, err)
		}
	}
	if got, err := decode("items/a%20b%3F/"); err != nil || !slices.Equal(got, []string{"items", "a b?", ""}) {
		t.Errorf("%q %v", got, err)
	}
}
