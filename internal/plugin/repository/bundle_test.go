package repository

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// bundle makes one of everything that a repository offers.
func (w *world) bundle(t testing.TB) ([]byte, View) {
	t.Helper()
	v, err := Walk(context.Background(), plugin.Seen{Root: w.seen.Root}, w.get, w.at)
	if err != nil {
		t.Fatal(err)
	}
	files, err := History(context.Background(), folder(w.dir.path), v)
	if err != nil {
		t.Fatal(err)
	}
	var packs []Packed
	for _, r := range v.Releases {
		packs = append(packs, Packed{r, func() (io.ReadCloser, error) { return os.Open(filepath.Join(w.dir.path, TargetName(r))) }})
	}
	var b bytes.Buffer
	if err := WriteBundle(&b, files, packs); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), v
}

func TestBundle_HasWhatAServerNeeds(t *testing.T) {
	w, _, _ := seenWorld(t)
	data, v := w.bundle(t)
	b, err := OpenBundle(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Walk(context.Background(), plugin.Seen{Root: w.seen.Root}, w.at)
	if err != nil || len(got.Releases) != len(v.Releases) {
		t.Fatalf("%d releases, %v", len(got.Releases), err)
	}
	for range v.Releases {
		_, c, err := b.Package(got.Releases)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := b.Package(got.Releases); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v", err)
	}
	// A day later it is too old, whoever carried it.
	w.at = w.at.Add(2 * day)
	if _, err := b.Walk(context.Background(), plugin.Seen{Root: w.seen.Root}, w.at); plugin.ReasonOf(err) != plugin.ReasonStale {
		t.Fatalf("got %v", err)
	}
}

func TestBundle_RefusesWhatDoesNotBelongIntoOne(t *testing.T) {
	w, _, _ := seenWorld(t)
	good, v := w.bundle(t)
	archive := func(headers ...*tar.Header) []byte {
		var b bytes.Buffer
		out := tar.NewWriter(&b)
		for _, h := range headers {
			if err := out.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Write(make([]byte, h.Size)); err != nil {
				t.Fatal(err)
			}
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	stamp := entry("metadata/timestamp.json", 4)
	for name, data := range map[string][]byte{
		"nothing":          {},
		"no archive":       []byte("no archive at all, but some text"),
		"a foreign file":   archive(entry("etc/passwd", 4)),
		"a path":           archive(entry("metadata/../x.json", 4)),
		"a file twice":     archive(stamp, stamp),
		"a link":           archive(&tar.Header{Typeflag: tar.TypeSymlink, Name: "metadata/timestamp.json", Linkname: "/etc/passwd", Format: tar.FormatUSTAR}),
		"a folder":         archive(&tar.Header{Typeflag: tar.TypeDir, Name: "metadata/", Format: tar.FormatUSTAR}),
		"another format":   archive(&tar.Header{Typeflag: tar.TypeReg, Name: "metadata/timestamp.json", Format: tar.FormatPAX, PAXRecords: map[string]string{"X.y": "z"}}),
		"too large a file": archive(entry("metadata/1.targets.json", maxTargets+1)),
		"cut":              good[:700],
	} {
		if _, err := OpenBundle(bytes.NewReader(data)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := v.Releases[0]
	for name, c := range map[string]struct {
		data []byte
		kind fault.Kind
	}{
		"a package that is not offered": {archive(stamp, entry("packages/"+string(bytes.Repeat([]byte("a"), 64)), 4)), fault.Denied},
		"data after its end":            {append(bytes.Clone(good), 1), fault.Invalid},
		"another length":                {archive(stamp, entry("packages/"+r.SHA256, 4)), fault.Denied},
		"metadata after packages":       {archive(stamp, entry("packages/"+r.SHA256, r.Size), stamp), fault.Invalid},
	} {
		b, err := OpenBundle(bytes.NewReader(c.data))
		for err == nil {
			_, _, err = b.Package(v.Releases)
		}
		if !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := OpenBundle(bytes.NewReader(archive(stamp, entry("packages/"+r.SHA256, r.Size))))
	if err != nil {
		t.Fatal(err)
	}
	_, content, err := b.Package(v.Releases)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, content); plugin.ReasonOf(err) != plugin.ReasonDigest {
		t.Errorf("another content: %v", err)
	}
}

// FuzzBundle reads bundles of strangers from one end to the other.
func FuzzBundle(f *testing.F) {
	f.Add([]byte("no archive"))
	var b bytes.Buffer
	if err := WriteBundle(&b, []File{{"metadata/timestamp.json", []byte(`{"signed":{"_type":"timestamp"},"signatures":[]}`)}}, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := OpenBundle(bytes.NewReader(data))
		if err != nil {
			if fault.KindOf(err) == fault.Internal {
				t.Fatalf("an internal fault: %v", err)
			}
			return
		}
		for {
			_, c, err := b.Package(nil)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, c)
		}
	})
}

// FuzzMetadata parses files of strangers as what they are called. The library
// must never be given what it would trip over.
func FuzzMetadata(f *testing.F) {
	for _, s := range []string{
		`{"signed":{"_type":"root","spec_version":"1.0.31","version":1,"expires":"2027-01-01T00:00:00Z","consistent_snapshot":true,"keys":{},"roles":{}},"signatures":[]}`,
		`{"signed":{"_type":"timestamp","spec_version":"1.0.31","version":1,"expires":"2027-01-01T00:00:00Z","meta":{"snapshot.json":{"version":1,"length":1,"hashes":{"sha256":"00"}}}},"signatures":[{"keyid":"a","sig":"00"}]}`,
		`{"signed":{"_type":"targets","spec_version":"1.0.31","version":1,"expires":"2027-01-01T00:00:00Z","targets":{"a/1.0.0.spk":{"length":1,"hashes":{"sha256":"00"},"custom":{"name":"a"}}},"delegations":{"keys":{},"roles":[]}},"signatures":[]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = Pin(data)
		_, _ = parseTimestamp(data)
		_, _ = parseSnapshot(data)
		if m, err := parseTargets(data, RoleTargets); err == nil {
			_, _ = releases(m, RoleTargets, nil)
		}
	})
}
