package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// resting is the anonymous memory of a process, in MB, rounded up.
func resting(pid int) (int, bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "RssAnon:")
		if !ok {
			continue
		}
		kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
		return (kb + 1023) / 1024, err == nil
	}
	return 0, false
}

// unhurried is how long a process has existed, without the time in which its first
// thread could have run and others had the processors: what a start takes by
// itself, on a machine that may be busy.
func unhurried(pid int) (time.Duration, bool) {
	var begun uint64
	for _, s := range processes() {
		if s.pid == pid {
			begun, _ = strconv.ParseUint(s.begun, 10, 64) // in hundredths of a second after the machine's start
		}
	}
	var up float64
	var ran, waited time.Duration
	for file, into := range map[string][]any{"uptime": {&up}, strconv.Itoa(pid) + "/schedstat": {&ran, &waited}} {
		text, err := os.ReadFile(filepath.Join("/proc", file)) //nolint:gosec // of the kernel
		if err != nil {
			return 0, false
		}
		if _, err := fmt.Sscan(string(text), into...); err != nil {
			return 0, false
		}
	}
	took := time.Duration(up*float64(time.Second)) - time.Duration(begun)*10*time.Millisecond - waited
	return took, begun > 0 && took > 0
}

// stat is what identifies a process: a number may be given away, its start not.
type stat struct {
	pid, parent int
	begun       string
}

// family lists the processes that descend from one, with it.
func family(pid int) []stat {
	all := processes()
	wanted := map[int]bool{pid: true}
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if wanted[s.parent] && !wanted[s.pid] {
				wanted[s.pid], grown = true, true
			}
		}
	}
	var out []stat
	for _, s := range all {
		if wanted[s.pid] {
			out = append(out, s)
		}
	}
	return out
}

// alive are those of a family that still exist.
func alive(before []stat) []stat {
	var out []stat
	now := map[stat]bool{}
	for _, s := range processes() {
		now[stat{pid: s.pid, begun: s.begun}] = true
	}
	for _, s := range before {
		if now[stat{pid: s.pid, begun: s.begun}] {
			out = append(out, s)
		}
	}
	return out
}

func processes() []stat {
	found, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var out []stat
	for _, file := range found {
		text, err := os.ReadFile(file) //nolint:gosec // of the kernel
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent ...: the name may have anything in it (proc(5)).
		head, tail, ok := strings.Cut(string(text), "(")
		end := strings.LastIndexByte(tail, ')')
		fields := strings.Fields(tail[end+1:])
		if !ok || end < 0 || len(fields) < 20 || fields[0] == "Z" {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(head))
		parent, perr := strconv.Atoi(fields[1])
		if err == nil && perr == nil {
			out = append(out, stat{pid, parent, fields[19]})
		}
	}
	return out
}
