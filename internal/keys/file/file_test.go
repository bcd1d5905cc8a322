//go:build unix

package file_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/secret"
)

func create(t testing.TB) (string, *file.KEK) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	k, err := file.Create(file.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return path, k
}

func TestKEK_Unwrap(t *testing.T) {
	path, k := create(t)
	ctx := t.Context()
	value := secret.FromString("thirty-two bytes of a root key..")
	blob, err := k.Wrap(ctx, value, []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := file.Load(file.Config{Path: path})
	if err != nil || again.ID() != k.ID() {
		t.Fatalf("loaded %v, %v", again, err)
	}
	if got, err := again.Unwrap(ctx, blob, []byte("aad")); err != nil || !got.Equal(value) {
		t.Fatal(err)
	}
	if _, err := again.Unwrap(ctx, blob, []byte("aae")); !fault.Is(err, fault.Internal) {
		t.Errorf("other associated data: %v", err)
	}
	for bit := range 8 * len(blob) {
		mutant := bytes.Clone(blob)
		mutant[bit/8] ^= 1 << (bit % 8)
		if _, err := k.Unwrap(ctx, mutant, []byte("aad")); err == nil {
			t.Fatalf("bit %d flipped and unwrapped", bit)
		}
	}
	for n := range len(blob) {
		if _, err := k.Unwrap(ctx, blob[:n], []byte("aad")); err == nil {
			t.Fatalf("%d bytes unwrapped", n)
		}
	}
	_, other := create(t)
	if _, err := other.Unwrap(ctx, blob, []byte("aad")); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), k.ID()) {
		t.Errorf("another key file: %v", err)
	}
	if _, err := k.Wrap(ctx, secret.New(make([]byte, 1<<20)), nil); err == nil {
		t.Error("wrapped a megabyte")
	}
}

func TestLoad_readsOldKeys(t *testing.T) {
	oldPath, old := create(t)
	path, _ := create(t)
	blob, err := old.Wrap(t.Context(), secret.FromString("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	both, err := file.Load(file.Config{Path: path, Old: []string{oldPath}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := both.Unwrap(t.Context(), blob, nil); err != nil || string(got.Reveal()) != "x" {
		t.Fatal(err)
	}
	fresh, err := both.Wrap(t.Context(), secret.FromString("y"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Unwrap(t.Context(), fresh, nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the old key still wraps: %v", err)
	}
}

func TestCreate(t *testing.T) {
	path, k := create(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	t.Run("never overwrites", func(t *testing.T) {
		if _, err := file.Create(file.Config{Path: path}); !fault.Is(err, fault.Conflict) {
			t.Fatalf("got %v", err)
		}
		if again, err := file.Load(file.Config{Path: path}); err != nil || again.ID() != k.ID() {
			t.Fatalf("the key changed: %v", err)
		}
	})
	t.Run("leaves nothing without randomness", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "kek")
		if _, err := file.Create(file.Config{Path: path, Rand: dry{}}); err == nil {
			t.Fatal("created")
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatal("a file stays")
		}
	})
	t.Run("asks for the directory", func(t *testing.T) {
		_, err := file.Create(file.Config{Path: filepath.Join(t.TempDir(), "no", "kek")})
		if !fault.Is(err, fault.NotFound) {
			t.Fatalf("got %v", err)
		}
	})
}

type dry struct{}

func (dry) Read([]byte) (int, error) { return 0, errors.New("dry") }

func TestLoad_refuses(t *testing.T) {
	good, _ := create(t)
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	write := func(content string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(content), 0o600) }
	}
	mode := func(m os.FileMode) func(string) error {
		return func(path string) error {
			return errors.Join(os.WriteFile(path, text, 0o600), os.Chmod(path, m))
		}
	}
	for name, c := range map[string]struct {
		make func(path string) error
		kind fault.Kind
		says string
	}{
		"a missing file":       {func(string) error { return nil }, fault.NotFound, "sallyport init"},
		"a file for the group": {mode(0o640), fault.Denied, "chmod 600"},
		"a file for all":       {mode(0o604), fault.Denied, "chmod 600"},
		"a symbolic link":      {func(p string) error { return os.Symlink(good, p) }, fault.Denied, "symbolic link"},
		"a directory":          {func(p string) error { return os.Mkdir(p, 0o700) }, fault.Denied, "not a regular file"},
		"a pipe":               {func(p string) error { return syscall.Mkfifo(p, 0o600) }, fault.Denied, "not a regular file"},
		"an empty file":        {write(""), fault.Invalid, "not a key file"},
		"a foreign file":       {write("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), fault.Invalid, "not a key file"},
		"a large file":         {write(strings.Repeat("x", 4096)), fault.Invalid, "longer than"},
		"a later format":       {write(strings.Replace(string(text), "-kek-1", "-kek-2", 1)), fault.Invalid, "not a key file"},
		"a malformed id":       {write(lines[0] + "\nid: me\n" + lines[2] + "\n"), fault.Invalid, "second line"},
		"a short key":          {write(lines[0] + "\n" + lines[1] + "\n" + lines[2][:20] + "\n"), fault.Invalid, "third line"},
		"a key not in base64":  {write(lines[0] + "\n" + lines[1] + "\nkey: " + strings.Repeat("!", 44) + "\n"), fault.Invalid, "third line"},
		"a fourth line":        {write(string(text) + "more\n"), fault.Invalid, "not a key file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kek")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			_, err := file.Load(file.Config{Path: path})
			if !fault.Is(err, c.kind) || !strings.Contains(fault.Public(err), c.says) {
				t.Fatalf("got %v (%v)", err, fault.KindOf(err))
			}
			if strings.Contains(err.Error(), lines[2][5:]) {
				t.Error("the error shows the key")
			}
		})
	}
	t.Run("a file of another user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("skipped: needs root to give a file away")
		}
		path := filepath.Join(t.TempDir(), "kek")
		if err := errors.Join(os.WriteFile(path, text, 0o600), os.Chown(path, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		_, err := file.Load(file.Config{Path: path})
		if !fault.Is(err, fault.Denied) || !strings.Contains(fault.Public(err), "chown") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("two files with one id and two keys", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "kek")
		changed := lines[0] + "\n" + lines[1] + "\nkey: " + strings.Repeat("A", 43) + "=\n"
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Load(file.Config{Path: good, Old: []string{path}}); !fault.Is(err, fault.Invalid) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("no path, and too many", func(t *testing.T) {
		if _, err := file.Load(file.Config{}); !fault.Is(err, fault.Invalid) {
			t.Fatalf("got %v", err)
		}
		if _, err := file.Load(file.Config{Path: good, Old: make([]string, 17)}); !fault.Is(err, fault.Invalid) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestCreate_refusesTheDataDirectory(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := errors.Join(os.MkdirAll(filepath.Join(data, "sub"), 0o700), os.Symlink(data, filepath.Join(dir, "link")), os.Mkdir(filepath.Join(dir, "data-keys"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for path, allowed := range map[string]bool{
		"data/kek": false, "data/sub/kek": false, "link/kek": false, "link/sub/../kek": false,
		"data/not/yet/kek": false, "kek": true, "data-keys/kek": true,
	} {
		_, err := file.Create(file.Config{Path: filepath.Join(dir, path), DataDir: data})
		if (err == nil) != allowed || (!allowed && !fault.Is(err, fault.Denied)) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	good, _ := create(f)
	text, err := os.ReadFile(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("sallyport-kek-1\nid: \nkey: \n"))
	f.Add([]byte(nil))
	path := filepath.Join(f.TempDir(), "kek")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := file.Load(file.Config{Path: path})
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		// What loads is one of two spellings of one key: with and without the
		// last line break.
		if n := len(content); n != len(text) && n != len(text)-1 {
			t.Fatalf("%d bytes loaded as %s", n, k.ID())
		}
	})
}
