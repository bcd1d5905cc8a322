//go:build !unix

package cli

import (
	"os"
	"os/exec"
)

// ownGroup does nothing: where there are no process groups the server does not
// run either.
func ownGroup(*exec.Cmd) {}

// endGroup kills the child; there is no gentler way here.
func endGroup(p *os.Process, _ bool) error { return p.Kill() }
