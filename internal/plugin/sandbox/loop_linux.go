//go:build linux && (amd64 || arm64)

package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A launcher is the small program that puts a plugin into its box: it makes the
// system calls of a list, one after the other, and the last one executes the
// plugin. It has no other code: runner (in assembly, some thirty instructions)
// takes a step from the list, makes the call, and goes on to the next, or
// reports the step and the error on descriptor 3 and exits. A step may name
// another one to go on at when its result is zero: that is how a process learns
// that it is the clone, and that nobody is at the other end any more. The list and
// everything that it points to are made by the host and sealed with the code, so
// that nothing of it can be influenced from outside; docs/decisions/0014 says
// why there is no compiled shim.

// runner is the code of launchers. It must not be called.
func runner() //nolint:unused // runnerText gives its address

// runnerText is where the code of runner begins.
func runnerText() unsafe.Pointer

// The image of a launcher: an ELF file with three segments. The addresses are
// multiples of 64 KiB, the largest page of the architectures.
const (
	codeBase  = 0x400000
	stepBase  = 0x600000 // runner knows it
	dataBase  = 0x700000
	headers   = 64 + 3*56 // ELF header and program headers
	alignment = 0x10000
	stepSize  = 8 * 8
	maxSteps  = (dataBase - stepBase) / stepSize
	maxData   = 1 << 20
)

// step is one system call.
type step struct {
	nr   uintptr
	args [6]uint64
	zero int    // the step at which it goes on if the result is zero; 0: at the next one
	what string // for people, when it fails
}

// list is what a launcher does, in order.
type list struct {
	steps []step
	data  []byte
}

// call adds a system call.
func (l *list) call(what string, nr uintptr, args ...uint64) {
	s := step{nr: nr, what: what}
	copy(s.args[:], args)
	l.steps = append(l.steps, s)
}

// next is the number of the step that is added next.
func (l *list) next() int { return len(l.steps) }

// ifZero lets a step go on at another one if its result is zero.
func (l *list) ifZero(from, to int) { l.steps[from].zero = to }

// put keeps bytes and returns the address that they will have.
func (l *list) put(b []byte) uint64 {
	for len(l.data)%8 != 0 {
		l.data = append(l.data, 0)
	}
	at := dataBase + uint64(len(l.data))
	l.data = append(l.data, b...)
	return at
}

// text keeps a string for C.
func (l *list) text(s string) uint64 { return l.put(append([]byte(s), 0)) }

// texts keeps a list of strings for C.
func (l *list) texts(list []string) uint64 {
	var at []uint64
	for _, s := range list {
		at = append(at, l.text(s))
	}
	return l.words(append(at, 0)...)
}

// words keeps 64-bit numbers.
func (l *list) words(w ...uint64) uint64 {
	var b []byte
	for _, v := range w {
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	return l.put(b)
}

// String shows the list, for people and for tests.
func (l *list) String() string {
	var b bytes.Buffer
	for _, s := range l.steps {
		fmt.Fprintf(&b, "%s (%d %x)\n", s.what, s.nr, s.args)
	}
	return b.String()
}

// endOfCode stands behind runner's last instruction.
var endOfCode = map[uint16][]byte{
	elfAMD64: bytes.Repeat([]byte{0xF4}, 8),
	elfARM64: bytes.Repeat([]byte{0x00, 0x00, 0x40, 0xD4}, 2),
}

// codeOf copies runner.
func codeOf() ([]byte, error) {
	const most = 512
	return cut(unsafe.Slice((*byte)(runnerText()), most), machine) //nolint:gosec // G103: our own code, which is mapped for as long as we run
}

// cut ends code behind its mark.
func cut(text []byte, machine uint16) ([]byte, error) {
	end := endOfCode[machine]
	n := bytes.Index(text, end)
	if n < 0 {
		return nil, fmt.Errorf("the code of launchers has no end")
	}
	return bytes.Clone(text[:n+len(end)]), nil
}

// image writes the launcher into a sealed memory file, open for reading.
func (l *list) image() (*os.File, error) {
	if len(l.steps) == 0 || len(l.steps) > maxSteps || len(l.data) > maxData {
		return nil, fmt.Errorf("%d steps with %d bytes do not fit into a launcher", len(l.steps), len(l.data))
	}
	code, err := codeOf()
	if err != nil {
		return nil, err
	}
	return seal("launcher", l.segments(code, machine))
}

// segments are the parts of the image, the first with the header.
func (l *list) segments(code []byte, machine uint16) []segment {
	var steps []byte
	for n, s := range l.steps {
		steps = binary.NativeEndian.AppendUint64(steps, uint64(s.nr))
		for _, a := range s.args {
			steps = binary.NativeEndian.AppendUint64(steps, a)
		}
		on := 0
		if s.zero != 0 {
			on = (s.zero - n - 1) * stepSize
		}
		steps = binary.NativeEndian.AppendUint64(steps, uint64(on)) // two's complement, as the code adds it
	}
	parts := []segment{
		{offset: 0, address: codeBase, bytes: append(make([]byte, headers), code...), flags: 5}, // read, execute
		{offset: alignment, address: stepBase, bytes: steps, flags: 6},                          // read, write
		{offset: alignment + roundUp(len(steps)), address: dataBase, bytes: append(l.data, 0), flags: 6},
	}
	copy(parts[0].bytes, header(parts, machine))
	return parts
}

func roundUp(n int) uint64 { return (uint64(n) + alignment - 1) / alignment * alignment } //nolint:gosec // small

// segment is a part of the image.
type segment struct {
	offset, address uint64
	bytes           []byte
	flags           uint32
}

const (
	elfAMD64 = 62
	elfARM64 = 183
)

// header is the ELF header with the program headers: System V ABI, chapters 4
// and 5.
func header(segments []segment, machine uint16) []byte {
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = le.AppendUint16(b, 2) // executable at fixed addresses
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, codeBase+headers) // entry
	b = le.AppendUint64(b, 64)               // program headers
	b = le.AppendUint64(b, 0)                // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, uint16(len(segments)), 64, 0, 0} { //nolint:gosec // three segments
		b = le.AppendUint16(b, v)
	}
	for _, s := range segments {
		b = le.AppendUint32(b, 1) // to be loaded
		b = le.AppendUint32(b, s.flags)
		size := uint64(len(s.bytes))
		for _, v := range []uint64{s.offset, s.address, s.address, size, size, alignment} {
			b = le.AppendUint64(b, v)
		}
	}
	return b
}

// seal writes the segments into a memory file that nobody can change any more.
func seal(name string, segments []segment) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { //nolint:errorlint // kernels before 6.3 do not know the flag and allow exec
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	mem := os.NewFile(uintptr(fd), name)
	defer func() { _ = mem.Close() }()
	for _, s := range segments {
		if _, err := mem.WriteAt(s.bytes, int64(s.offset)); err != nil { //nolint:gosec // small
			return nil, fmt.Errorf("write memory file: %w", err)
		}
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal memory file: %w", err)
	}
	// A descriptor that was never opened for writing: exec finds no text busy.
	ro, err := os.Open(procFD(mem))
	if err != nil {
		return nil, fmt.Errorf("open memory file: %w", err)
	}
	defer func() { _ = ro.Close() }()
	// It is executed by its number, in a child whose lowest descriptors were put in
	// the place of what had those numbers before.
	fd, err = unix.FcntlInt(ro.Fd(), unix.F_DUPFD_CLOEXEC, fdNext)
	if err != nil {
		return nil, fmt.Errorf("open memory file: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// procFD names an open file for a child between fork and exec.
func procFD(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
