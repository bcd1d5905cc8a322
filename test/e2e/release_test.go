package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// TestIdempotencyKey_MakesOneCredential races one key, and then uses it for
// something else.
func TestIdempotencyKey_MakesOneCredential(t *testing.T) {
	w := equipped(t, Options{})
	ctx := t.Context()
	agent, other := w.enrol("agent", "deployer", "build-7"), w.enrol("agent", "deployer", "build-8")
	opened, err := agent.client.OpenSession(ctx, nil)
	must(t, err)
	client := w.HTTP(&agent.Certificate)
	var (
		mu   sync.Mutex
		got  = map[string]int{}
		news int
		race sync.WaitGroup
	)
	for range 10 {
		race.Go(func() {
			a, err := w.Vend(client, opened.Token.Reveal(), "the-key")
			mu.Lock()
			defer mu.Unlock()
			if err != nil || a.Grant == "" {
				t.Errorf("a repetition is answered %d %v: %s", a.Status, err, a.Body)
			}
			got[a.Grant+a.Value]++
			if a.Status == http.StatusCreated {
				news++
			}
		})
	}
	race.Wait()
	if len(got) != 1 || news != 1 {
		t.Errorf("one key made %d credentials, %d answers say that it is new", len(got), news)
	}
	_, err = agent.client.Vend(sallyport.WithIdempotencyKey(ctx, "the-key"), SSH(30*time.Second))
	refused(t, "the key for another request", err, sallyport.Conflict)
	mine, err := other.client.Vend(sallyport.WithIdempotencyKey(ctx, "the-key"), SSH(10*time.Minute))
	must(t, err)
	if mine.Replayed {
		t.Error("somebody else's key was answered with this one's credential")
	}
	refreshed, err := agent.client.RefreshSession(ctx)
	must(t, err)
	a, err := w.Vend(client, refreshed.Token.Reveal(), "the-key")
	must(t, err)
	if !a.Replayed {
		t.Errorf("after a refresh the key is answered %d: %s", a.Status, a.Body)
	}
	if _, err := agent.client.RevokeGrant(ctx, a.Grant, "test"); err != nil {
		t.Fatal(err)
	}
	if a, err := w.Vend(client, refreshed.Token.Reveal(), "the-key"); err != nil || a.Status != http.StatusConflict {
		t.Errorf("a revoked credential is given once more: %d %v", a.Status, err)
	}
}

// TestRelease_NarrowsToPolicy asks for more than the policy allows.
func TestRelease_NarrowsToPolicy(t *testing.T) {
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	long := SSH(24 * time.Hour)
	got, err := agent.client.Vend(t.Context(), long)
	must(t, err)
	if life := got.ExpiresAt.Sub(got.IssuedAt); life > 15*time.Minute {
		t.Errorf("a certificate for a day was granted for %s", life)
	}
	for name, params := range map[string]map[string]any{
		"another account":   {"principals": []any{"root"}},
		"another network":   {"principals": []any{"deploy"}, "source_addresses": []any{"192.0.2.0/24"}},
		"a wider network":   {"principals": []any{"deploy"}, "source_addresses": []any{"0.0.0.0/0"}},
		"another extension": {"principals": []any{"deploy"}, "extensions": []any{"permit-agent-forwarding"}},
		"host parameters":   {"principals": []any{"deploy"}, "host.serial": "1"},
		"no account":        {},
	} {
		got, err := agent.client.Vend(t.Context(), sallyport.VendRequest{Kind: "ssh-user-cert", TTL: time.Minute, Params: params})
		if err == nil && (strings.Contains(fmt.Sprint(got.Params["principals"]), "root") || strings.Contains(fmt.Sprint(got.Params), "192.0.2") ||
			strings.Contains(fmt.Sprint(got.Params), "0.0.0.0/0") || strings.Contains(fmt.Sprint(got.Params), "agent-forwarding") || name == "no account" || name == "host parameters") {
			t.Errorf("%s was granted: %v", name, got.Params)
		}
	}
	_, err = agent.client.Vend(t.Context(), sallyport.VendRequest{Kind: "github-pat", TTL: time.Minute})
	refused(t, "a kind that nobody serves", err, sallyport.NotFound)
	_, err = w.admin.Vend(t.Context(), SSH(time.Minute))
	refused(t, "an operator without a policy for it", err, sallyport.Denied)
}

// TestPolicy_KeepsTheOldWhenTheNewIsBroken sends documents that must not come
// into force, and tries to lock the last administrator out.
func TestPolicy_KeepsTheOldWhenTheNewIsBroken(t *testing.T) {
	w := equipped(t, Options{})
	ctx := t.Context()
	agent := w.enrol("agent", "deployer", "build-7")
	before, err := w.admin.Policy(ctx, "ssh", 0)
	must(t, err)
	for name, source := range map[string]string{
		"broken":     "package sallyport\n\nrelease := {\"allow\": true} if {\n\tinput.request.kind == \n}\n",
		"unsafe":     "package sallyport\n\n\nrelease := {\"allow\": true} if nobody_knows(input)\n",
		"network":    "package sallyport\nrelease := {\"allow\": true} if http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"}).status_code == 200\n",
		"elsewhere":  "package other\nallow := true\n",
		"too long":   "package sallyport\n# " + strings.Repeat("x", 280<<10) + "\n",
		"not a text": "package sallyport\nrelease := \xff\n",
	} {
		_, err := w.admin.SetPolicy(ctx, "ssh", "sallyport", source)
		refused(t, name, err, sallyport.Invalid)
		if name == "broken" && err != nil && !strings.Contains(err.Error(), "ssh:5") {
			t.Errorf("the refusal names no line: %v", err)
		}
	}
	for name, source := range map[string]string{
		"a veto":          "package sallyport\nadminister := {\"allow\": false}\n",
		"nobody any more": "package sallyport\nadmit := {\"allow\": true} if input.subject.kind == \"agent\"\n",
	} {
		_, err := w.admin.SetPolicy(ctx, map[string]string{"a veto": "veto", "nobody any more": "base"}[name], "sallyport", source)
		refused(t, "locking oneself out by "+name, err, sallyport.Invalid, sallyport.Conflict, sallyport.Denied)
	}
	err = w.admin.RemovePolicy(ctx, "base")
	refused(t, "removing the base", err, sallyport.Invalid, sallyport.Conflict, sallyport.Denied)
	_, err = w.admin.ChangeSubject(ctx, w.operatorID(), sallyport.SubjectChange{Act: "revoke"})
	refused(t, "revoking the last administrator", err, sallyport.Invalid, sallyport.Conflict, sallyport.Denied)
	after, err := w.admin.Policy(ctx, "ssh", 0)
	must(t, err)
	if after.Version != before.Version || after.Source != before.Source {
		t.Errorf("the document is another one: version %d, was %d", after.Version, before.Version)
	}
	w.vend(agent, time.Minute)
}

// TestPlugin_ComesBack kills the plugin's process under load: calls in flight
// may fail with a reason, none hangs, and service returns by itself.
func TestPlugin_ComesBack(t *testing.T) {
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	opened, err := agent.client.OpenSession(t.Context(), nil)
	must(t, err)
	client := w.HTTP(&agent.Certificate)
	vend := func() (Answer, time.Duration) {
		t.Helper()
		begin := time.Now()
		a, err := w.Vend(client, opened.Token.Reveal(), "")
		must(t, err)
		return a, time.Since(begin)
	}
	for round := range 2 {
		status, err := w.admin.Status(t.Context())
		must(t, err)
		old := status.Plugins[0]
		must(t, syscall.Kill(old.PID, syscall.SIGKILL))
		must(t, Eventually(15*time.Second, func() error {
			a, took := vend()
			if took > 10*time.Second {
				t.Errorf("a call hung for %s", took)
			}
			if a.Status != http.StatusCreated && a.Status != http.StatusServiceUnavailable {
				t.Errorf("without its plugin the server answers %d: %s", a.Status, a.Body)
			}
			if a.Status != http.StatusCreated {
				return fmt.Errorf("round %d: %d %s", round, a.Status, a.Body)
			}
			return nil
		}))
		for range 20 {
			if a, _ := vend(); a.Status != http.StatusCreated {
				t.Errorf("a call fails because of an earlier restart: %d %s", a.Status, a.Body)
			}
		}
		status, err = w.admin.Status(t.Context())
		must(t, err)
		if now := status.Plugins[0]; now.PID == old.PID || now.State != "ready" || now.Crashes <= old.Crashes {
			t.Errorf("the plugin was %+v and is %+v", old, now)
		}
	}
	must(t, w.admin.RemovePlugin(t.Context(), "sshcert"))
	if a, _ := vend(); a.Status == http.StatusCreated {
		t.Error("a removed plugin still serves")
	}
	before := w.restart()
	status, err := before.admin.Status(t.Context())
	must(t, err)
	if len(status.Plugins) != 0 {
		t.Errorf("a removed plugin came back: %+v", status.Plugins)
	}
}

// TestPlugin_RefusesWhatNobodySigned installs packages that must not run.
func TestPlugin_RefusesWhatNobodySigned(t *testing.T) {
	w := start(t, found(t, Options{}))
	ctx := t.Context()
	err := w.Install(ctx)
	refused(t, "a package of a publisher that nobody trusts", err, sallyport.Denied, sallyport.Invalid)
	_, err = w.admin.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: w.House.Publisher, PublicKey: w.House.PublicKey, Names: []string{"other-*"}})
	if err != nil {
		t.Logf("names with patterns: %v", err)
	} else {
		refused(t, "a package that the key may not sign", w.Install(ctx), sallyport.Denied, sallyport.Invalid)
	}
	_, err = w.admin.InstallPlugin(ctx, strings.NewReader(strings.Repeat("\x00", 1<<20)), sallyport.InstallRequest{})
	refused(t, "a package of zeros", err, sallyport.Invalid, sallyport.Denied)
	list, err := w.admin.Plugins(ctx)
	must(t, err)
	if len(list.Items) != 0 {
		t.Errorf("something was installed: %+v", list.Items)
	}
}

// TestSession_OpensAtOnce asks for a session in the first moment of an
// installation's life, without the repetitions of the SDK.
func TestSession_OpensAtOnce(t *testing.T) {
	for range 3 {
		w := start(t, found(t, Options{}))
		got := w.send(shown{method: "POST", path: "/v1/sessions", body: "{}", certificate: &w.House.Operator})
		if got.status != http.StatusCreated {
			t.Fatalf("the first session is answered %d: %s", got.status, got.body)
		}
	}
}
