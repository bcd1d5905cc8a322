//go:build linux && (amd64 || arm64)

package sandbox

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// Without a cgroup the kernel limits what a plugin may write to by RLIMIT_DATA, for
// each process, and does not count memory that the process has made unwritable
// again, shared memory, stacks, tables of pages, and what lies in sockets. So the host looks at what all
// processes of the plugin hold, and kills a plugin that holds more than it may:
// late by as long as it sleeps, but whatever way the memory was taken.
//
// It sleeps as long as nobody could reach the limit meanwhile, and not longer than
// longest.
const (
	fillRate    = 2 << 30 // bytes in a second that a process can touch
	longest     = 250 * time.Millisecond
	shortest    = 10 * time.Millisecond
	meterExtra  = 16 << 20 // stacks, tables and what was never writable, above the limit of what is
	mostMetered = 4096     // processes
)

// memoryOf is how much a plugin may write to, in bytes.
func memoryOf(c manifest.Capabilities) int64 {
	if c.MemoryMB > 0 {
		return int64(c.MemoryMB) << 20
	}
	return defaultMemory << 20
}

// meter measures until the box is released.
func (b *box) meter(running *os.Process) {
	limit := memoryOf(b.plan.Capabilities) + meterExtra
	buffer := sendBuffer()
	measure := func(one gauge) int64 {
		sum, all := held(running.Pid, one)
		return sum + buffer*int64(sockets(all, limit/buffer))
	}
	for {
		used := measure(roughly)
		if used > limit {
			used = measure(exactly)
		}
		if used > limit {
			b.sandbox.log.Warn("plugin takes more memory than it may and is killed", slog.String("plugin", b.plan.Plugin),
				slog.Int64("megabytes", used>>20), slog.Int64("limit", limit>>20))
			_ = running.Kill() // with its namespace; without one it has no children
			return
		}
		pause := time.Duration(max(limit-used, 0)) * time.Second / fillRate
		select {
		case <-b.released:
			return
		case <-time.After(min(max(pause, shortest), longest)):
		}
	}
}

// gauge reads the memory of one process, in bytes: what is no file's, resident or
// swapped out, and tables of pages.
type gauge func(dir string) (int64, error)

// roughly counts pages that processes share since a fork for each of them.
func roughly(dir string) (int64, error) {
	return add(dir+"/status", "\nRssAnon:", "\nRssShmem:", "\nVmSwap:", "\nVmPTE:")
}

// exactly divides them, which takes the kernel a walk through all pages. Where it
// may not be asked the rough figure stands: too high rather than too low.
func exactly(dir string) (int64, error) {
	pages, err := add(dir+"/smaps_rollup", "\nPss_Anon:", "\nPss_Shmem:", "\nSwapPss:")
	if err != nil {
		return roughly(dir)
	}
	tables, err := add(dir+"/status", "\nVmPTE:")
	return pages + tables, err
}

// held is the memory of a process and of all that descend from it, and their
// folders. One that has ended holds nothing.
func held(pid int, one gauge) (sum int64, dirs []string) {
	list := []string{strconv.Itoa(pid)}
	for n := 0; n < len(list) && n < mostMetered; n++ {
		dir := "/proc/" + list[n]
		bytes, err := one(dir)
		if err != nil {
			continue
		}
		sum, dirs = sum+bytes, append(dirs, dir)
		tasks, _ := filepath.Glob(dir + "/task/*/children")
		for _, t := range tasks {
			children, _ := os.ReadFile(t) //nolint:gosec // of the kernel
			list = append(list, strings.Fields(string(children))...)
		}
	}
	return sum, dirs
}

// sendBuffer is how much the kernel keeps of what was written to a socket and
// nobody has read. Programs cannot change it; see refusals.
func sendBuffer() int64 {
	text, _ := os.ReadFile("/proc/sys/net/core/wmem_default")
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil || n <= 0 {
		n = 212992
	}
	return n
}

// sockets is how many sockets processes have together beyond those that one may
// have, which are granted; it counts no further than most. Those that processes
// share since a fork count once.
func sockets(dirs []string, most int64) int {
	if len(dirs) < 2 {
		return 0
	}
	seen := map[string]bool{}
	for _, dir := range dirs {
		fds, _ := os.ReadDir(dir + "/fd")
		for _, fd := range fds {
			if to, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:") {
				seen[to] = true
			}
		}
		if int64(len(seen)) > most+openFiles {
			break
		}
	}
	return max(len(seen)-openFiles, 0)
}

// add adds up lines of a file in kilobytes.
func add(file string, names ...string) (int64, error) {
	text, err := os.ReadFile(file) //nolint:gosec // of the kernel
	if err != nil {
		return 0, err //nolint:wrapcheck // never shown
	}
	sum := int64(0)
	for _, name := range names {
		sum += kilobytes(text, name) << 10
	}
	return sum, nil
}

// kilobytes reads one line of a status.
func kilobytes(status []byte, name string) int64 {
	_, rest, _ := bytes.Cut(status, []byte(name))
	line, _, _ := bytes.Cut(rest, []byte(" kB"))
	n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
