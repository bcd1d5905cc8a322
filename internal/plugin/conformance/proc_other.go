//go:build !linux

package conformance

import "time"

// resting says that this system does not tell.
func resting(int) (int, bool) { return 0, false }

// unhurried says that this system does not tell.
func unhurried(int) (time.Duration, bool) { return 0, false }

// stat is a process; this system does not tell which there are.
type stat struct{}

func family(int) []stat   { return nil }
func alive([]stat) []stat { return nil }
