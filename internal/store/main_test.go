package store_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/sallyport-project/sallyport/internal/store/storetest"
)

// server is started by the first test that needs it.
var server = sync.OnceValues(func() (*storetest.Server, string) {
	p, reason, err := storetest.NewServer()
	if err != nil {
		reason = err.Error()
	}
	return p, reason
})

var started bool

func postgres(t testing.TB) *storetest.Server {
	t.Helper()
	started = true
	p, reason := server()
	p.Need(t, reason)
	return p
}

func TestMain(m *testing.M) {
	code := m.Run()
	if started {
		if p, _ := server(); p != nil {
			if err := p.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
