package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/id"
	sallyport "github.com/sallyport-project/sallyport/sdk"
	"github.com/sallyport-project/sallyport/test/e2e"
)

// serverRounds is how often the server is killed: ROUNDS of the environment, as
// make crash sets it, or a few.
func serverRounds(t *testing.T) int {
	t.Helper()
	text, ok := os.LookupEnv("ROUNDS")
	switch {
	case !ok && testing.Short():
		return 2
	case !ok:
		return 5
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("ROUNDS is %q, not a number", text)
	}
	return n
}

// TestServerCrash_KeepsWhatItReleased kills the real server at random moments
// under load, starts it again, and holds what clients got and were promised
// against store, ledger and revocation list. Installations wait much, and crash beside
// each other.
func TestServerCrash_KeepsWhatItReleased(t *testing.T) {
	p, err := e2e.Build(t.Context(), t.TempDir())
	noError(t, err)
	rounds := serverRounds(t)
	var all numbers
	var sum sync.Mutex
	t.Run("installation", func(t *testing.T) {
		for from := 0; from < rounds; from += fresh {
			t.Run(strconv.Itoa(from/fresh), func(t *testing.T) {
				t.Parallel()
				n := crashes(t, p, min(fresh, rounds-from))
				sum.Lock()
				defer sum.Unlock()
				all = numbers{all.released + n.released, all.revoked + n.revoked, all.unknown + n.unknown}
			})
		}
	})
	t.Logf("%d kills, %d credentials released, %d revocations acknowledged, %d requests without an answer", rounds, all.released, all.revoked, all.unknown)
	if !t.Failed() && (all.released < rounds || all.revoked == 0) {
		t.Errorf("only %d credentials were released and %d taken back in %d rounds", all.released, all.revoked, rounds)
	}
}

// crashes kills the server of one installation so many times, and gives what its
// clients got until each of the kills.
func crashes(t *testing.T, p e2e.Programs, rounds int) numbers {
	t.Helper()
	story, got := newTale(t, p), numbers{}
	for round := range rounds {
		before := story.count()
		story.loadAndKill()
		after := story.count()
		got = numbers{got.released + after.released - before.released, got.revoked + after.revoked - before.revoked, got.unknown + after.unknown}
		story.start()
		if err := story.holds(t.Context()); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, story.server.LastLog())
		}
	}
	noError(t, story.server.Stop())
	return got
}

// tale is one installation over several crashes, and what its clients know.
type tale struct {
	t       *testing.T
	house   *e2e.House
	server  *e2e.Server
	callers []*caller
}

// caller is one agent that gets credentials and gives some of them back.
type caller struct {
	tale   *tale
	who    sallyport.Enrolment
	token  string
	opened time.Time

	released map[string]proof  // by grant: whole answers
	revoked  map[string]bool   // by grant: acknowledged revocations
	trying   map[string]bool   // by grant: revocations without an answer
	keys     map[string]string // Idempotency-Key -> grant
	unknown  []string          // keys of this round whose request got no answer
	live     []string          // keys of this round that got one
	failed   error
}

// proof is what a client can show of a credential.
type proof struct {
	value string
	at    time.Time
}

const agents = 4

func newTale(t *testing.T, p e2e.Programs) *tale {
	t.Helper()
	s := &tale{t: t}
	var err error
	s.house, err = e2e.Found(t.Context(), p, filepath.Join(t.TempDir(), "house"), e2e.Options{})
	noError(t, err)
	s.start()
	noError(t, s.server.Equip(t.Context()))
	for i := range agents {
		who, err := s.server.Enrol(t.Context(), "agent", "deployer", fmt.Sprintf("agent-%d", i))
		noError(t, err)
		s.callers = append(s.callers, &caller{
			tale: s, who: who, released: map[string]proof{}, revoked: map[string]bool{}, trying: map[string]bool{}, keys: map[string]string{},
		})
	}
	return s
}

func (s *tale) start() {
	s.t.Helper()
	var err error
	s.server, err = s.house.Start(s.t.Context())
	if err != nil {
		s.t.Fatalf("start after a crash: %v", err)
	}
	s.t.Cleanup(s.server.Kill)
}

type numbers struct{ released, revoked, unknown int }

func (s *tale) count() numbers {
	var n numbers
	for _, c := range s.callers {
		n.released, n.revoked, n.unknown = n.released+len(c.released), n.revoked+len(c.revoked), n.unknown+len(c.unknown)
	}
	return n
}

// loadAndKill lets all callers work and kills the server some time after the
// first credential was released.
func (s *tale) loadAndKill() {
	s.t.Helper()
	var work sync.WaitGroup
	first := make(chan struct{})
	var once sync.Once
	for _, c := range s.callers {
		work.Go(func() { c.work(func() { once.Do(func() { close(first) }) }) })
	}
	select {
	case <-first:
	case <-time.After(30 * time.Second):
		s.server.Kill()
		s.t.Fatalf("nothing was released: %v\n%s", s.callers[0].failed, s.server.LastLog())
	}
	time.Sleep(time.Duration(rand.Int64N(int64(400 * time.Millisecond))))
	s.server.Kill()
	work.Wait()
	for _, c := range s.callers {
		if c.failed != nil {
			s.t.Fatalf("a client met something else than a credential or a dead server: %v", c.failed)
		}
	}
}

// session keeps the token of before a crash while it is good: sessions must
// survive as well.
func (c *caller) session(ctx context.Context) error {
	if time.Since(c.opened) < 5*time.Minute {
		return nil
	}
	client, err := c.tale.server.Client(c.who.Certificate)
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := client.OpenSession(ctx, nil)
	if err == nil {
		c.token, c.opened = s.Token.Reveal(), time.Now()
	}
	return err
}

// work gets credentials until the server is dead, and gives each third back.
func (c *caller) work(first func()) {
	c.unknown, c.live = nil, nil
	server, client := c.tale.server, c.tale.server.HTTP(&c.who.Certificate)
	defer client.CloseIdleConnections()
	if c.failed = c.session(c.tale.t.Context()); c.failed != nil {
		if sallyport.Is(c.failed, sallyport.Unavailable) {
			c.failed, c.opened = nil, time.Time{}
		}
		return
	}
	for i := 0; ; i++ {
		key := id.New()
		got, err := server.Vend(client, c.token, key)
		if err != nil {
			c.unknown = append(c.unknown, key)
			return
		}
		if got.Status != http.StatusCreated || got.Replayed {
			c.failed = fmt.Errorf("status %d, replayed %v: %s", got.Status, got.Replayed, got.Body)
			return
		}
		c.released[got.Grant], c.keys[key] = proof{got.Value, time.Now()}, got.Grant
		first()
		if i%3 != 0 {
			c.live = append(c.live, key)
			continue
		}
		if !c.revoke(server, client, got.Grant) {
			return
		}
	}
}

// revoke gives a credential back and reports whether to go on.
func (c *caller) revoke(server *e2e.Server, client *http.Client, grant string) bool {
	c.trying[grant] = true
	got, err := server.Post(client, "/v1/credentials/"+grant+"/revoke", "{}", c.token, "")
	if err != nil {
		return false
	}
	var match struct {
		State  string `json:"state"`
		Repeat bool   `json:"repeat"`
	}
	if err := json.Unmarshal([]byte(got.Body), &match); err != nil || got.Status != http.StatusOK || match.State != "revoked" || match.Repeat {
		c.failed = fmt.Errorf("revoke: status %d: %s", got.Status, got.Body)
		return false
	}
	delete(c.trying, grant)
	c.revoked[grant] = true
	return true
}
