//go:build !linux

package plugin

import (
	"errors"
	"net"
	"os"
	"os/exec"
)

// privateChannel is not offered here: every plugin uses mutual TLS.
const privateChannel = false

func isolate(*exec.Cmd) {}

type spawner struct{}

func newSpawner() *spawner                   { return &spawner{} }
func (s *spawner) start(cmd *exec.Cmd) error { return cmd.Start() }
func (s *spawner) close()                    {}

// collect reaps the process; what it left behind is not killed here.
func (p *process) collect() {
	err := waitFor(p.running)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waitError, p.alive = err, nil
}

func killGroup(p *os.Process) { _ = p.Kill() }
func askToEnd(p *os.Process)  { _ = p.Signal(os.Interrupt) }

func checkPeer(net.Conn, int, int) error {
	return errors.New("this system does not name the peer of a socket")
}
