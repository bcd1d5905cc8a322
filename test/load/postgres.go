package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// postmaster finds the first process of the server that a connection string
// with a socket directory names: our own servers keep their data beside it.
func postmaster(dsn string) (int, error) {
	for _, f := range strings.Fields(dsn) {
		dir, ok := strings.CutPrefix(f, "host=")
		if !ok {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid")) //nolint:gosec // ours
		if err != nil {
			return 0, fmt.Errorf("find PostgreSQL's process: %w", err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(first))
		if err != nil {
			return 0, fmt.Errorf("find PostgreSQL's process: %w", err)
		}
		return pid, nil
	}
	return 0, fmt.Errorf("find PostgreSQL's process: the connection string names no socket")
}
