package e2e

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
)

// guestAt sends one request of a guest to the main listener of a node.
func guestAt(t *testing.T, w *world, method, path, body, cookie string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+w.Main+"/kbs/v0/"+path, strings.NewReader(body))
	must(t, err)
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	got, err := exchange(w.HTTP(nil), req)
	must(t, err)
	return got
}

// TestKBS_SurvivesAReplica begins handshakes on one of two nodes, kills it, and
// ends them on the other: guests notice nothing, and no challenge counts twice.
func TestKBS_SurvivesAReplica(t *testing.T) {
	databaseStarted = true
	p, reason := database()
	p.Need(t, reason)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, p.Exec(ctx, "postgres", "CREATE DATABASE guests"))
	h := found(t, Options{DSN: p.DSN("guests"), Config: map[string]any{"verifiers": believesSamples()}})
	a := start(t, h)
	twin, err := h.Replica(filepath.Join(t.TempDir(), "twin"), p.DSN("guests"))
	must(t, err)
	b := start(t, twin)
	_, err = a.admin.SetPolicy(ctx, policy.ResourceName, "kbs-resource", policy.ResourceAllowAll())
	must(t, err)
	_, err = a.admin.PutResource(ctx, "default", "key", "disk", []byte("the disk's key"))
	must(t, err)
	key, err := seal.GenerateKey()
	must(t, err)
	const hello = `{"version":"0.4.0","tee":"sample","extra-params":""}`
	begin := func(w *world) (cookie, body string) {
		got := guestAt(t, w, "POST", "auth", hello, "")
		cookie, _, _ = strings.Cut(got.header.Get("Set-Cookie"), ";")
		challenge, err := evidence.ParseChallenge([]byte(got.body))
		must(t, err)
		return cookie, answerTo(t, challenge, key, evidence.V040)
	}
	attested, attestedBody := begin(a)
	if got := guestAt(t, a, "POST", "attest", attestedBody, attested); got.status != 200 {
		t.Fatalf("attest: %d %s", got.status, got.body)
	}
	open, openBody := begin(a)

	// One answer sent to both nodes at once counts once.
	raced, racedBody := begin(a)
	var mu sync.Mutex
	accepted := 0
	var racing sync.WaitGroup
	for _, w := range []*world{a, b} {
		racing.Go(func() {
			got := guestAt(t, w, "POST", "attest", racedBody, raced)
			mu.Lock()
			defer mu.Unlock()
			if got.status == 200 {
				accepted++
			}
		})
	}
	racing.Wait()
	if accepted != 1 {
		t.Errorf("one challenge was answered %d times", accepted)
	}

	a.Kill()
	for what, cookie := range map[string]string{"attested at the node that died": attested, "attested at either": raced} {
		got := guestAt(t, b, "GET", "resource/default/key/disk", "", cookie)
		sealed, err := seal.ParseJWE([]byte(got.body))
		if got.status != 200 || err != nil {
			t.Fatalf("who has %s gets %d %s", what, got.status, got.body)
		}
		if plain, err := seal.Open(key, sealed); err != nil || string(plain.Reveal()) != "the disk's key" {
			t.Errorf("the answer does not open: %v", err)
		}
	}
	for i, want := range []int{200, 401} { // the second time it is used up
		if got := guestAt(t, b, "POST", "attest", openBody, open); got.status != want {
			t.Errorf("answer %d to a challenge of the node that died: %d %s", i+1, got.status, got.body)
		}
	}
	if got := guestAt(t, b, "GET", "resource/default/key/disk", "", open); got.status != 200 {
		t.Errorf("after the handshake that two nodes shared: %d %s", got.status, got.body)
	}
	if got := guestAt(t, b, "POST", "attest", attestedBody, attested); got.status != 401 {
		t.Errorf("an answer that counted at the node that died is answered %d", got.status)
	}
	if _, err := b.Verify(ctx); err != nil {
		t.Error(err)
	}
}
