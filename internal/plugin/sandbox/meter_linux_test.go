//go:build amd64 || arm64

package sandbox_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

// memoryAttacks take memory that no limit of the kernel stops without a cgroup.
var memoryAttacks = []struct {
	name, do string
	spaces   bool // needs children
}{
	{"memory that cannot be written any more", "sealed", false},
	{"tables of pages", "tables", false},
	{"children that take a part each", "brood", true},
	{"buffers of children's sockets", "flood", true},
}

// A plugin that takes more memory than it may, in a way that the kernel does not
// limit, is killed before it has taken much more, and the log says why.
func TestSandbox_MetersMemory(t *testing.T) {
	for _, weak := range []bool{false, true} {
		for _, a := range memoryAttacks {
			if weak && a.spaces {
				continue
			}
			t.Run(fmt.Sprintf("%s weak=%v", a.name, weak), func(t *testing.T) {
				box := newBox(t)
				if weak {
					box.Weaken()
				}
				one := testManifest("one")
				one.Capabilities.MemoryMB = 128
				h := newHouse(t, box, guest{one, hostile}, guest{testManifest("two"), hostile})
				if got, err := h.do(t, "two", "nothing", ""); err != nil {
					t.Fatalf("%q, %v", got, err)
				}
				if got, err := h.do(t, "one", a.do, "64"); err != nil || !strings.HasPrefix(got, "done: ") {
					t.Fatalf("what it may take: %q, %v", got, err)
				}
				got, err := h.do(t, "one", a.do, "240,hold")
				if !fault.Is(err, fault.Unavailable) {
					t.Fatalf("%q, %v", got, err)
				}
				if !strings.Contains(h.log.String(), "plugin takes more memory than it may and is killed") {
					t.Fatalf("the log does not say why: %v\n%s", err, h.log)
				}
				if got, err := h.do(t, "two", "nothing", ""); err != nil || h.Status()[1].Starts != 1 {
					t.Fatalf("the other plugin: %q, %v", got, err)
				}
			})
		}
	}
}

// Memory that processes share since a fork counts once.
func TestSandbox_MetersSharedMemoryOnce(t *testing.T) {
	one := testManifest("one")
	one.Capabilities.MemoryMB = 128
	h := newHouse(t, newBox(t), guest{one, hostile})
	if got, err := h.do(t, "one", "herd", "32"); err != nil || !strings.HasPrefix(got, "done: ") {
		t.Fatalf("%q, %v\n%s", got, err, h.log)
	}
}

// The same attacks work where nobody measures.
func TestSandbox_OffMetersNothing(t *testing.T) {
	one := testManifest("one")
	one.Capabilities.MemoryMB = 128
	h := newHouse(t, nil, guest{one, hostile})
	for _, a := range memoryAttacks {
		if got, err := h.do(t, "one", a.do, "240"); err != nil || !strings.HasPrefix(got, "done: ") {
			t.Errorf("%s: %q, %v", a.name, got, err)
		}
	}
	if s := h.Status()[0]; s.Starts != 1 || s.State != plugin.Ready {
		t.Fatalf("%+v", s)
	}
}

// What is held is counted: of this process, and not of one that has ended.
func TestMeter_Counts(t *testing.T) {
	before, _ := sandbox.HeldBy(os.Getpid())
	b := make([]byte, 64<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	after, exact := sandbox.HeldBy(os.Getpid())
	if before <= 0 || after < before+48<<20 || exact < before+48<<20 {
		t.Fatalf("%d MB, then %d, exactly %d, with %d more", before>>20, after>>20, exact>>20, len(b)>>20)
	}
	if rough, exact := sandbox.HeldBy(1 << 30); rough != 0 || exact != 0 {
		t.Fatalf("nobody holds %d or %d bytes", rough, exact)
	}
}
