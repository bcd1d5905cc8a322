package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of processor times in /proc; the kernel reports in 1/100 s
// to every program on Linux (proc_pid_stat(5), USER_HZ).
const tick = 10 * time.Millisecond

// stat is what is needed of /proc/PID/stat.
type stat struct {
	pid, parent int
	cpu         time.Duration // own, and that of children that have ended
}

// parseStat reads /proc/PID/stat. The name of the program stands in brackets
// and may itself hold spaces and brackets.
func parseStat(text string) (stat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return stat{}, errors.New("the process status has no name")
	}
	const state, parent, utime, cstime = 0, 1, 11, 14 // of the fields after the name
	fields := strings.Fields(text[end+1:])
	if len(fields) <= cstime || len(fields[state]) != 1 {
		return stat{}, errors.New("the process status is too short")
	}
	var s stat
	var err error
	if s.pid, err = strconv.Atoi(strings.TrimSpace(text[:open])); err != nil {
		return stat{}, fmt.Errorf("read process id: %w", err)
	}
	if s.parent, err = strconv.Atoi(fields[parent]); err != nil {
		return stat{}, fmt.Errorf("read parent: %w", err)
	}
	for _, f := range fields[utime : cstime+1] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil || n < 0 {
			return stat{}, fmt.Errorf("read processor time %q", f)
		}
		s.cpu += time.Duration(n) * tick
	}
	return s, nil
}

// processTime is the processor time of a process and all below it so far.
func processTime(pid int) (time.Duration, error) {
	own, below, err := processTimes(pid)
	return own + below, err
}

// processTimes parts a process's own time from that of all below it.
func processTimes(pid int) (own, below time.Duration, err error) {
	all, err := processes()
	if err != nil {
		return 0, 0, err
	}
	if _, ok := all[pid]; !ok {
		return 0, 0, fmt.Errorf("process %d has ended", pid)
	}
	for _, p := range family(all, pid)[1:] {
		below += all[p].cpu
	}
	return all[pid].cpu, below, nil
}

func processes() (map[int]stat, error) {
	names, err := fs.Glob(os.DirFS("/proc"), "[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := make(map[int]stat, len(names))
	for _, name := range names {
		text, err := os.ReadFile("/proc/" + name) //nolint:gosec // of /proc
		if err != nil {
			continue // it has ended
		}
		s, err := parseStat(string(text))
		if err != nil {
			return nil, fmt.Errorf("/proc/%s: %w", name, err)
		}
		all[s.pid] = s
	}
	return all, nil
}

// family lists a process and all that descend from it.
func family(all map[int]stat, root int) []int {
	list := []int{root}
	for i := 0; i < len(list); i++ {
		for pid, s := range all {
			if s.parent == list[i] && pid != list[i] {
				list = append(list, pid)
			}
		}
	}
	return list
}

// ownTime is the processor time of this process so far.
func ownTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// resident is the memory of a process in bytes (VmRSS).
func resident(pid int) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	return parseResident(string(text))
}

func parseResident(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, errors.New("the process status names no memory")
}

// written is how many bytes this process has handed to the kernel for files
// and connections.
func written() (int64, error) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, fmt.Errorf("read bytes written: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), "wchar: ")
	digits, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read bytes written: %w", err)
	}
	return n, nil
}
