package repository

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

func TestDir_PublishesWhatAClientFinds(t *testing.T) {
	w := newWorld(t)
	w.publish("one", "1.0.0")
	w.publish("one", "1.1.0")
	w.publish("two", "2.0.0-rc.1")
	v := w.look()
	if len(v.Releases) != 3 || v.Releases[0].Version != "1.1.0" || v.Releases[0].Role != RoleTargets {
		t.Fatalf("found %+v", v.Releases)
	}
	r, err := Find(v.Releases, "one", "")
	if err != nil || r.Version != "1.1.0" {
		t.Fatalf("the newest is %+v, %v", r, err)
	}
	if _, err := Find(v.Releases, "two", ""); !fault.Is(err, fault.NotFound) {
		t.Fatalf("a pre-release is not installed unasked: %v", err)
	}
	var b bytes.Buffer
	if err := Download(context.Background(), folder(w.dir.path), r, &b); err != nil || int64(b.Len()) != r.Size {
		t.Fatalf("downloaded %d bytes, %v", b.Len(), err)
	}
	if want := w.at.Add(day); !v.Expires.Equal(want) {
		t.Fatalf("expires %v, want the timestamp's %v", v.Expires, want)
	}
}

func TestDir_NeverChangesAVersion(t *testing.T) {
	w := newWorld(t)
	ctx, file := context.Background(), pack(t, "one", "1.0.0")
	for range 2 { // the same again is no error
		if _, _, err := w.dir.Publish(ctx, file, RoleTargets, all(every...)); err != nil {
			t.Fatal(err)
		}
	}
	before := w.look().Versions[RoleTargets]
	t.Run("another content", func(t *testing.T) {
		if _, _, err := w.dir.Publish(ctx, pack(t, "one", "1.0.0"), RoleTargets, all(every...)); !fault.Is(err, fault.Conflict) {
			t.Fatalf("got %v", err)
		}
	})
	if after := w.look().Versions[RoleTargets]; after != before {
		t.Fatalf("targets went from %d to %d", before, after)
	}
}

func TestDir_WaitsForEnoughSignatures(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	s, _, err := w.dir.Publish(ctx, pack(t, "one", "1.0.0"), RoleTargets, all("targets1", "snapshot", "timestamp"))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Staged) != 1 || s.Staged[0].Needed != 1 || len(s.Staged[0].Missing) != 2 || !strings.HasPrefix(s.Staged[0].Changes[0], "add one 1.0.0") {
		t.Fatalf("staged %+v", s.Staged)
	}
	if n := len(w.look().Releases); n != 0 {
		t.Fatalf("%d releases count before they are signed", n)
	}
	// The same key again is still one signature, a stranger's none.
	if s, err = w.dir.Sign(ctx, all("targets1", "snapshot", "timestamp", "mallory")); err != nil || s.Staged[0].Needed != 1 {
		t.Fatalf("%+v, %v", s.Staged, err)
	}
	// The second holder has no online keys: complete, and not in place.
	if s, err = w.dir.Sign(ctx, all("targets3")); err != nil || len(s.Staged) != 1 || s.Staged[0].Needed != 0 {
		t.Fatalf("%+v, %v", s.Staged, err)
	}
	if s, err = w.dir.Refresh(ctx, all("snapshot", "timestamp"), Lives{}); err != nil || len(s.Staged) != 0 {
		t.Fatalf("%+v, %v", s.Staged, err)
	}
	if n := len(w.look().Releases); n != 1 {
		t.Fatalf("%d releases", n)
	}
}

func TestDir_TakesUploadsWithinTheirNames(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	if _, _, err := w.dir.Publish(ctx, pack(t, "up-one", "1.0.0"), RoleUploads, all(online...)); err != nil {
		t.Fatal(err)
	}
	if r := w.look().Releases; len(r) != 1 || r[0].Role != RoleUploads {
		t.Fatalf("found %+v", r)
	}
	if _, _, err := w.dir.Publish(ctx, pack(t, "one", "1.0.0"), RoleUploads, all(online...)); !fault.Is(err, fault.Denied) {
		t.Fatalf("a name that was not given: %v", err)
	}
	// They go on while a change of the offline targets waits.
	if _, _, err := w.dir.Publish(ctx, pack(t, "two", "1.0.0"), RoleTargets, all("targets1")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.dir.Publish(ctx, pack(t, "up-one", "1.1.0"), RoleUploads, all(online...)); err != nil {
		t.Fatal(err)
	}
	if r := w.look().Releases; len(r) != 2 || r[0].Version != "1.1.0" {
		t.Fatalf("found %+v", r)
	}
	// The offline role has the last word.
	if _, err := w.dir.Yank(ctx, "up-one", "1.1.0", "it leaks", all(every...)); err != nil {
		t.Fatal(err)
	}
	if r, err := Find(w.look().Releases, "up-one", ""); err != nil || r.Version != "1.0.0" {
		t.Fatalf("found %+v, %v", r, err)
	}
	if _, err := Find(w.look().Releases, "up-one", "1.1.0"); plugin.ReasonOf(err) != plugin.ReasonRevoked || !strings.Contains(fault.Public(err), "it leaks") {
		t.Fatalf("got %v", err)
	}
}

// TestDir_IsNeverTooFull fills the role of uploads to the last package that a
// client reads: one more is refused, since it would take all from everybody.
func TestDir_IsNeverTooFull(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	_, r, err := w.dir.Publish(ctx, pack(t, "up-one", "1.0.0"), RoleUploads, all(online...))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.dir.change(ctx, all(online...), func(c *content) (bool, error) {
		m, err := w.dir.draft(c, RoleUploads)
		for i := 1; i < maxReleases && err == nil; i++ {
			r.Version = fmt.Sprintf("1.0.%d", i)
			m.Signed.Targets[targetPath(r.Name, r.Version)], err = targetOf(r)
		}
		return false, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.dir.Publish(ctx, pack(t, "up-two", "1.0.0"), RoleUploads, all(every...)); !fault.Is(err, fault.Conflict) {
		t.Errorf("one more: %v", err)
	}
	if n := len(w.look().Releases); n != maxReleases {
		t.Errorf("%d releases", n)
	}
}

func TestDir_ChangesHoldersAndRecovers(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.publish("one", "1.0.0")
	w.look()
	// A root with the new key alone is nothing; the old holders must agree.
	s, err := w.dir.Rekey(ctx, Rekey{Role: RoleRoot, Add: pub("root4"), Remove: []string{KeyID(pub("root1")[0])}}, all("root4", "snapshot", "timestamp"))
	if err != nil || len(s.Staged) != 1 {
		t.Fatalf("%+v, %v", s.Staged, err)
	}
	if s, err = w.dir.Sign(ctx, all("root2", "root3", "snapshot", "timestamp")); err != nil || len(s.Staged) != 0 {
		t.Fatalf("%+v, %v", s.Staged, err)
	}
	if v := w.look().Versions; v[RoleRoot] != 2 {
		t.Fatalf("versions %v", v)
	}
	for _, r := range []Rekey{
		{Role: RoleTargets, Add: pub("targets4"), Remove: []string{KeyID(pub("targets1")[0])}},
		{Role: RoleTimestamp, Add: pub("timestamp2"), Remove: []string{KeyID(pub("timestamp")[0])}},
		{Role: RoleUploads, Add: pub("uploads2"), Remove: []string{KeyID(pub("uploads")[0])}},
	} {
		if s, err = w.dir.Rekey(ctx, r, all("root2", "root3", "targets2", "targets4", "snapshot", "timestamp", "timestamp2", "uploads2")); err != nil || len(s.Staged) != 0 {
			t.Fatalf("%s: %+v, %v", r.Role, s.Staged, err)
		}
		if n := len(w.look().Releases); n != 1 {
			t.Fatalf("%s: %d releases", r.Role, n)
		}
	}
	if v := w.look().Versions[RoleRoot]; v != 4 {
		t.Fatalf("root %d", v)
	}
}

// TestDir_RaisesAThreshold demands more signatures of the same online holders:
// what they said before bears too few of them, and must not lock clients out.
func TestDir_RaisesAThreshold(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.publish("one", "1.0.0")
	holders := all("root1", "root2", "snapshot", "timestamp")
	for _, role := range []string{RoleSnapshot, RoleTimestamp} {
		if _, err := w.dir.Rekey(ctx, Rekey{Role: role, Add: pub(role + "2")}, holders); err != nil {
			t.Fatal(err)
		}
		w.look() // signed by one of two
		if _, err := w.dir.Rekey(ctx, Rekey{Role: role, Threshold: 2}, all("root1", "root2")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.dir.Refresh(ctx, all("snapshot", "snapshot2", "timestamp", "timestamp2"), Lives{}); err != nil {
			t.Fatal(err)
		}
		if v, err := w.walk(w.get); err != nil || len(v.Releases) != 1 {
			t.Fatalf("%s: clients that looked before: %v", role, err)
		}
		holders = all("root1", "root2", "snapshot", "snapshot2", "timestamp")
	}
}

func TestDir_StagesWhatExpiresSoon(t *testing.T) {
	w := newWorld(t)
	w.at = w.at.Add(60 * day)
	s, err := w.dir.Refresh(context.Background(), all(online...), Lives{Timestamp: 14 * day})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Staged) != 1 || s.Staged[0].Role != RoleTargets || s.Staged[0].Needed != 2 {
		t.Fatalf("staged %+v", s.Staged)
	}
	if v := w.look(); v.Expires.Sub(w.at) != 7*day { // the snapshot's
		t.Fatalf("good for %v", v.Expires.Sub(w.at))
	}
}

func TestDir_LivesThroughACrashAtEveryStep(t *testing.T) {
	ctx, file := context.Background(), pack(t, "one", "1.1.0")
	for n := 1; ; n++ {
		w := newWorld(t)
		w.publish("one", "1.0.0")
		w.look()
		left := n
		w.dir.before = func(string) error {
			if left--; left <= 0 {
				return fault.Internalf("crash")
			}
			return nil
		}
		_, _, err := w.dir.Publish(ctx, file, RoleTargets, all(every...))
		w.dir.before = nil
		if v := w.look(); err != nil && left == 0 && len(v.Releases) > 2 {
			t.Fatalf("step %d: %d releases", n, len(v.Releases))
		}
		// Whoever comes next finds a sound repository and finishes the work.
		if _, _, again := w.dir.Publish(ctx, file, RoleTargets, all(every...)); again != nil {
			t.Fatalf("step %d: %v", n, again)
		}
		s, serr := w.dir.Refresh(ctx, all(every...), Lives{})
		if serr != nil || len(s.Staged) != 0 {
			t.Fatalf("step %d: %+v, %v", n, s.Staged, serr)
		}
		if v := w.look(); len(v.Releases) != 2 {
			t.Fatalf("step %d: %d releases", n, len(v.Releases))
		}
		if err == nil {
			if n < 6 {
				t.Fatalf("only %d steps", n)
			}
			return
		}
	}
}

func TestDir_TwoWritersBothLand(t *testing.T) {
	w := newWorld(t)
	files := []string{pack(t, "up-a", "1.0.0"), pack(t, "up-b", "1.0.0"), pack(t, "up-c", "1.0.0"), pack(t, "up-d", "1.0.0")}
	done := make(chan error)
	for _, f := range files {
		d, err := Open(w.dir.path, w.now) // as another process would
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, _, err := d.Publish(ctx, f, RoleUploads, all(online...))
			done <- err
		}()
	}
	for range files {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.look().Releases); n != len(files) {
		t.Fatalf("%d of %d landed", n, len(files))
	}
}

func TestDir_GetServesNothingElse(t *testing.T) {
	w := newWorld(t)
	r := w.publish("one", "1.0.0")
	f, size, err := w.dir.Get(TargetName(r))
	if err != nil || size != r.Size {
		t.Fatalf("%d, %v", size, err)
	}
	if data, err := io.ReadAll(f); err != nil || int64(len(data)) != r.Size {
		t.Fatal(err)
	}
	_ = f.Close()
	for _, name := range []string{
		"", "lock", "repository.json", "staged/root.json", "metadata/../repository.json", "metadata", "targets/one", "/etc/passwd",
		"metadata/1.root.json/", "targets/one/../../lock", "metadata/0.root.json", "metadata/99.root.json",
	} {
		if _, _, err := w.dir.Get(name); !fault.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
	link := w.dir.path + "/metadata/9.root.json"
	if err := os.Symlink(w.dir.path+"/repository.json", link); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.dir.Get("metadata/9.root.json"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a link was served: %v", err)
	}
}
