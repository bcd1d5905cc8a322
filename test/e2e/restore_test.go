package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// exits demands that a command ended with a code and said something.
func exits(t *testing.T, what string, err error, code int, said ...string) {
	t.Helper()
	exit := new(ExitError)
	if !errors.As(err, &exit) || exit.Code != code {
		t.Errorf("%s: got %v, want exit code %d", what, err, code)
		return
	}
	for _, text := range said {
		if !strings.Contains(exit.Stderr+exit.Stdout, text) {
			t.Errorf("%s does not say %q: %s", what, text, exit.Stderr)
		}
	}
}

// TestRestore_MustBeDeclared puts a backup in the place of the database. The
// server must not pretend that nothing had happened.
func TestRestore_MustBeDeclared(t *testing.T) {
	quick(t)
	w := equipped(t, Options{})
	ctx := t.Context()
	agent := w.enrol("agent", "deployer", "build-7")
	old := w.vend(agent, 10*time.Minute)
	must(t, w.Stop())
	backup := filepath.Join(t.TempDir(), "backup")
	must(t, os.CopyFS(backup, os.DirFS(w.House.DataDir)))

	w = start(t, w.House)
	agent = w.meet(agent)
	lost := w.vend(agent, 10*time.Minute)
	_, err := w.admin.RevokeGrant(ctx, old.Grant, "after the backup")
	must(t, err)
	must(t, Eventually(5*time.Second, func() error { // until the checkpoint covers it
		list, err := w.Records(ctx, "grant.revoked")
		if err == nil && len(list) == 0 {
			err = errors.New("the revocation has no place yet")
		}
		return err
	}))
	newer := filepath.Join(t.TempDir(), "newer.checkpoint")
	_, err = w.House.Command(ctx, "audit", "checkpoint", "--out", newer, "--url", "https://"+w.Main)
	must(t, err)
	must(t, w.Stop())

	for _, name := range []string{"sallyport.db", "sallyport.db-wal", "sallyport.db-shm"} {
		must(t, os.RemoveAll(filepath.Join(w.House.DataDir, name)))
		if text, err := os.ReadFile(filepath.Join(backup, name)); err == nil {
			must(t, os.WriteFile(filepath.Join(w.House.DataDir, name), text, 0o600))
		}
	}
	for range 2 { // it stays refused
		_, err = w.House.Command(ctx, "serve", "--ready-file", filepath.Join(w.House.Dir, "ready.json"))
		exits(t, "serving a restored backup", err, 7, "does not continue the ledger", "declare the restore")
	}
	_, err = w.House.Command(ctx, "restore", "--reason", "by mistake")
	exits(t, "a restore that is not declared", err, 2)
	_, err = w.House.Command(ctx, "restore", "--declare", "--reason", "disk lost, backup of Tuesday")
	must(t, err)
	_, err = w.House.Command(ctx, "restore", "--declare", "--reason", "once more")
	exits(t, "a second declaration", err, 6)

	w = start(t, w.House)
	if _, err := w.meet(agent).client.Grant(ctx, old.Grant); err != nil {
		t.Errorf("what the backup has is not there: %v", err)
	}
	if g, err := w.admin.Grant(ctx, lost.Grant); err == nil {
		t.Errorf("what the backup does not have is there: %+v", g)
	}
	must(t, Eventually(5*time.Second, func() error {
		list, err := w.Records(ctx, "ledger.restored")
		if err == nil && (len(list) != 1 || len(list[0].Reasons) != 1 || list[0].Reasons[0] != "disk lost, backup of Tuesday" || list[0].Data["seen_size"] == "") {
			err = errors.New("the declaration is not recorded")
		}
		return err
	}))
	export := filepath.Join(t.TempDir(), "export")
	if _, err := w.VerifyTo(ctx, export); err != nil {
		t.Errorf("the ledger of the backup does not verify: %v", err)
	}
	// Who kept a checkpoint sees that the ledger is not the one of before.
	_, err = w.House.Command(ctx, "audit", "verify", export, "--key", w.House.LedgerKey, "--checkpoint", newer)
	exits(t, "verifying against the checkpoint of before", err, 4)
	w.restart()
}

// TestInit_TouchesNothingThatExists runs init twice.
func TestInit_TouchesNothingThatExists(t *testing.T) {
	h := found(t, Options{})
	before, err := os.ReadFile(filepath.Join(h.Dir, "keys", "kek"))
	must(t, err)
	_, err = h.Command(t.Context(), "init", "--name", "operator")
	exits(t, "init on an installation", err, 6)
	_, err = h.Command(t.Context(), "init", "--name", "second")
	exits(t, "init with another name", err, 6)
	after, err := os.ReadFile(filepath.Join(h.Dir, "keys", "kek"))
	must(t, err)
	if string(before) != string(after) {
		t.Error("init has replaced the key file")
	}
	for _, at := range []string{"keys/kek", "contexts/operator/key.pem", "data"} {
		info, err := os.Stat(filepath.Join(h.Dir, at))
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s may be read by others: %v", at, info.Mode())
		}
	}
	must(t, os.Rename(filepath.Join(h.Dir, "keys", "kek"), filepath.Join(h.Dir, "keys", "gone")))
	_, err = h.Command(t.Context(), "serve")
	if exit := new(ExitError); !errors.As(err, &exit) || exit.Code == 0 {
		t.Errorf("a server without its key file: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(h.Dir, "keys", "kek"), []byte(strings.Repeat("A", len(before))), 0o600))
	_, err = h.Command(t.Context(), "serve")
	if exit := new(ExitError); !errors.As(err, &exit) || exit.Code == 0 {
		t.Errorf("a server with another key file: %v", err)
	}
}
