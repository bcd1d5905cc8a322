package crash

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// opKind is what a line of the trace did.
type opKind int

const (
	opWrite opKind = iota
	opTruncate
	opSynced
	opRename
	opUnlink
	opAck
)

// op is one effect, in the order in which the calls returned.
type op struct {
	kind   opKind
	at     int    // when the call returned
	from   int    // when it began: a sync covers what had returned by then
	file   string // base name
	offset int    // or the new length
	data   []byte
	text   string // of an acknowledgement, or the new name
}

// recording is everything that a worker did to its directory.
type recording struct {
	ops   []op
	syncs int // of the database
}

func (rec *recording) acked() []string {
	var list []string
	for _, o := range rec.ops {
		if o.kind == opAck {
			list = append(list, o.text)
		}
	}
	return list
}

// readTrace reads the output of strace -f -xx -y, where a call that another
// thread interrupts stands in two lines.
func readTrace(name, dir string) (*recording, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	rec := &recording{}
	type begun struct {
		text string
		at   int
	}
	open := map[string]begun{}
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 1<<20), 64<<20)
	for at := 0; lines.Scan(); at++ {
		pid, text, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			continue
		}
		text, from := strings.TrimLeft(text, " "), at
		if head, cut := strings.CutSuffix(text, " <unfinished ...>"); cut {
			open[pid] = begun{head, at}
			continue
		}
		if strings.HasPrefix(text, "<... ") {
			_, tail, _ := strings.Cut(text, " resumed>")
			text, from = open[pid].text+tail, open[pid].at
			delete(open, pid)
		}
		if err := rec.line(text, from, at, dir); err != nil {
			return nil, fmt.Errorf("line %d: %w", at+1, err)
		}
	}
	return rec, lines.Err()
}

// line reads one whole call.
func (rec *recording) line(text string, from, at int, dir string) error {
	call, rest, ok := strings.Cut(text, "(")
	sign := strings.LastIndex(rest, " = ")
	if !ok || sign < 0 {
		return nil // an exit or a signal
	}
	end := strings.LastIndex(rest[:sign], ")")
	result := strings.TrimSpace(rest[sign+3:])
	if end < 0 || strings.HasPrefix(result, "-") {
		return nil // failed: no effect that anybody relies upon
	}
	args := strings.Split(rest[:end], ", ")
	if call == "write" && strings.HasPrefix(args[0], "1<") {
		return rec.output(args[1], from, at)
	}
	o, err := effect(call, args, dir)
	if err != nil || o.file == "" || strings.HasSuffix(o.file, "-shm") || o.file == "lock" {
		return err // the shared memory is rebuilt by whoever opens the database
	}
	o.from, o.at = from, at
	if call == "write" { // only the kept checkpoint is written so, from its beginning
		rec.ops = append(rec.ops, op{kind: opTruncate, at: at, from: from, file: o.file})
	}
	if o.kind == opSynced && strings.HasPrefix(o.file, "sallyport.db") {
		rec.syncs++
	}
	rec.ops = append(rec.ops, o)
	return nil
}

// output reads what the worker said.
func (rec *recording) output(arg string, from, at int) error {
	data, err := unhex(arg)
	for _, line := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(line, "ACK ") {
			rec.ops = append(rec.ops, op{kind: opAck, at: at, from: from, text: line})
		}
	}
	return err
}

// effect is what a call did to a file of the directory; without a file for any
// other call.
func effect(call string, args []string, dir string) (o op, err error) {
	switch call {
	case "write", "pwrite64":
		o.kind, o.file = opWrite, inside(args[0], dir)
		o.data, err = unhex(args[1])
		if err == nil && call == "pwrite64" {
			o.offset, err = strconv.Atoi(args[3])
		}
	case "ftruncate":
		o.kind, o.file = opTruncate, inside(args[0], dir)
		o.offset, err = strconv.Atoi(args[1])
	case "fsync", "fdatasync":
		o.kind, o.file = opSynced, inside(args[0], dir)
	case "rename", "renameat", "renameat2":
		if names := paths(args, dir); len(names) == 2 {
			o.kind, o.file, o.text = opRename, names[0], names[1]
		}
	case "unlink", "unlinkat":
		if names := paths(args, dir); len(names) == 1 {
			o.kind, o.file = opUnlink, names[0]
		}
	}
	return o, err
}

// paths are the base names of the arguments that are paths in the directory.
func paths(args []string, dir string) []string {
	var names []string
	for _, a := range args {
		if b, err := unhex(a); err == nil && strings.HasPrefix(a, `"`) && filepath.Dir(string(b)) == dir {
			names = append(names, filepath.Base(string(b)))
		}
	}
	return names
}

// inside is the base name of a descriptor's file if it lies in the directory.
// With -xx the path is in hex as well.
func inside(arg, dir string) string {
	_, path, ok := strings.Cut(arg, "<")
	path = strings.TrimSuffix(path, ">")
	if strings.HasPrefix(path, `\x`) {
		b, err := unhex(`"` + path + `"`)
		if err != nil {
			return ""
		}
		path = string(b)
	}
	if !ok || filepath.Dir(path) != dir {
		return ""
	}
	return filepath.Base(path)
}

// zeros are what the log is widened with: most of a recording.
var zeros = strings.Repeat(`\x00`, 1<<20)

// unhex reads a string of the form "\x00\x01".
func unhex(s string) ([]byte, error) {
	s = strings.Trim(s, `"`)
	if len(s) <= len(zeros) && len(s)%4 == 0 && s == zeros[:len(s)] {
		return make([]byte, len(s)/4), nil
	}
	return hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
}
