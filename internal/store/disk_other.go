//go:build !linux

package store

import (
	"os"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// The server runs on Linux. Elsewhere the program is a client, and opening a
// data directory is refused.

func lockFile(*os.File) error { return notHere() }

func syncData(*os.File) error { return notHere() }

func writeOut(*os.File, int64, int64) error { return notHere() }

func allocate(*os.File, int64) error { return notHere() }

func noSpace(error) bool { return false }

func freeSpace(string) (int64, error) { return 0, notHere() }

func notHere() error { return fault.Unavailablef("the server runs on Linux only") }
