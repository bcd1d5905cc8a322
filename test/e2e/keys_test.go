package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/policy"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// everyPurpose is what can be rotated, the root of the authority last.
var everyPurpose = []string{"token", "ear", "cookie", "context", "pepper", "row-mac", "ledger", "ca-intermediate", "ssh-ca", "ca-root"}

// signing lists, by purpose, the key that signs, and counts the others that
// verify.
func (w *world) signing() (map[string]string, map[string]int) {
	w.t.Helper()
	list, err := w.admin.Keys(w.t.Context())
	must(w.t, err)
	signs, verify := map[string]string{}, map[string]int{}
	for _, k := range list.Items {
		switch k.Does {
		case "signs":
			if signs[k.Purpose] != "" {
				w.t.Errorf("two keys of %s sign", k.Purpose)
			}
			signs[k.Purpose] = k.ID
		case "verifies":
			verify[k.Purpose]++
		}
	}
	return signs, verify
}

// load vends without a pause, on old and on new connections, until it is
// stopped; every failure is kept.
type load struct {
	stop chan struct{}
	work sync.WaitGroup
	got  atomic.Int64
	mu   sync.Mutex
	odd  []string
}

func (w *world) load(p person) *load {
	l := &load{stop: make(chan struct{})}
	for n := range 2 {
		l.work.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-l.stop:
					return
				default:
				}
				client := p.client
				if n == 1 && i%5 == 0 { // a handshake and a session of its own
					var err error
					if client, err = w.Client(p.Certificate); err != nil {
						l.fail(err)
						return
					}
				}
				_, err := client.Vend(context.Background(), SSH(time.Minute))
				if client != p.client {
					client.Close()
				}
				if err != nil {
					l.fail(err)
					continue
				}
				l.got.Add(1)
			}
		})
	}
	return l
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.odd = append(l.odd, err.Error())
}

// end stops the load and demands that nothing failed.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.work.Wait()
	if len(l.odd) > 0 {
		t.Errorf("%d of %d requests failed, first: %s", len(l.odd), l.got.Load(), l.odd[0])
	}
	if l.got.Load() < 5 {
		t.Errorf("the load got %d credentials", l.got.Load())
	}
}

// TestKeys_RotateUnderLoad replaces every key of a server while an agent works
// with what the old ones have signed.
func TestKeys_RotateUnderLoad(t *testing.T) {
	w := equipped(t, Options{})
	ctx := t.Context()
	agent := w.enrol("agent", "deployer", "build-7")
	leaked := w.vend(agent, 10*time.Minute)
	invited, err := w.admin.Invite(ctx, sallyport.InviteRequest{Kind: "agent", Role: "deployer"})
	must(t, err)
	join, err := sallyport.ParseJoinToken(invited.Token.Reveal())
	must(t, err)
	before, _ := w.signing()
	sshBefore, err := w.admin.SSHAuthority(ctx)
	must(t, err)
	old := filepath.Join(t.TempDir(), "old.checkpoint")
	_, err = w.House.Command(ctx, "audit", "checkpoint", "--out", old, "--url", "https://"+w.Main)
	must(t, err)

	l := w.load(agent)
	for _, purpose := range append(slices.Clone(everyPurpose[:len(everyPurpose)-1]), everyPurpose...) {
		must(t, Eventually(20*time.Second, func() error { // the ledger's key when it has signed a checkpoint
			if _, err := w.admin.RotateKey(ctx, purpose); err != nil {
				return fmt.Errorf("rotate %s: %w", purpose, err)
			}
			return nil
		}))
		time.Sleep(30 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	l.end(t)

	after, verify := w.signing()
	for _, purpose := range everyPurpose {
		if after[purpose] == "" || after[purpose] == before[purpose] {
			t.Errorf("the key of %s was %s and is %s", purpose, before[purpose], after[purpose])
		}
		if want := 2; purpose != "ca-root" && verify[purpose] < want {
			t.Errorf("%d old keys of %s verify", verify[purpose], purpose)
		}
	}
	// Whoever knew the old root still is served: by its hash in a join token that
	// was given before, and in a client's configuration.
	late, err := sallyport.Enrol(ctx, invited.Token.Reveal(), "latecomer")
	must(t, err)
	w.vend(w.meet(person{Enrolment: late}), time.Minute)
	pinned, err := sallyport.New(sallyport.Config{URL: "https://" + w.Main, RootHash: join.RootHash, Certificate: &agent.Certificate})
	must(t, err)
	defer pinned.Close()
	if _, err := pinned.Whoami(ctx); err != nil {
		t.Errorf("a client with the hash of the old root: %v", err)
	}
	w.knowsNewRoot(agent, join.RootHash)
	// Old fingerprints are found, and what the old SSH CA has signed is taken back.
	reaction, err := w.admin.ReportLeak(ctx, sallyport.Leak{Value: leaked.Value, Source: "test"})
	must(t, err)
	if len(reaction.Matches) != 1 || reaction.Matches[0].State != "revoked" {
		t.Errorf("a credential of before the rotations is not found: %+v", reaction)
	}
	sshAfter, err := w.admin.SSHAuthority(ctx)
	must(t, err)
	if !strings.Contains(sshAfter, strings.TrimSpace(sshBefore)) || strings.Count(sshAfter, "\n") != 3 {
		t.Errorf("TrustedUserCAKeys were %q and are %q", sshBefore, sshAfter)
	}
	w.inRevocationList(leaked.Value.Reveal())
	// The auditor has the first key alone.
	export := filepath.Join(t.TempDir(), "export")
	report, err := w.VerifyTo(ctx, export)
	must(t, err)
	if len(report.Rotations) != 2 || !report.Rotations[1].Followed {
		t.Errorf("the auditor's rotations: %+v", report.Rotations)
	}
	if _, err := w.House.Command(ctx, "audit", "verify", export, "--key", w.House.LedgerKey, "--checkpoint", old); err != nil {
		t.Error(err)
	}
	w = w.restart()
	w.vend(w.meet(agent), time.Minute)
	if again, _ := w.signing(); fmt.Sprint(again) != fmt.Sprint(after) {
		t.Errorf("after a start sign %v, before it %v", again, after)
	}
	if _, err := w.Verify(ctx); err != nil {
		t.Error(err)
	}
	if strings.Contains(w.Log(), "level=ERROR") {
		t.Errorf("the server is not well: %s", w.LastLog())
	}
}

// knowsNewRoot renews an agent's certificate: the answer has both roots, and one
// who trusts the new one alone is served.
func (w *world) knowsNewRoot(agent person, old [32]byte) {
	w.t.Helper()
	fresh, err := agent.client.Renew(w.t.Context())
	must(w.t, err)
	if strings.Count(fresh.RootPEM, "BEGIN CERTIFICATE") != 2 {
		w.t.Errorf("the agent learns %s", fresh.RootPEM)
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(fresh.RootPEM, "\n"), "-----END CERTIFICATE-----")
	roots := sallyport.Identity{RootPEM: first + "-----END CERTIFICATE-----\n"}.Roots()
	c, err := sallyport.New(sallyport.Config{URL: "https://" + w.Main, Roots: roots, Certificate: &fresh.Certificate})
	must(w.t, err)
	defer c.Close()
	if _, err := c.Whoami(w.t.Context()); err != nil {
		w.t.Errorf("a client that trusts the new root alone: %v", err)
	}
	invited, err := w.admin.Invite(w.t.Context(), queryInvite)
	must(w.t, err)
	join, err := sallyport.ParseJoinToken(invited.Token.Reveal())
	must(w.t, err)
	if join.RootHash == old {
		w.t.Error("a new join token names the old root")
	}
	if _, err := sallyport.Enrol(w.t.Context(), invited.Token.Reveal(), "newcomer"); err != nil {
		w.t.Errorf("enrol by the new root's hash: %v", err)
	}
}

// inRevocationList asks OpenSSH whether a certificate is on the list.
func (w *world) inRevocationList(certificate string) {
	w.t.Helper()
	keygen, err := exec.LookPath("ssh-keygen")
	need(w.t.(*testing.T), err == nil, "ssh-keygen")
	list, err := w.admin.SSHRevocations(w.t.Context())
	must(w.t, err)
	dir := w.t.TempDir()
	must(w.t, os.WriteFile(filepath.Join(dir, "krl"), list, 0o600))
	must(w.t, os.WriteFile(filepath.Join(dir, "id-cert.pub"), []byte(certificate), 0o600))
	out, err := exec.Command(keygen, "-Q", "-f", filepath.Join(dir, "krl"), filepath.Join(dir, "id-cert.pub")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "REVOKED") {
		w.t.Errorf("the list does not revoke it: %v %s", err, out)
	}
}

// TestKeys_Retire ends keys early: what they signed is not believed any more, and
// those who were hit get on.
func TestKeys_Retire(t *testing.T) {
	w := equipped(t, Options{})
	ctx := t.Context()
	agent := w.enrol("agent", "deployer", "build-7")
	opened, err := agent.client.OpenSession(ctx, nil)
	must(t, err)
	client, token := w.HTTP(&agent.Certificate), opened.Token.Reveal()
	rotate := func(purpose string) string {
		t.Helper()
		turn, err := w.admin.RotateKey(ctx, purpose)
		must(t, err)
		return turn.Changed[0].ID
	}
	old := rotate("token")
	if got, err := w.Vend(client, token, ""); err != nil || got.Status != 201 {
		t.Errorf("a token of the old key: %d %v", got.Status, err)
	}
	_, err = w.admin.RetireKey(ctx, old, false)
	refused(t, "retiring a key that is needed", err, sallyport.Conflict)
	_, err = w.admin.RetireKey(ctx, old, true)
	must(t, err)
	if got, err := w.Vend(client, token, ""); err != nil || got.Status != 401 {
		t.Errorf("a token of a retired key: %d %v", got.Status, err)
	}
	w.vend(agent, time.Minute) // its client opens another session

	first := rotate("ca-intermediate")
	w.vend(agent, time.Minute)
	renewed, err := agent.client.Renew(ctx)
	must(t, err)
	_, err = w.admin.RetireKey(ctx, first, true)
	must(t, err)
	fresh, err := w.Client(agent.Certificate)
	must(t, err)
	defer fresh.Close()
	_, err = fresh.Whoami(ctx)
	refused(t, "a certificate of a retired intermediate", err, sallyport.Unauthenticated)
	agent.Identity = renewed
	w.vend(w.meet(agent), time.Minute)

	// The operator's certificate was of the same one.
	_, err = w.admin.Keys(ctx)
	refused(t, "the operator's certificate of a retired intermediate", err, sallyport.Unauthenticated)
}

// TestKeys_RootRetires goes the whole way from one root to the next.
func TestKeys_RootRetires(t *testing.T) {
	w := equipped(t, Options{})
	ctx := t.Context()
	agent := w.enrol("agent", "deployer", "build-7")
	turn, err := w.admin.RotateKey(ctx, "ca-root")
	must(t, err)
	ids := map[string]string{}
	for _, k := range turn.Changed {
		ids[k.Purpose] = k.ID
	}
	_, err = w.admin.RetireKey(ctx, ids["ca-root"], false)
	refused(t, "retiring a root that is needed", err, sallyport.Conflict)
	operator, err := w.admin.Renew(ctx)
	must(t, err)
	renewed, err := agent.client.Renew(ctx)
	must(t, err)
	w.House.Operator, w.House.Root = operator.Certificate, operator.RootPEM
	w.admin, err = w.Client(operator.Certificate)
	must(t, err)
	for _, p := range []string{"ca-intermediate", "ca-root"} {
		if _, err := w.admin.RetireKey(ctx, ids[p], true); err != nil {
			t.Errorf("retire %s: %v", p, err)
		}
	}
	root, err := w.admin.Authority(ctx)
	must(t, err)
	if strings.Count(root, "BEGIN CERTIFICATE") != 1 {
		t.Errorf("after it has retired: %s", root)
	}
	stale, err := sallyport.New(sallyport.Config{URL: "https://" + w.Main, Roots: agent.Roots(), Certificate: &renewed.Certificate})
	must(t, err)
	defer stale.Close()
	if _, err := stale.Whoami(ctx); err == nil {
		t.Error("who trusts the retired root alone is still served")
	}
	agent.Identity = renewed
	w.vend(w.meet(agent), time.Minute)
	w = w.restart()
	w.vend(w.meet(agent), time.Minute)
	if _, err := w.admin.RotateKey(ctx, "ca-root"); err != nil {
		t.Errorf("the next root: %v", err)
	}
}

// attestAt has a guest attest at a node, and gives the result.
func attestAt(t *testing.T, w *world) string {
	t.Helper()
	g, _ := newGuest(t, "https://"+w.Main, w.HTTP(nil).Transport)
	token, err := g.Attest(t.Context())
	must(t, err)
	return token
}

// TestKeys_Replicas rotates on one of two nodes while both work, and on both at
// once.
func TestKeys_Replicas(t *testing.T) {
	a, b := pair(t, "keys")
	ctx := t.Context()
	agent := a.enrol("agent", "deployer", "build-7")
	atA, atB := a.load(a.meet(agent)), b.load(b.meet(agent))
	must(t, done(a.admin.SetPolicy(ctx, policy.ResourceName, "kbs-resource", policy.ResourceAllowAll())))
	must(t, done(a.admin.PutResource(ctx, "default", "key", "disk", []byte("the disk's key"))))
	tokens := map[string]string{"of the key before": attestAt(t, a)}
	before, _ := a.signing()
	for _, purpose := range everyPurpose {
		turn, err := a.admin.RotateKey(ctx, purpose)
		must(t, err)
		if turn.Key.Does != "announced" || turn.Key.SignsFrom.IsZero() {
			t.Errorf("the new key of %s %s at once", purpose, turn.Key.Does)
		}
	}
	if now, _ := b.signing(); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("before the time the other node signs with %v", now)
	}
	time.Sleep(13 * time.Second)
	atA.end(t)
	atB.end(t)
	first, _ := a.signing()
	second, _ := b.signing()
	if fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("one node signs with %v, the other with %v", first, second)
	}
	for _, purpose := range everyPurpose {
		if first[purpose] == before[purpose] {
			t.Errorf("the key of %s is still the old one", purpose)
		}
	}
	// Attestation results of the key before and of the present one count at both.
	tokens["of the first node"], tokens["of the second node"] = attestAt(t, a), attestAt(t, b)
	for whose, token := range tokens {
		for _, w := range []*world{a, b} {
			got := w.send(shown{method: "GET", path: "/kbs/v0/resource/default/key/disk", header: map[string]string{"Authorization": "Bearer " + token}})
			if got.status != 200 {
				t.Errorf("a token %s: %d %s", whose, got.status, got.body)
			}
		}
	}
	var made atomic.Int64
	var both sync.WaitGroup
	for _, w := range []*world{a, b, a, b} {
		both.Go(func() {
			if _, err := w.admin.RotateKey(ctx, "token"); err == nil {
				made.Add(1)
			} else if !sallyport.Is(err, sallyport.Conflict) {
				t.Errorf("rotate on both: %v", err)
			}
		})
	}
	both.Wait()
	records, err := a.Records(ctx, "key.rotated")
	must(t, err)
	must(t, Eventually(20*time.Second, func() error {
		if records, err = a.Records(ctx, "key.rotated"); err != nil {
			return err
		}
		if len(records) != len(everyPurpose)+int(made.Load()) || made.Load() < 1 {
			return fmt.Errorf("%d records of rotations, %d rotations of the token key", len(records), made.Load())
		}
		return nil
	}))
	for _, w := range []*world{a, b} {
		if report, err := w.Verify(ctx); err != nil || len(report.Rotations) != 1 {
			t.Errorf("%v %+v", err, report.Rotations)
		}
		if strings.Contains(w.Log(), "level=ERROR") {
			t.Errorf("a node is not well: %s", w.LastLog())
		}
		must(t, w.Stop())
	}
}

// TestKeys_RotateThemselves waits until a short period is over.
func TestKeys_RotateThemselves(t *testing.T) {
	quick(t)
	w := start(t, found(t, Options{Config: map[string]any{"keys": map[string]any{"rotate": map[string]any{"cookie": "1m", "token": "off"}}}}))
	before, _ := w.signing()
	t.Parallel() // only now: the minute passes while the tests after this one run
	must(t, Eventually(100*time.Second, func() error {
		if now, _ := w.signing(); now["cookie"] == before["cookie"] {
			return errors.New("the cookie key is still the first one")
		}
		return nil
	}))
	if now, _ := w.signing(); now["token"] != before["token"] || now["ear"] != before["ear"] {
		t.Errorf("others were rotated too: %v, %v", before, now)
	}
	must(t, Eventually(5*time.Second, func() error {
		list, err := w.Records(t.Context(), "key.rotated")
		if err == nil && len(list) == 0 {
			err = errors.New("the rotation is not recorded")
		}
		for _, r := range list { // one or more: it was a minute at least
			if r.Actor.Kind != "system" || r.Target != "cookie" {
				err = fmt.Errorf("the records say %+v", list)
			}
		}
		return err
	}))
}

// TestKeys_RewrapSurvivesKills interrupts the change of the key that wraps all
// others: what is there afterwards opens with the old key or with the new one, and
// the command may be repeated.
func TestKeys_RewrapSurvivesKills(t *testing.T) {
	quick(t)
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	must(t, w.Stop())
	h := w.House
	keyFile := func(n int) string { return filepath.Join(h.Dir, "keys", fmt.Sprintf("kek-%d", n)) }
	present := filepath.Join(h.Dir, "keys", "kek")
	for n := range 12 {
		cmd := exec.Command(h.Server, "key", "rewrap", "--new-kek", keyFile(n))
		cmd.Env = h.environment()
		must(t, cmd.Start())
		time.Sleep(time.Duration(5+n*n*3) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := os.Stat(keyFile(n)); err != nil {
			continue // killed before it did anything
		}
		out, err := h.Command(t.Context(), "key", "rewrap", "--new-kek", keyFile(n), "--output", "json")
		if err != nil {
			t.Fatalf("repeat after a kill: %v", err)
		}
		var done struct {
			File string   `json:"file"`
			Keys []string `json:"keys"`
		}
		must(t, json.Unmarshal([]byte(out), &done))
		t.Logf("killed after %d ms: the repetition wrapped %d keys", 5+n*n*3, len(done.Keys))
		must(t, os.Remove(present))
		present = keyFile(n)
		h.config["kek"] = map[string]any{"file": present}
		must(t, h.writeConfig())
	}
	w = start(t, h)
	w.vend(w.meet(agent), time.Minute)
	if _, err := w.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
