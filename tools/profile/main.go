// Command profile merges CPU profiles into the one that the compiler optimizes
// the product by, and leaves out what says where and when they were taken.
//
//	go run -C tools ./profile OUT IN...
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/pprof/profile"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: profile OUT IN...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		os.Exit(1)
	}
}

func run(out string, in []string) error {
	var list []*profile.Profile
	for _, name := range in {
		p, err := read(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, p)
	}
	p, err := profile.Merge(list)
	if err != nil {
		return fmt.Errorf("merge: %w", err)
	}
	p.TimeNanos, p.DurationNanos, p.Comments, p.DocURL = 0, 0, nil, ""
	for _, m := range p.Mapping {
		m.File, m.BuildID = filepath.Base(m.File), ""
	}
	for _, f := range p.Function { // the compiler goes by names and lines
		f.Filename = filepath.Base(f.Filename)
	}
	f, err := os.Create(out) //nolint:gosec // the caller's choice
	if err != nil {
		return err
	}
	return errors.Join(p.Write(f), f.Close())
}

// read parses a profile, which must name functions: the compiler knows no addresses.
func read(name string) (*profile.Profile, error) {
	f, err := os.Open(name) //nolint:gosec // the caller's choice
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	p, err := profile.Parse(f)
	if err != nil {
		return nil, err
	}
	if len(p.Function) == 0 {
		return nil, errors.New("it names no functions")
	}
	return p, nil
}
