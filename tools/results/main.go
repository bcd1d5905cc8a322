// Command results reads what a test run left behind, lists the skips, and
// closes with one line: N passed, N failed, N skipped.
//
// It exits with 1 when a test failed, when none passed, or, with CI=true, when
// a test was skipped that the file of allowed skips does not name.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	allowed := flag.String("skips", "", "file of skips that CI allows: package, test, reason")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: results [-skips FILE] DIRECTORY")
		os.Exit(2)
	}
	ok, err := report(os.Stdout, flag.Arg(0), *allowed, os.Getenv("CI") == "true")
	if err != nil {
		fmt.Fprintln(os.Stderr, "results:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

// tally is the outcome of a run.
type tally struct {
	passed, failed int
	skipped        []skip
}

type skip struct{ pkg, test, why string }

// report prints the outcome and says whether it is good.
func report(w io.Writer, dir, allowedFile string, strict bool) (bool, error) {
	var t tally
	readers := []struct {
		name string
		read func(*tally, io.Reader) error
	}{
		{"go.json", (*tally).readGo},
		{"python.log", (*tally).readPython},
		{"skipped", (*tally).readSteps},
	}
	for _, r := range readers {
		f, err := os.Open(filepath.Join(dir, r.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		err = errors.Join(r.read(&t, f), f.Close())
		if err != nil {
			return false, fmt.Errorf("read %s: %w", r.name, err)
		}
	}
	allowed, err := readAllowed(allowedFile)
	if err != nil {
		return false, err
	}
	ok := t.failed == 0
	for _, s := range t.skipped {
		why, known := allowed[s.pkg+" "+s.test]
		if !known {
			why = s.why
		}
		fmt.Fprintf(w, "skipped: %s %s: %s\n", s.pkg, s.test, why)
		if strict && !known {
			ok = false
		}
	}
	if !ok && t.failed == 0 {
		fmt.Fprintln(w, "CI allows no skip: install what is needed in .ci/parts")
	}
	if t.passed == 0 {
		fmt.Fprintln(w, "no test passed: this run proves nothing")
		ok = false
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, len(t.skipped))
	return ok, nil
}

// readGo counts the events of go test -json. Parents of subtests count as
// well, as go test itself counts them.
func (t *tally) readGo(r io.Reader) error {
	type event struct{ Action, Package, Test, Output string }
	said := map[string]string{} // the last words of each test
	in := json.NewDecoder(r)
	for {
		var e event
		if err := in.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if e.Test == "" {
			if e.Action == "fail" {
				t.failed++ // a package that does not build, or a race after the tests
			}
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output":
			if text := strings.TrimSpace(e.Output); text != "" && !strings.HasPrefix(text, "---") && !strings.HasPrefix(text, "===") {
				said[key] = text
			}
		case "pass":
			t.passed++
		case "fail":
			t.failed++
		case "skip":
			t.skipped = append(t.skipped, skip{e.Package, e.Test, said[key]})
		}
		if e.Action != "output" {
			delete(said, key)
		}
	}
}

var (
	ran    = regexp.MustCompile(`^Ran (\d+) tests? in `)
	closed = regexp.MustCompile(`^(?:OK|FAILED)(?: \((.*)\))?$`)
	lost   = regexp.MustCompile(`^(.*) \.\.\. skipped '(.*)'$`)
)

// readPython reads what unittest -v prints.
func (t *tally) readPython(r io.Reader) error {
	in := bufio.NewScanner(r)
	total, named := 0, 0 // of the suite that is being read
	for in.Scan() {
		line := in.Text()
		if m := ran.FindStringSubmatch(line); m != nil {
			total, _ = strconv.Atoi(m[1])
		}
		if m := lost.FindStringSubmatch(line); m != nil {
			t.skipped = append(t.skipped, skip{"python", m[1], m[2]})
			named++
		}
		if m := closed.FindStringSubmatch(line); m != nil {
			bad, left := 0, 0
			for part := range strings.SplitSeq(m[1], ", ") {
				name, n, _ := strings.Cut(part, "=")
				count, err := strconv.Atoi(n)
				switch {
				case err != nil:
				case name == "expected failures": // they passed
				case name == "skipped":
					left += count
				default: // failures, errors, and unexpected successes
					bad += count
				}
			}
			for ; named < left; named++ { // a whole class, or a line that other output cut
				t.skipped = append(t.skipped, skip{"python", "-", "see its output"})
			}
			t.passed += max(total-bad-left, 0)
			t.failed += bad
			total, named = 0, 0
		}
	}
	return in.Err()
}

// readSteps reads the steps that a script left out, one a line.
func (t *tally) readSteps(r io.Reader) error {
	in := bufio.NewScanner(r)
	for in.Scan() {
		t.skipped = append(t.skipped, skip{"step", "-", "needs " + in.Text()})
	}
	return in.Err()
}

// readAllowed reads lines of package, test and reason.
func readAllowed(name string) (map[string]string, error) {
	allowed := map[string]string{}
	if name == "" {
		return allowed, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		if len(words) < 3 {
			return nil, fmt.Errorf("%s: %q has no reason", name, line)
		}
		allowed[words[0]+" "+words[1]] = strings.Join(words[2:], " ")
	}
	return allowed, nil
}
