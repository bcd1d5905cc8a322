package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPower_CutsLoseNothing records what a worker writes and syncs, and cuts
// the power at random points of the recording: of what was not synced, writes
// are lost, kept or torn by chance. Whatever was acknowledged before the cut
// must be there.
func TestPower_CutsLoseNothing(t *testing.T) {
	rec := recorded(t, "")
	for round := range *rounds {
		dir, acks := rec.cut(t, uint64(round))
		if err := holds(config(dir, ""), acks); err != nil {
			t.Fatalf("cut %d after %d acknowledged units: %v", round, len(acks), err)
		}
		noError(t, os.RemoveAll(dir)) // before the disk has it: the log is tens of megabytes
	}
}

// TestPower_NoticesWhatIsNotSynced proves that the test above can fail: without
// syncs it must find losses.
func TestPower_NoticesWhatIsNotSynced(t *testing.T) {
	rec := recorded(t, "OFF")
	lost := 0
	n := min(*rounds, 20)
	for round := range n {
		dir, acks := rec.cut(t, uint64(round))
		if len(acks) == 0 {
			continue
		}
		if err := holds(config(dir, ""), acks); err != nil {
			lost++
		}
		noError(t, os.RemoveAll(dir))
	}
	t.Logf("%d of %d cuts lost something with synchronous=OFF", lost, n)
	if lost == 0 {
		t.Errorf("%d cuts without any sync lost nothing: the test does not see losses", n)
	}
}

// recorded runs a worker under strace.
func recorded(t *testing.T, unsafe string) *recording {
	t.Helper()
	tracer, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs strace")
		}
		t.Skip("skipped: needs strace")
	}
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(tracer, "-f", "-qq", "-xx", "-y", "-s", "1048576", "-o", trace,
		"-e", "trace=pwrite64,write,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat",
		"-e", "signal=none", os.Args[0])
	cmd.Env = append(os.Environ(), workerDir+"="+dir, workerUnsafe+"="+unsafe, workerUnits+"=240")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("worker under strace: %v\n%.2000s", err, out)
	}
	rec, err := readTrace(trace, dir)
	noError(t, err)
	if len(rec.acked()) < 240 {
		t.Fatalf("the recording has %d acknowledgements", len(rec.acked()))
	}
	if (rec.syncs < 20) != (unsafe == "OFF") { // creating the file syncs a few times in any case
		t.Fatalf("the recording has %d syncs of the database", rec.syncs)
	}
	return rec
}

// cut makes a directory as it could be found after a power cut at a random
// point, and returns what was acknowledged before it.
func (rec *recording) cut(t *testing.T, seed uint64) (string, []string) {
	t.Helper()
	chance := rand.New(rand.NewPCG(seed, 1))
	point := chance.IntN(len(rec.ops) + 1)
	if seed == 0 {
		point = len(rec.ops)
	}
	files := map[string]*image{}
	file := func(name string) *image {
		if files[name] == nil {
			files[name] = &image{}
		}
		return files[name]
	}
	var acks []string
	for _, op := range rec.ops[:point] {
		switch op.kind {
		case opAck:
			acks = append(acks, op.text)
		case opWrite, opTruncate:
			file(op.file).waiting = append(file(op.file).waiting, op)
		case opSynced:
			file(op.file).settle(op.from)
		case opRename: // of a file that was synced; the name may or may not have arrived
			if chance.IntN(2) == 0 {
				from := file(op.file)
				*file(op.text) = image{slices.Clone(from.data), slices.Clone(from.waiting)}
			}
		case opUnlink:
			delete(files, op.file)
		}
	}
	dir := t.TempDir()
	for name, im := range files {
		noError(t, os.WriteFile(filepath.Join(dir, name), im.afterCut(chance), 0o600))
	}
	return dir, acks
}

// image is a file during a replay: what is durable and what waits for a sync.
type image struct {
	data    []byte
	waiting []op
}

// settle makes durable what was written before a sync began.
func (im *image) settle(before int) {
	rest := im.waiting[:0:0]
	for _, o := range im.waiting {
		if o.at < before {
			im.apply(o, len(o.data))
		} else {
			rest = append(rest, o)
		}
	}
	im.waiting = rest
}

// apply does a write, or its first n bytes, or a truncation.
func (im *image) apply(o op, n int) {
	end := o.offset + n
	if o.kind == opTruncate {
		end = o.offset
		if end < len(im.data) {
			im.data = im.data[:end]
			return
		}
	}
	if end > len(im.data) {
		old := len(im.data)
		im.data = slices.Grow(im.data, end-old)[:end]
		clear(im.data[old:])
	}
	if o.kind == opWrite {
		copy(im.data[o.offset:], o.data[:n])
	}
}

// sector is what a disk writes as a whole.
const sector = 512

// afterCut is the durable content with an arbitrary part of what waited: any
// subset of the writes, some of them torn at a sector.
func (im *image) afterCut(chance *rand.Rand) []byte {
	mood := chance.IntN(4) // nothing, everything, or a mixture
	for _, o := range im.waiting {
		n := len(o.data)
		switch {
		case mood == 0:
			continue
		case mood >= 2 && chance.IntN(2) == 0:
			continue
		case mood >= 2 && o.kind == opWrite && chance.IntN(4) == 0:
			n = chance.IntN(n/sector+1) * sector
		}
		im.apply(o, n)
	}
	return im.data
}

// TestImage_DropsWhatWasNotSynced checks the layer itself.
func TestImage_DropsWhatWasNotSynced(t *testing.T) {
	rec := &recording{ops: []op{
		{kind: opWrite, at: 0, file: "f", data: []byte("durable")},
		{kind: opSynced, at: 2, from: 1, file: "f"},
		{kind: opWrite, at: 3, file: "f", offset: 7, data: []byte("-lost")},
		{kind: opAck, at: 4, text: "ACK"},
	}}
	seen := map[string]bool{}
	for seed := range uint64(60) {
		dir, _ := rec.cut(t, seed)
		data, err := os.ReadFile(filepath.Join(dir, "f"))
		if err == nil {
			seen[string(data)] = true
		}
	}
	if !seen["durable"] || !seen["durable-lost"] {
		t.Errorf("outcomes: %s", strings.Join(strings.Fields(fmt.Sprint(seen)), " "))
	}
}
