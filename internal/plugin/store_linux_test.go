package plugin

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// placed is a store with one package, and the paths in it.
func placed(t *testing.T, binary string) (p publisher, s *Store, e Entry, dir, bin string) {
	t.Helper()
	p, s = newPublisher(t), newStore(t)
	row := p.install(t, s, p.pack(t, testManifest("x"), binary), 1)
	e, err := s.judge(row.Digest, p.trust)
	if err != nil {
		t.Fatal(err)
	}
	hex, _ := hexDigest(row.Digest)
	dir = filepath.Join(s.root(), hex)
	return p, s, e, dir, filepath.Join(dir, e.Manifest.Files[0].Path)
}

func TestStore_RefusesAnUnsafeEntry(t *testing.T) {
	tiny := tinyProgram(t, 0)
	for name, c := range map[string]struct {
		change func(t *testing.T, dir, bin string)
		reason Reason
	}{
		"flipped byte": {func(t *testing.T, _, bin string) { flip(t, bin) }, ReasonDigest},
		"flipped byte in the manifest": {func(t *testing.T, dir, _ string) {
			flip(t, filepath.Join(dir, manifestName))
		}, ReasonDigest},
		"flipped byte in the envelope": {func(t *testing.T, dir, _ string) {
			flip(t, filepath.Join(dir, signatureName))
		}, ReasonBadSignature},
		"longer file": {func(t *testing.T, _, bin string) {
			rewrite(t, bin, append(tiny, 0))
		}, ReasonDigest},
		"symlink": {func(t *testing.T, _, bin string) {
			must(t, os.Rename(bin, bin+".real"), os.Symlink(bin+".real", bin))
		}, ReasonUnsafe},
		"hardlink": {func(t *testing.T, _, bin string) { must(t, os.Link(bin, bin+".other")) }, ReasonUnsafe},
		"fifo": {func(t *testing.T, _, bin string) {
			must(t, os.Remove(bin), syscall.Mkfifo(bin, 0o500))
		}, ReasonUnsafe},
		"folder in place of the file": {func(t *testing.T, _, bin string) {
			must(t, os.Remove(bin), os.Mkdir(bin, 0o500))
		}, ReasonUnsafe},
		"group-writable file":   {func(t *testing.T, _, bin string) { must(t, os.Chmod(bin, 0o570)) }, ReasonUnsafe},
		"world-writable folder": {func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o707)) }, ReasonUnsafe},
		"folder is a symlink": {func(t *testing.T, dir, _ string) {
			must(t, os.Rename(dir, dir+"-real"), os.Symlink(dir+"-real", dir))
		}, ReasonUnsafe},
		"world-writable store": {func(t *testing.T, dir, _ string) { must(t, os.Chmod(filepath.Dir(dir), 0o777)) }, ReasonUnsafe},
		"world-writable parent": {func(t *testing.T, dir, _ string) {
			must(t, os.Chmod(filepath.Join(dir, "..", "..", ".."), 0o777))
		}, ReasonUnsafe},
		"file of another user": {func(t *testing.T, _, bin string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			must(t, os.Chown(bin, 4242, 4242))
		}, ReasonUnsafe},
		"missing": {func(t *testing.T, dir, _ string) { must(t, os.RemoveAll(dir)) }, ReasonMissing},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "tiny")
			rewrite(t, file, tiny)
			p, s, e, dir, bin := placed(t, file)
			if _, err := s.Verify(e.Digest, p.trust); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.change(t, dir, bin)
			_, err := s.Verify(e.Digest, p.trust)
			if ReasonOf(err) != c.reason {
				t.Fatalf("reason %s, want %s: %v", ReasonOf(err), c.reason, err)
			}
		})
	}
}

func TestStore_InstallRepairsAndRemoves(t *testing.T) {
	p, s, e, _, bin := placed(t, fixtureBinary)
	flip(t, bin)
	if _, err := s.Verify(e.Digest, p.trust); err == nil {
		t.Fatal("a damaged entry verifies")
	}
	p.install(t, s, p.pack(t, testManifest("x"), fixtureBinary), 2)
	if _, err := s.Verify(e.Digest, p.trust); err != nil {
		t.Fatalf("installing again did not repair: %v", err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Reason != ReasonOK {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := s.Remove(e.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(e.Digest); !fault.Is(err, fault.NotFound) {
		t.Fatalf("got %v", err)
	}
	for _, bad := range []string{"", "sha256:../../etc", "sha256:" + strings.Repeat("g", 64), "sha256:" + strings.Repeat("/", 64)} {
		if err := s.Remove(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestOpenStore_RefusesAWritableFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "open")
	must(t, os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777))
	if _, err := OpenStore(dir); ReasonOf(err) != ReasonUnsafe {
		t.Fatalf("got %v", err)
	}
}

func TestImage_CannotBeChanged(t *testing.T) {
	_, s, e, _, _ := placed(t, fixtureBinary)
	img, err := s.image(e)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = img.Close() }()
	if f, err := os.OpenFile(img.path(), os.O_RDWR, 0); err == nil {
		if _, err := f.WriteAt([]byte("x"), 0); err == nil {
			t.Fatal("the sealed image was written")
		}
		if err := f.Truncate(1); err == nil {
			t.Fatal("the sealed image was truncated")
		}
		_ = f.Close()
	}
}

// TestExec_NeverRunsWhatWasNotVerified swaps the executable in the store as fast
// as it can while the host verifies and runs it. The good program exits with 7,
// the evil one with 66.
func TestExec_NeverRunsWhatWasNotVerified(t *testing.T) {
	good, evil := tinyProgram(t, 7), tinyProgram(t, 66)
	file := filepath.Join(t.TempDir(), "tiny")
	rewrite(t, file, good)
	p, s, e, _, bin := placed(t, file)
	side := filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(bin))), "side")
	var swaps atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			content := good
			if n%2 == 0 {
				content = evil
			}
			if n%4 < 2 { // by rename
				_ = os.Remove(side)
				_ = os.WriteFile(side, content, 0o500)
				_ = os.Rename(side, bin)
			} else if f, err := os.OpenFile(bin, os.O_WRONLY, 0); err == nil { // in place
				_, _ = f.WriteAt(content, 0)
				_ = f.Close()
			}
			swaps.Add(1)
		}
	}()
	spawn := newSpawner()
	defer spawn.close()
	ran, refused := 0, 0
	for swaps.Load() < 4000 || ran < 100 && ran+refused < 20000 {
		e, err := s.judge(e.Digest, p.trust)
		if err != nil {
			t.Fatal(err)
		}
		img, err := s.image(e)
		if err != nil {
			if r := ReasonOf(err); r != ReasonDigest && r != ReasonUnsafe && r != ReasonMissing {
				t.Fatalf("refused with %s: %v", r, err)
			}
			refused++
			continue
		}
		cmd := &exec.Cmd{Path: img.path(), Args: []string{"tiny"}, Env: []string{}}
		isolate(cmd)
		if err := spawn.start(cmd); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		_ = img.Close()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Fatalf("an unverified program ran: %v", err)
		}
		ran++
	}
	close(stop)
	<-stopped
	if ran == 0 || refused == 0 {
		t.Fatalf("the race was not run: %d ran, %d refused", ran, refused)
	}
	t.Logf("%d swaps, %d verified runs, %d refusals", swaps.Load(), ran, refused)
}

// tinyProgram is an ELF executable of some 130 bytes that exits with a code.
func tinyProgram(t *testing.T, code byte) []byte {
	t.Helper()
	var machine byte
	var text []byte
	switch runtime.GOARCH {
	case "amd64": // mov edi, code; mov eax, 60; syscall
		machine, text = 62, []byte{0xbf, code, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05}
	case "arm64": // mov x0, code; mov x8, 93; svc 0
		w := 0xd2800000 | uint32(code)<<5
		machine, text = 183, []byte{byte(w), byte(w >> 8), byte(w >> 16), byte(w >> 24), 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0, 0, 0xd4}
	default:
		t.Skip("no tiny program for " + runtime.GOARCH)
	}
	size := byte(120 + len(text))
	elf := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0, 1, 0, 0, 0}
	elf = append(elf, 120, 0, 0x40, 0, 0, 0, 0, 0)                     // entry
	elf = append(elf, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // program and section headers
	elf = append(elf, 0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0)
	elf = append(elf, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // load, read and execute, offset 0
	elf = append(elf, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0)
	elf = append(elf, size, 0, 0, 0, 0, 0, 0, 0, size, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0)
	return append(elf, text...)
}

func flip(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	rewrite(t, file, data)
}

func rewrite(t *testing.T, file string, data []byte) {
	t.Helper()
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, data) {
		return
	}
	must(t, os.RemoveAll(file), os.WriteFile(file, data, 0o500))
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
