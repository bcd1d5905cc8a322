package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/app"
)

// started is a server in this process and the home of its first operator.
func started(t *testing.T) (home, url string) {
	t.Helper()
	home = filepath.Join(t.TempDir(), "home")
	if code, _, text := run(t, home, nil, "init", "--name", "alice", "--listen", "127.0.0.1:0", "--operations", "off"); code != 0 {
		t.Fatal(text)
	}
	cfg, err := app.Load(filepath.Join(home, configFile))
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(t.Context(), cfg, app.Options{Version: "test", Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-a.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return home, "https://" + a.Address("main")
}

func TestCertificate_RenewsItselfAfterHalfOfItsLife(t *testing.T) {
	home, url := started(t)
	cert := func() string {
		text, err := os.ReadFile(filepath.Join(home, contextsDir, "alice", "cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := cert()
	if code, _, text := run(t, home, nil, "auth", "whoami", "--url", url); code != 0 || cert() != first {
		t.Fatalf("a fresh certificate was renewed, or does not serve: %s", text)
	}
	later := func() time.Time { return time.Now().Add(4 * 24 * time.Hour) } // of seven
	var all sync.WaitGroup
	for range 4 { // processes that do not know of each other
		all.Go(func() {
			if code, _, text := run(t, home, later, "auth", "whoami", "--url", url); code != 0 || strings.Contains(text, "warning") {
				t.Errorf("exit code %d: %s", code, text)
			}
		})
	}
	all.Wait()
	if cert() == first {
		t.Error("the certificate was not renewed")
	}
	if info, err := os.Stat(filepath.Join(home, contextsDir, "alice", "key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if code, _, text := run(t, home, nil, "auth", "whoami", "--url", url); code != 0 {
		t.Errorf("the renewed certificate does not serve: %s", text)
	}
}

func TestCertificate_ThatExpiredSaysWhatToDo(t *testing.T) {
	home, url := started(t)
	never := func() time.Time { return time.Now().Add(30 * 24 * time.Hour) }
	code, _, text := run(t, home, never, "auth", "whoami", "--url", url)
	if code != 5 || !strings.Contains(text, "sallyport auth recover") {
		t.Errorf("exit code %d: %s", code, text)
	}
}

func TestRenewal_ThatFailsIsWarnedOfWhileTheCertificateIsGood(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	if code, _, text := run(t, home, nil, "init", "--listen", "127.0.0.1:0", "--operations", "off"); code != 0 {
		t.Fatal(text)
	}
	later := func() time.Time { return time.Now().Add(4 * 24 * time.Hour) }
	code, _, text := run(t, home, later, "auth", "whoami", "--url", "https://127.0.0.1:1")
	if code != 7 || !strings.Contains(text, "was not renewed") {
		t.Errorf("exit code %d: %s", code, text)
	}
}
