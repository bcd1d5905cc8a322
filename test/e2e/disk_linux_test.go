package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mounted runs mount, and unmounts when the test ends.
func mounted(t *testing.T, at string, args ...string) {
	t.Helper()
	need(t, os.Getuid() == 0, "root, to mount a small disk")
	must(t, os.MkdirAll(at, 0o700))
	out, err := exec.CommandContext(t.Context(), "mount", append(args, at)...).CombinedOutput()
	need(t, err == nil, "the right to mount: "+string(out))
	t.Cleanup(func() {
		if err := syscall.Unmount(at, 0); err != nil {
			_ = syscall.Unmount(at, syscall.MNT_DETACH)
			t.Errorf("the disk is still in use after the server has ended: %v", err)
		}
	})
}

// full writes until there is no room.
func full(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			must(t, err)
		}
	}
}

// TestFullDisk_StillTakesAway fills the disk of the data directory under load.
// What gives is refused with the reason, what takes away works, and with room
// again everything does.
func TestFullDisk_StillTakesAway(t *testing.T) {
	quick(t)
	disk := filepath.Join(t.TempDir(), "disk")
	mounted(t, disk, "-t", "tmpfs", "-o", "size=64m", "none")
	w := equipped(t, Options{DataDir: filepath.Join(disk, "data")})
	ctx := t.Context()
	agent, reporter := w.enrol("agent", "deployer", "build-7"), w.enrol("agent", "reporter", "scanner")
	session, err := agent.client.OpenSession(ctx, nil)
	must(t, err)
	leaked := w.vend(agent, 10*time.Minute)
	_, err = reporter.client.Whoami(ctx) // opens its session: none can be opened on a full disk
	must(t, err)
	client := w.HTTP(&agent.Certificate)
	var released []string
	for range 20 {
		got, err := w.Vend(client, session.Token.Reveal(), "")
		must(t, err)
		released = append(released, got.Grant)
	}
	filler := filepath.Join(disk, "filler")
	full(t, filler)

	refusal := w.untilRefused(client, session.Token.Reveal(), filler, &released)
	if refusal.Status != http.StatusServiceUnavailable || !strings.Contains(refusal.Body, "disk is full") {
		t.Fatalf("with a full disk the answer is %d: %s", refusal.Status, refusal.Body)
	}
	for _, g := range released[:10] {
		m, err := agent.client.RevokeGrant(ctx, g, "the disk is full")
		if err != nil || m.State != "revoked" {
			t.Fatalf("taking back with a full disk: %+v, %v\n%s", m, err, w.LastLog())
		}
	}
	reaction, err := reporter.client.ReportLeak(ctx, leak(leaked))
	if err != nil || len(reaction.Matches) != 1 || reaction.Matches[0].State != "revoked" {
		t.Errorf("a leak with a full disk: %+v, %v", reaction, err)
	}
	w.saysFull()
	must(t, done(w.admin.RevokeCertificate(ctx, reporter.Serial, "the disk is full")))
	if _, err := reporter.client.Whoami(ctx); err == nil {
		t.Error("a revocation on a full disk does not act")
	}

	must(t, os.Remove(filler))
	must(t, Eventually(15*time.Second, func() error {
		got, err := w.Vend(client, session.Token.Reveal(), "")
		if err == nil && got.Status != http.StatusCreated {
			err = fmt.Errorf("with room again: %d %s", got.Status, got.Body)
		}
		if err == nil {
			released = append(released, got.Grant)
		}
		return err
	}))
	must(t, Eventually(5*time.Second, func() error { return w.ready(http.StatusOK, "ready\n") }))
	if s, err := w.admin.Status(ctx); err != nil || !s.Ready || !s.Writable || len(s.Trouble) != 0 {
		t.Errorf("status with room again: %+v, %v", s, err)
	}
	if n := strings.Count(w.Log(), "the integrator will try again"); n < 1 || n > 3 {
		t.Errorf("the log says %d times that the integrator tries again", n)
	}
	if n := strings.Count(w.Log(), "a lease cannot be asked for"); n > 5 { // once a minute for each of the leases
		t.Errorf("the log says %d times that a lease cannot be asked for", n)
	}
	after := w.restart()
	grants, err := after.Grants(ctx)
	must(t, err)
	for i, g := range released {
		want := "active"
		if i < 10 {
			want = "revoked"
		}
		if grants[g].State != want {
			t.Errorf("grant %d is %q, want %s", i, grants[g].State, want)
		}
	}
	if _, err := after.Verify(ctx); err != nil {
		t.Error(err)
	}
	must(t, after.Stop())
}

// saysFull demands that a server on a full disk says so wherever it is asked, and
// stays where leaks can be reported to it.
func (w *world) saysFull() {
	w.t.Helper()
	must(w.t, w.ready(http.StatusOK, "ready, but the server's disk is full: nothing is given"))
	time.Sleep(4 * time.Second) // leases are lost after two seconds, and asked for twice a second
	s, err := w.admin.Status(w.t.Context())
	if err != nil || s.Ready || s.Writable || !strings.Contains(strings.Join(s.Trouble, " "), "disk is full") {
		w.t.Errorf("status with a full disk: %+v, %v", s, err)
	}
	out, err := w.House.Command(w.t.Context(), "status", "--url", "https://"+w.Main)
	if err != nil || !strings.Contains(out, "disk is full") {
		w.t.Errorf("sallyport status with a full disk: %v\n%s", err, out)
	}
}

// untilRefused asks for credentials, several at a time, until one is refused;
// the log that is there already takes some.
func (w *world) untilRefused(client *http.Client, token, filler string, released *[]string) Answer {
	w.t.Helper()
	var (
		mu      sync.Mutex
		refusal Answer
		work    sync.WaitGroup
	)
	deadline := time.Now().Add(30 * time.Second)
	for range 8 {
		work.Go(func() {
			for time.Now().Before(deadline) {
				got, err := w.Vend(client, token, "")
				mu.Lock()
				switch {
				case err != nil:
					refusal = Answer{Body: err.Error()}
				case got.Status != http.StatusCreated:
					refusal = got
				default:
					*released = append(*released, got.Grant)
				}
				done := refusal.Body != ""
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	work.Wait()
	if f, err := os.OpenFile(filler, os.O_APPEND|os.O_WRONLY, 0); err == nil { // what was given up meanwhile
		_, _ = io.Copy(f, strings.NewReader(strings.Repeat("x", 512)))
		_ = f.Close()
	}
	return refusal
}

// TestReadOnlyDisk_RefusesWithTheReason starts on a disk that cannot be written,
// and lets one become so under a running server, as a kernel does that has met
// an error.
func TestReadOnlyDisk_RefusesWithTheReason(t *testing.T) {
	need(t, os.Getuid() == 0, "root, to mount a disk image")
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 96<<20))
	_, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", "-m", "0", image).CombinedOutput()
	need(t, err == nil, "mkfs.ext4 (apt package e2fsprogs)")
	disk := filepath.Join(t.TempDir(), "disk")
	mounted(t, disk, "-o", "loop", image)
	w := equipped(t, Options{DataDir: filepath.Join(disk, "data")})
	agent := w.enrol("agent", "deployer", "build-7")
	held := w.vend(agent, 10*time.Minute)
	must(t, w.Stop())

	remount := func(option string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "mount", "-o", "remount,"+option, disk).CombinedOutput()
		if err != nil {
			t.Fatalf("remount %s: %s", option, out)
		}
	}
	remount("ro")
	_, err = w.House.Command(t.Context(), "serve")
	exits(t, "serving from a read-only disk", err, 7, "cannot be written")
	remount("rw")

	w = start(t, w.House)
	agent = w.meet(agent)
	if _, err := agent.client.Vend(t.Context(), SSH(time.Minute)); err != nil {
		t.Fatalf("before: %v", err)
	}
	remount("abort") // ext4(5): as if the kernel had found an error
	var seen []string
	for range 5 {
		begin := time.Now()
		got, err := w.try(shown{method: "POST", path: "/v1/credentials/" + held.Grant + "/revoke", body: "{}", certificate: &w.House.Operator})
		seen = append(seen, fmt.Sprintf("%d %v %s after %s", got.status, err, got.body, time.Since(begin).Round(time.Millisecond)))
		if err == nil && got.status < 500 {
			t.Errorf("something was recorded on a disk that takes nothing: %d %s", got.status, got.body)
		}
		time.Sleep(200 * time.Millisecond)
	}
	// Something of the server's own may meet the disk first: then it has ended.
	first := strings.HasPrefix(seen[0], "503 ") && strings.Contains(seen[0], "the store failed while writing")
	if !first && !strings.Contains(seen[0], "connection refused") {
		t.Errorf("the first refusal is not one with a reason: %s", strings.Join(seen, "\n"))
	}
	// Nobody knows any more what is on the disk: the server ends, and says so.
	select {
	case <-w.Ended():
		if w.err == nil {
			t.Error("a server that lost its storage ended with code 0")
		}
	case <-time.After(15 * time.Second):
		t.Errorf("the server goes on without storage: %s", w.LastLog())
	}
	if !strings.Contains(w.Log(), "the store failed and must be started again") {
		t.Errorf("the log does not say why: %s", w.LastLog())
	}
}
