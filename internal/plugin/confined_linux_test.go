package plugin_test

import (
	"testing"

	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

var _ = plugin.ConfineTests(func(t testing.TB) plugin.Sandbox {
	t.Helper()
	box, err := sandbox.New(sandbox.Config{Mode: sandbox.Preferred})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	return box
})
