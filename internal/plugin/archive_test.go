package plugin

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// small is a package whose every byte can be tried.
func small(t testing.TB, p publisher) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.WriteFile(bin, bytes.Repeat([]byte("binary"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	return p.pack(t, testManifest("small"), bin)
}

func TestBuild_IsDeterministic(t *testing.T) {
	spec := Spec{Manifest: testManifest("same"), Binaries: []Binary{
		{OS: "linux", Arch: "arm64", File: fixtureBinary},
		{OS: "linux", Arch: "amd64", File: fixtureBinary},
	}}
	var first []byte
	for n := range 2 {
		out := filepath.Join(t.TempDir(), "p")
		if _, err := Build(spec, out); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 && !bytes.Equal(first, data) {
			t.Fatal("two builds differ")
		}
		first = data
		spec.Binaries[0], spec.Binaries[1] = spec.Binaries[1], spec.Binaries[0]
		time.Sleep(10 * time.Millisecond)
	}
	names := []string{}
	for r := tar.NewReader(bytes.NewReader(first)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("an ordinary tar reader refuses it: %v", err)
		}
		names = append(names, h.Name)
	}
	if strings.Join(names, " ") != "manifest.json signature.dat same-linux-amd64 same-linux-arm64" {
		t.Fatalf("entries %v", names)
	}
}

func TestVerify_FindsEveryFlippedByte(t *testing.T) {
	p := newPublisher(t)
	good, err := os.ReadFile(small(t, p))
	if err != nil {
		t.Fatal(err)
	}
	store := newStore(t)
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		if judged(p.trust, bad) == nil {
			t.Fatalf("byte %d was flipped and the package was accepted", at)
		}
		if at%101 == 0 {
			if _, err := store.Install(bytes.NewReader(bad), p.trust); err == nil {
				t.Fatalf("byte %d was flipped and the package was installed", at)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "good")
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(file, p.trust); err != nil || r.Reason != ReasonOK || len(r.Verified) != 1 {
		t.Fatalf("the good one: %+v, %v", r, err)
	}
}

// judged is what Verify and Install do with a package, without a disk.
func judged(trust Trust, pkg []byte) error {
	a := &archiveReader{r: bytes.NewReader(pkg)}
	h, err := a.readHead()
	if err != nil {
		return err
	}
	v, err := trust.verify(h.manifestBytes, h.envelopeBytes, forInstall)
	if err != nil {
		return err
	}
	return a.readFiles(v.m, discardFile)
}

func TestVerify_FindsEveryTruncation(t *testing.T) {
	p := newPublisher(t)
	good, err := os.ReadFile(small(t, p))
	if err != nil {
		t.Fatal(err)
	}
	store := newStore(t)
	for n := 0; n < len(good); n += 97 {
		if _, err := store.Install(bytes.NewReader(good[:n]), p.trust); !fault.Is(err, fault.Invalid) {
			t.Fatalf("%d of %d bytes: %v", n, len(good), err)
		}
	}
	if _, err := store.Install(bytes.NewReader(append(bytes.Clone(good), 0)), p.trust); !fault.Is(err, fault.Invalid) {
		t.Fatalf("data behind the end: %v", err)
	}
}

func TestInstall_RefusesHostileArchives(t *testing.T) {
	p := newPublisher(t)
	good, err := os.ReadFile(small(t, p))
	if err != nil {
		t.Fatal(err)
	}
	a := &archiveReader{r: bytes.NewReader(good)}
	h, err := a.readHead()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseManifest(h.manifestBytes)
	if err != nil {
		t.Fatal(err)
	}
	binary := bytes.Repeat([]byte("binary"), 100)
	type entry struct {
		h    tar.Header
		data []byte
	}
	reg := func(name string, data []byte) entry {
		return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}, data}
	}
	man, sig := reg(manifestName, h.manifestBytes), reg(signatureName, h.envelopeBytes)
	man.h.Mode, sig.h.Mode = 0o644, 0o644
	bin := reg(m.Files[0].Path, binary)
	link := func(kind byte) entry {
		return entry{tar.Header{Typeflag: kind, Name: m.Files[0].Path, Linkname: "/etc/passwd", Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}, nil}
	}
	late := bin
	late.h.ModTime = time.Unix(1, 0)
	pax := bin
	pax.h.Format, pax.h.PAXRecords = tar.FormatPAX, map[string]string{"SALLYPORT.x": "y"}
	setuid := bin
	setuid.h.Mode = 0o4755
	for name, entries := range map[string][]entry{
		"symlink":             {man, sig, link(tar.TypeSymlink)},
		"hardlink":            {man, sig, link(tar.TypeLink)},
		"fifo":                {man, sig, link(tar.TypeFifo)},
		"folder":              {man, sig, link(tar.TypeDir)},
		"device":              {man, sig, link(tar.TypeChar)},
		"traversal":           {man, sig, reg("../../"+m.Files[0].Path, binary)},
		"absolute":            {man, sig, reg("/tmp/"+m.Files[0].Path, binary)},
		"duplicate":           {man, sig, bin, bin},
		"duplicate manifest":  {man, man, sig, bin},
		"wrong order":         {sig, man, bin},
		"binary first":        {bin, man, sig},
		"no binary":           {man, sig},
		"extra file":          {man, sig, bin, reg("zzz", binary)},
		"extended header":     {man, sig, pax},
		"another time":        {man, sig, late},
		"set-user-id":         {man, sig, setuid},
		"larger binary":       {man, sig, reg(m.Files[0].Path, append(bytes.Clone(binary), 'x'))},
		"oversized manifest":  {reg(manifestName, make([]byte, manifest.MaxBytes+1)), sig, bin},
		"oversized signature": {man, reg(signatureName, make([]byte, maxEnvelopeBytes+1)), bin},
		"empty":               {},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, e := range entries {
				e.h.Size = int64(len(e.data))
				if err := w.WriteHeader(&e.h); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(e.data); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			store := newStore(t)
			_, err := store.Install(&b, p.trust)
			if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Denied) {
				t.Fatalf("got %v", err)
			}
			left, err := filepath.Glob(filepath.Join(store.dir, "*", "*"))
			if err != nil || len(left) != 0 {
				t.Fatalf("left behind: %v", left)
			}
		})
	}
}

// endless never ends; a reader without limits would hang on it.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestInstall_RefusesEndlessData(t *testing.T) {
	if _, err := newStore(t).Install(endless{}, newPublisher(t).trust); !fault.Is(err, fault.Invalid) {
		t.Fatalf("got %v", err)
	}
	// A header that promises an enormous manifest, and data without end.
	h, err := header(manifestName, plainMode, 1<<32)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newStore(t).Install(io.MultiReader(bytes.NewReader(h), endless{}), newPublisher(t).trust); !fault.Is(err, fault.Invalid) {
		t.Fatalf("got %v", err)
	}
}

func TestSign_CollectsSeveralSigners(t *testing.T) {
	a, b := newPublisher(t), newPublisher(t)
	file := small(t, a)
	both := Trust{Keys: append(append([]Key{}, a.trust.Keys...), b.trust.Keys...), Thresholds: map[string]int{"tester": 2}}
	if _, err := Verify(file, both); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("one of two signatures sufficed: %v", err)
	}
	if _, err := Sign(file, a.key); err != nil { // again
		t.Fatal(err)
	}
	if _, err := Verify(file, both); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("one signer counted twice: %v", err)
	}
	r, err := Sign(file, b.key)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Signers) != 2 {
		t.Fatalf("signers %v", r.Signers)
	}
	if _, err := Verify(file, both); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(file, Trust{}); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("trust without keys accepts: %v", err)
	}
	seen, err := Inspect(file)
	if err != nil || seen.Manifest.Name != "small" || len(seen.Verified) != 0 {
		t.Fatalf("%+v, %v", seen, err)
	}
}

func TestBuild_RefusesWhatAHostWould(t *testing.T) {
	m := testManifest("fine")
	m.Version = "one"
	out := filepath.Join(t.TempDir(), "p")
	_, err := Build(Spec{Manifest: m, Binaries: []Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: fixtureBinary}}}, out)
	if !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Public(err), "semantic version") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Fatal("a file was left")
	}
}

func FuzzInstall(f *testing.F) {
	p := newPublisher(f)
	good, err := os.ReadFile(small(f, p))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:1024])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		a := &archiveReader{r: bytes.NewReader(data)}
		h, err := a.readHead()
		if err != nil {
			return
		}
		v, err := p.trust.verify(h.manifestBytes, h.envelopeBytes, forInstall)
		if err != nil {
			return
		}
		if err := a.readFiles(v.m, discardFile); err == nil && !bytes.Equal(data, good) {
			t.Fatal("another package than the signed one is accepted")
		}
	})
}
