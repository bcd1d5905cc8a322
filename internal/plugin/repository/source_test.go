package repository

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// endless gives bytes without end, and counts those that were taken.
type endless struct{ n *int64 }

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	*e.n += int64(len(p))
	return len(p), nil
}
func (endless) Close() error { return nil }

type endlessSource struct {
	Source
	name string
	n    *int64
}

func (s endlessSource) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == s.name || strings.Contains(name, s.name) {
		return endless{s.n}, nil
	}
	return s.Source.Open(ctx, name)
}

func TestAttack_EndlessData(t *testing.T) {
	w, _, _ := seenWorld(t)
	w.seen = plugin.Seen{Root: w.seen.Root}
	for name, limit := range map[string]int64{
		"2.root.json": maxRoot, "timestamp.json": maxTimestamp, ".snapshot.json": maxSnapshot, ".targets.json": maxTargets, ".uploads.json": maxTargets,
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			var n int64
			w.refused(From(endlessSource{folder(w.dir.path), name, &n}), plugin.ReasonDigest)
			if n > 2*limit+4096 {
				t.Fatalf("%d bytes were read", n)
			}
		})
	}
	t.Run("package", func(t *testing.T) {
		w.t = t
		r := w.look().Releases[0]
		var n int64
		err := Download(context.Background(), endlessSource{folder(w.dir.path), TargetName(r), &n}, r, io.Discard)
		if plugin.ReasonOf(err) != plugin.ReasonDigest || n > r.Size+64<<10 {
			t.Fatalf("%d bytes, %v", n, err)
		}
	})
}

func TestSource_RefusesOtherPlaces(t *testing.T) {
	w, _, _ := seenWorld(t)
	r := w.look().Releases[0]
	ctx := context.Background()
	t.Run("plain http", func(t *testing.T) {
		for _, place := range []string{"http://plugins.example", "http://10.0.0.1/x", "ftp://x", "file:///etc", "https://u:p@x", "https://x?a=b", "plugins", "", "http://127.0.0.1.example"} {
			if _, err := At(place, http.DefaultClient); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", place, err)
			}
		}
	})
	t.Run("redirect", func(t *testing.T) {
		other := httptest.NewServer(http.FileServer(http.Dir(w.dir.path)))
		defer other.Close()
		server := httptest.NewServer(http.RedirectHandler(other.URL+"/metadata/timestamp.json", http.StatusFound))
		defer server.Close()
		s, err := At(server.URL, server.Client())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := From(s)(ctx, "metadata/timestamp.json", maxTimestamp); !fault.Is(err, fault.Denied) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("http on loopback", func(t *testing.T) {
		server := httptest.NewServer(http.FileServer(http.Dir(w.dir.path)))
		defer server.Close()
		s, err := At(server.URL, server.Client())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Walk(ctx, w.seen, From(s), w.at); err != nil {
			t.Fatal(err)
		}
		if err := Download(ctx, s, r, io.Discard); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("links in a folder", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(w.dir.path)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"metadata/timestamp.json", "metadata", TargetName(r)} {
			at := filepath.Join(dir, name)
			if err := os.Rename(at, at+".moved"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(at+".moved", at); err != nil {
				t.Fatal(err)
			}
			file := name
			if name == "metadata" {
				file = "metadata/1.root.json"
			}
			if _, err := folder(dir).Open(ctx, file); plugin.ReasonOf(err) != plugin.ReasonUnsafe {
				t.Errorf("%s: %v", name, err)
			}
			if err := os.Remove(at); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(at+".moved", at); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestDownload_RefusesWhatIsNotTheTarget(t *testing.T) {
	w, _, _ := seenWorld(t)
	r := w.look().Releases[0]
	good, err := os.ReadFile(filepath.Join(w.dir.path, TargetName(r)))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, data := range map[string][]byte{"shorter": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "another": flipped, "empty": {}} {
		c := Check(bytes.NewReader(data), r)
		if _, err := io.Copy(io.Discard, c); plugin.ReasonOf(err) != plugin.ReasonDigest || c.Err() == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := io.Copy(io.Discard, Check(bytes.NewReader(good), r)); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

func TestRelease_SaysWhatMustNotBeInstalled(t *testing.T) {
	list := []plugin.Release{
		{Name: "a", Version: "1.0.0"},
		{Name: "a", Version: "1.2.0", MinSecureVersion: "1.1.0", Yanked: "broken"},
		{Name: "a", Version: "1.1.0"},
		{Name: "b", Version: "1.0.0"},
	}
	for version, want := range map[string]plugin.Reason{"1.0.0": plugin.ReasonRollback, "1.2.0": plugin.ReasonRevoked, "1.1.0": plugin.ReasonOK} {
		if _, err := Find(list, "a", version); plugin.ReasonOf(err) != want {
			t.Errorf("%s: %v", version, err)
		}
	}
	if r, err := Find(list, "a", ""); err != nil || r.Version != "1.1.0" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := Find(list, "b", ""); err != nil || r.Version != "1.0.0" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRelease_TakesOnlyThePackageThatItDescribes(t *testing.T) {
	w, _, _ := seenWorld(t)
	r := w.look().Releases[0]
	report, err := plugin.Inspect(filepath.Join(w.dir.path, TargetName(r)))
	if err != nil {
		t.Fatal(err)
	}
	entry := plugin.Entry{Digest: report.Digest, Manifest: report.Manifest}
	if err := r.Offers(entry); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(r *plugin.Release){
		"name":      func(r *plugin.Release) { r.Name = "other" },
		"version":   func(r *plugin.Release) { r.Version = "9.9.9" },
		"publisher": func(r *plugin.Release) { r.Publisher = "other" },
		"digest":    func(r *plugin.Release) { r.Digest = "sha256:" + strings.Repeat("0", 64) },
	} {
		other := r
		change(&other)
		if err := other.Offers(entry); plugin.ReasonOf(err) != plugin.ReasonDigest {
			t.Errorf("another %s: %v", name, err)
		}
	}
}
