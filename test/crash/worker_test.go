package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

var rounds = flag.Int("rounds", wanted(), "how often a process is killed, or the power cut")

// wanted are the ROUNDS of the environment, as make crash sets them, or enough
// for a change.
func wanted() int {
	if n, err := strconv.Atoi(os.Getenv("ROUNDS")); err == nil && n > 0 {
		return n
	}
	return 50
}

// The environment that makes this binary a worker.
const (
	workerDir    = "CRASH_WORKER_DIR"
	workerDSN    = "CRASH_WORKER_DSN"
	workerUnsafe = "CRASH_WORKER_UNSAFE"
	workerUnits  = "CRASH_WORKER_UNITS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerDir); dir != "" {
		if err := work(dir); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if postgresStarted {
		if p, _ := server(); p != nil {
			if err := p.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

var postgresStarted bool

// server is started by the first test that needs it.
var server = sync.OnceValues(func() (*storetest.Server, string) {
	p, reason, err := storetest.NewServer()
	if err != nil {
		reason = err.Error()
	}
	return p, reason
})

func config(dir, dsn string) store.Config {
	if dsn != "" {
		return store.Config{Driver: store.PostgreSQL, DSN: secret.FromString(dsn), StateDir: dir}
	}
	return store.Config{Dir: dir, Reserve: -1}
}

// work commits until it is killed, or until it has done its number of units. It
// says ACK, in one write each, after a commit was acknowledged: the grant that
// was issued, or revoked.
func work(dir string) error {
	ctx := context.Background()
	cfg := config(dir, os.Getenv(workerDSN))
	cfg.Unsafe = os.Getenv(workerUnsafe)
	s, err := store.Open(ctx, cfg)
	if err != nil {
		return err
	}
	s.UseMAC(storetest.MAC{})
	signer, keys, err := storetest.NewSigner()
	if err != nil {
		return err
	}
	if err := s.UseSigner(ctx, signer, keys); err != nil {
		return err
	}
	run, cancel := context.WithCancel(ctx)
	var integrator, tasks sync.WaitGroup
	integrator.Go(func() { _ = s.Integrate(run) })
	units, _ := strconv.Atoi(os.Getenv(workerUnits))
	errs := make(chan error, 8)
	for c := range 4 {
		tasks.Go(func() { errs <- commits(ctx, s, c, units/4, say) })
	}
	tasks.Wait()
	time.Sleep(150 * time.Millisecond) // let the integrator have its turn
	cancel()
	integrator.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return errors.Join(err, s.Close(ctx))
}

// commits is one caller: a subject, then grants for it of which every third is
// revoked again. With units zero it never ends.
func commits(ctx context.Context, s *store.Store, caller, units int, say func(string)) error {
	sub := storetest.Subject(fmt.Sprintf("c%d-%d", caller, os.Getpid()))
	if err := s.Commit(ctx, storetest.Birth(sub)); err != nil {
		return err
	}
	for i := 0; units == 0 || i < units; i++ {
		g := storetest.Grant(sub.ID)
		g.Fingerprints = []string{g.ID}
		if err := s.Commit(ctx, storetest.Issue(g, unit.Check("subjects", sub.ID, 1))); err != nil {
			return err
		}
		say("ACK issued " + g.ID)
		if i%3 != 0 {
			continue
		}
		next, err := g.To(grant.Revoked, "test", time.Now())
		if err != nil {
			return err
		}
		r := storetest.Record("grant.revoked")
		r.Subject, r.Grant = g.Subject, g.ID
		if err := s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(next)}, Record: r, Urgent: true}); err != nil {
			return err
		}
		say("ACK revoked " + g.ID)
	}
	return nil
}

func say(line string) { _, _ = os.Stdout.WriteString(line + "\n") }
