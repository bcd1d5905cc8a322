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
	equal := strings.LastIndex(rest, ") = ")
	if equal < 0 {
		equal = strings.LastIndex(rest, ")  = ")
	}
	if equal < 0 { // padded with spaces
		if k := strings.LastIndex(rest, " = "); k > 0 {
			equal = strings.LastIndex(rest[:k], ")")
		}
	}
	if !ok || equal < 0 {
		return nil // an exit or a signal
	}
	result := strings.Fields(rest[strings.LastIndex(rest, "= ")+2:])
	if len(result) == 0 || strings.HasPrefix(result[0], "-") {
		return nil // failed: no effect that we rely upon
	}
	args := strings.Split(rest[:equal], ", ")
	o := op{from: from, at: at}
	switch call {
	case "write":
		data, err := unhex(args[1])
		if err != nil {
			return err
		}
		if strings.HasPrefix(args[0], "1<") {
			for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
				if strings.HasPrefix(line, "ACK ") {
					rec.ops = append(rec.ops, op{kind: opAck, at: at, from: from, text: line})
				}
			}
			return nil
		}
		// Only the kept checkpoint is written so, once and from its beginning.
		o.kind, o.file, o.data = opWrite, inside(args[0], dir), data
	case "pwrite64":
		data, err := unhex(args[1])
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		o.kind, o.file, o.data, o.offset = opWrite, inside(args[0], dir), data, n
	case "ftruncate":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		o.kind, o.file, o.offset = opTruncate, inside(args[0], dir), n
	case "fsync", "fdatasync":
		o.kind, o.file = opSynced, inside(args[0], dir)
		if strings.HasPrefix(o.file, "sallyport.db") {
			rec.syncs++
		}
	case "rename", "renameat", "renameat2":
		var names []string
		for _, a := range args {
			if strings.HasPrefix(a, `"`) {
				b, err := unhex(a)
				if err != nil {
					return err
				}
				names = append(names, string(b))
			}
		}
		if len(names) != 2 || filepath.Dir(names[1]) != dir {
			return nil
		}
		o.kind, o.file, o.text = opRename, filepath.Base(names[0]), filepath.Base(names[1])
	case "unlink", "unlinkat":
		for _, a := range args {
			if b, err := unhex(a); err == nil && strings.HasPrefix(a, `"`) && filepath.Dir(string(b)) == dir {
				o.kind, o.file = opUnlink, filepath.Base(string(b))
			}
		}
	default:
		return nil
	}
	if o.file == "" || strings.HasSuffix(o.file, "-shm") || o.file == "lock" {
		return nil // the shared memory is rebuilt by whoever opens the database
	}
	if o.kind == opWrite && o.offset == 0 && strings.HasSuffix(o.file, ".new") {
		rec.ops = append(rec.ops, op{kind: opTruncate, at: at, from: from, file: o.file})
	}
	rec.ops = append(rec.ops, o)
	return nil
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

// unhex reads a string of the form "\x00\x01".
func unhex(s string) ([]byte, error) {
	s = strings.Trim(s, `"`)
	return hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
}
