package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// TestListedPlugin_KeepsTheServerFromBeingReady starts a server whose
// configuration demands a plugin that is not there, then is another one, and then
// is the right one. Nobody restarts it.
func TestListedPlugin_KeepsTheServerFromBeingReady(t *testing.T) {
	second, err := opaque()
	must(t, err)
	report, err := plugin.Inspect(second.Package)
	must(t, err)
	folder := t.TempDir()
	w := start(t, found(t, Options{Config: map[string]any{"plugins": map[string]any{"install": []any{
		map[string]any{"name": "opaque", "version": "1.0.0", "digest": report.Digest, "source": folder},
	}}}}))
	ctx := t.Context()
	for _, p := range []Programs{second, w.House.Programs} {
		must(t, done(w.admin.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: p.Publisher, PublicKey: p.PublicKey})))
	}
	must(t, Eventually(20*time.Second, func() error {
		return w.ready(http.StatusServiceUnavailable, "plugins.install: opaque 1.0.0 is not installed", "cannot be read")
	}))
	if status, err := w.admin.Status(ctx); err != nil || status.Ready {
		t.Errorf("the status says ready: %+v, %v", status, err)
	}

	file := filepath.Join(folder, "opaque-1.0.0.spk")
	lay := func(pack string) {
		text, err := os.ReadFile(pack)
		must(t, err)
		must(t, os.WriteFile(file+".new", text, 0o600))
		must(t, os.Rename(file+".new", file))
	}
	lay(w.House.Package) // trusted, and not what is listed
	must(t, Eventually(20*time.Second, func() error {
		return w.ready(http.StatusServiceUnavailable, "opaque 1.0.0 is not installed", "sshcert")
	}))
	if list, err := w.admin.Plugins(ctx); err != nil || len(list.Items) != 0 {
		t.Errorf("something else than what is listed was installed: %+v, %v", list.Items, err)
	}
	lay(second.Package)
	must(t, Eventually(20*time.Second, func() error { return w.ready(http.StatusOK, "ready") }))
	must(t, Eventually(10*time.Second, func() error {
		if s := w.plugin("opaque"); s.State != "ready" || s.Digest != report.Digest {
			return fmt.Errorf("the plugin is %s: %s", s.State, s.Detail)
		}
		return nil
	}))
	must(t, w.Stop())
}

// ready demands an answer of /readyz.
func (w *world) ready(status int, texts ...string) error {
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://"+w.Operations+"/readyz", http.NoBody)
	must(w.t, err)
	got, err := exchange(http.DefaultClient, req)
	if err != nil {
		return err
	}
	for _, text := range texts {
		if got.status != status || !strings.Contains(got.body, text) {
			return fmt.Errorf("/readyz answers %d: %s", got.status, got.body)
		}
	}
	return nil
}
