//go:build !race

package evidencetest

// raced says whether this is built with the race detector.
const raced = false
