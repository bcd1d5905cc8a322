package crash

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// fresh is after how many kills the store begins anew: long enough for a crash
// during recovery from a crash, short enough to verify it each time.
const fresh = 10

func TestKill_SQLite(t *testing.T) {
	dir, acks := t.TempDir(), []string(nil)
	total := 0
	for round := range *rounds {
		if round%fresh == 0 {
			dir, acks = t.TempDir(), nil
		}
		more := killed(t, dir, "")
		acks, total = append(acks, more...), total+len(more)
		if err := holds(config(dir, ""), acks); err != nil {
			t.Fatalf("round %d, %d acknowledged: %v", round, len(acks), err)
		}
	}
	t.Logf("%d kills, %d acknowledged units", *rounds, total)
	if total < *rounds {
		t.Errorf("only %d units were acknowledged in %d rounds", total, *rounds)
	}
}

func TestKill_PostgreSQL(t *testing.T) {
	postgresStarted = true
	p, reason := server()
	p.Need(t, reason)
	cfg := p.Config(t)
	dsn, acks := string(cfg.DSN.Reveal()), []string(nil)
	n := max(*rounds/10, 3)
	for round := range n {
		acks = append(acks, killed(t, cfg.StateDir, dsn)...)
		if err := holds(config(cfg.StateDir, dsn), acks); err != nil {
			t.Fatalf("round %d, %d acknowledged: %v", round, len(acks), err)
		}
	}
	t.Logf("%d kills, %d acknowledged units", n, len(acks))
}

// killed starts a worker, kills it at a random moment after its first
// acknowledgement, and returns what was acknowledged.
func killed(t *testing.T, dir, dsn string) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerDir+"="+dir, workerDSN+"="+dsn, workerUnits+"=0")
	out, err := cmd.StdoutPipe()
	noError(t, err)
	var errors strings.Builder
	cmd.Stderr = &errors
	noError(t, cmd.Start())
	slow := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer slow.Stop()
	var acks []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if acks == nil {
			time.AfterFunc(time.Duration(rand.Int64N(int64(120*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		}
		if strings.HasPrefix(lines.Text(), "ACK ") {
			acks = append(acks, lines.Text())
		}
	}
	_ = cmd.Wait() // killed
	if len(acks) == 0 {
		t.Fatalf("the worker acknowledged nothing: %s", errors.String())
	}
	if last := acks[len(acks)-1]; len(last) != len("ACK issued ")+26 && len(last) != len("ACK revoked ")+26 {
		acks = acks[:len(acks)-1] // the kill cut the line
	}
	return acks
}
