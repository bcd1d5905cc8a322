package flow_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
)

// change is one kind of call that changes something.
type change struct {
	// by is who may make it; nil is the administrator.
	by func(*world) *client
	// do makes it, in variant 0 or 1, and tells what it answered.
	do func(*world, flow.Caller, int) (string, error)
	// undo undoes what the first variant made, so that its answer is good for
	// nothing; nil where nothing does.
	undo func(*world)
	// record is the type of the record that the change leaves.
	record string
}

// world is a house with what the changes need.
type world struct {
	*house
	gate          *flow.Gate // that the next change goes to
	agent, victim *client
	value         string // of a live credential
	public        ed25519.PublicKey
	csr           [2][]byte
	made          string // what the last call made
}

func newWorld(t *testing.T) *world {
	t.Helper()
	h, agent := agentWith(t, newVendor(grant.EffectsNone))
	w := &world{house: h, gate: h.gate, agent: agent, victim: h.stored(subject.Agent, "deployer", "victim").open()}
	out, err := h.gate.Vend(context.Background(), w.victim.caller(), request("test"))
	must(t, err)
	w.value = string(out.Value.Reveal())
	w.public, _, err = ed25519.GenerateKey(rand.Reader)
	must(t, err)
	for i := range w.csr {
		_, w.csr[i] = newKey(t)
	}
	return w
}

var ctx = context.Background()

// harmless is a policy that decides nothing.
const harmless = "package sallyport\nobserve := {\"allow\": false} if input.subject.role == \"nobody\"\n"

func certificateHolder(w *world) *client {
	bare := *w.agent
	bare.token = ""
	return &bare
}

func opened(w *world, o flow.Opened, err error) (string, error) {
	w.made = o.Session.ID
	return o.Session.ID + string(o.Token.Reveal()), err
}

func changes() map[string]change {
	agent := func(w *world) *client { return w.agent }
	return map[string]change{
		"invite": {record: "subject.invited", do: func(w *world, c flow.Caller, n int) (string, error) {
			out, err := w.gate.Invite(ctx, c, flow.InviteRequest{Kind: subject.Agent, Role: "deployer", Name: fmt.Sprint("new-", n)})
			w.made = string(out.Secret.Reveal())
			return out.ID + w.made + out.Expires.String(), err
		}, undo: func(w *world) {
			_, err := w.enrol(w.gate, secret.FromString(w.made), "")
			must(w.t, err)
		}},
		"renew": {by: certificateHolder, record: "certificate.renewed", do: func(w *world, c flow.Caller, n int) (string, error) {
			out, err := w.gate.Renew(ctx, c, w.csr[n])
			w.made = out.Serial
			return out.PEM + out.Root, err
		}, undo: func(w *world) { must(w.t, w.gate.RevokeCertificate(ctx, w.admin.caller(), w.made, "test")) }},
		"open": {by: certificateHolder, record: "session.opened", do: func(w *world, c flow.Caller, n int) (string, error) {
			out, err := w.gate.OpenSession(ctx, c, []token.Scopes{{"release:test"}, {"release:other"}}[n])
			return opened(w, out, err)
		}, undo: endMade},
		"delegate": {by: agent, record: "session.delegated", do: func(w *world, c flow.Caller, n int) (string, error) {
			thumb, err := token.Thumbprint(w.public)
			must(w.t, err)
			out, err := w.gate.Delegate(ctx, c, token.Delegation{KeyThumb: thumb, Scopes: token.Scopes{"release:test"}, Life: time.Duration(n+1) * time.Minute})
			return opened(w, out, err)
		}, undo: endMade},
		"end session": {record: "session.revoked", do: func(w *world, c flow.Caller, n int) (string, error) {
			return "", w.gate.EndSession(ctx, c, w.victim.held.ID, fmt.Sprint("reason ", n))
		}},
		"end own session": {by: certificateHolder, record: "session.revoked", do: func(w *world, c flow.Caller, n int) (string, error) {
			return "", w.gate.EndSession(ctx, c, w.agent.held.ID, fmt.Sprint("reason ", n))
		}},
		"lock": {record: "subject.locked", do: func(w *world, c flow.Caller, n int) (string, error) {
			out, err := w.gate.ChangeSubject(ctx, c, w.victim.id, flow.SubjectChange{Act: "locked", Reason: fmt.Sprint("reason ", n)})
			return fmt.Sprint(out), err
		}},
		"revoke certificate": {record: "certificate.revoked", do: func(w *world, c flow.Caller, n int) (string, error) {
			return "", w.gate.RevokeCertificate(ctx, c, w.victim.serial, fmt.Sprint("reason ", n))
		}},
		"vend": {by: agent, record: "grant.issued", do: func(w *world, c flow.Caller, n int) (string, error) {
			r := request("test")
			r.TTL -= time.Duration(n) * time.Minute
			out, err := w.gate.Vend(ctx, c, r)
			w.made = out.Grant
			return out.Grant + string(out.Value.Reveal()), err
		}, undo: func(w *world) {
			_, err := w.gate.RevokeGrant(ctx, w.agent.caller(), w.made, "")
			must(w.t, err)
		}},
		"leak": {record: "leak.reported", do: func(w *world, c flow.Caller, n int) (string, error) {
			out, err := w.gate.Report(ctx, c, signal.Signal{Value: secret.FromString(w.value), Source: fmt.Sprint("source ", n)})
			return out.Record, err
		}},
		"set policy": {record: "policy.set", do: func(w *world, c flow.Caller, n int) (string, error) {
			out, err := w.gate.SetPolicy(ctx, c, "more", policy.Sallyport, fmt.Sprintf("%s# %d\n", harmless, n))
			return fmt.Sprint(out), err
		}, undo: func(w *world) { must(w.t, w.gate.RemovePolicy(ctx, w.admin.caller(), "more")) }},
		"remove policy": {record: "policy.removed", do: func(w *world, c flow.Caller, n int) (string, error) {
			return "", w.gate.RemovePolicy(ctx, c, []string{"spare", "spare-1"}[n])
		}},
		"put resource": {record: "resource.stored", do: func(w *world, c flow.Caller, n int) (string, error) {
			out, err := w.gate.PutResource(ctx, c, []string{"a", "b", "c"}, secret.FromString(fmt.Sprint("value ", n)))
			if len(out.Sealed) > 0 {
				w.t.Error("the answer has the sealed value")
			}
			return fmt.Sprint(out), err
		}, undo: func(w *world) { must(w.t, w.gate.DeleteResource(ctx, w.admin.caller(), []string{"a", "b", "c"})) }},
		"delete resource": {record: "resource.deleted", do: func(w *world, c flow.Caller, n int) (string, error) {
			return "", w.gate.DeleteResource(ctx, c, []string{"spare", "b", fmt.Sprint(n)})
		}},
		"trust": {record: "publisher.trusted", do: func(w *world, c flow.Caller, n int) (string, error) {
			out, err := w.gate.TrustPublisher(ctx, c, fmt.Sprint("acme-", n), w.public, []string{"x"})
			w.made = out.ID
			return fmt.Sprint(out.ID, out.Publisher, string(out.Public), out.Names, out.State, out.At, out.Author), err
		}, undo: func(w *world) { must(w.t, w.gate.DistrustPublisher(ctx, w.admin.caller(), w.made)) }},
		"distrust": {record: "publisher.distrusted", do: func(w *world, c flow.Caller, n int) (string, error) {
			return "", w.gate.DistrustPublisher(ctx, c, w.spareKey(n))
		}},
	}
}

func endMade(w *world) { must(w.t, w.gate.EndSession(ctx, w.admin.caller(), w.made, "test")) }

// spareKey is the id of a trusted key that is there to be taken out of trust.
func (w *world) spareKey(n int) string {
	if n > 0 {
		return "another"
	}
	keys, err := w.gate.Publishers(ctx, w.admin.caller())
	must(w.t, err)
	for _, k := range keys {
		if k.Publisher == "spare" {
			w.made = k.ID
		}
	}
	return w.made
}

// spares are things that are there to be removed.
func (w *world) spares() {
	w.t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	must(w.t, err)
	_, err = w.gate.TrustPublisher(ctx, w.admin.caller(), "spare", public, nil)
	must(w.t, err)
	must(w.t, policyIs(w.house, "spare", harmless))
	_, err = w.gate.PutResource(ctx, w.admin.caller(), []string{"spare", "b", "0"}, secret.FromString("x"))
	must(w.t, err)
}

func (c change) who(w *world) *client {
	if c.by == nil {
		return w.admin
	}
	return c.by(w)
}

// TestChanges_HappenOnceUnderOneKey makes every change, loses the answer, and
// asks again: the same answer comes, from another replica too, one change was
// made, and a record tells of each time.
func TestChanges_HappenOnceUnderOneKey(t *testing.T) {
	for name, c := range changes() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.spares()
			before := len(w.records(c.record))
			first, err := c.do(w, under(c.who(w).caller(), "01KEY"), 0)
			must(t, err)
			w.gate = w.newGate() // another replica
			again := under(c.who(w).caller(), "01KEY")
			second, err := c.do(w, again, 0)
			must(t, err)
			if first != second || !again.Key.Replayed {
				t.Fatalf("answered %q, then %q (replayed %v)", first, second, again.Key.Replayed)
			}
			count(t, len(w.records(c.record))-before, 1, "records of the change")
			noun, _, _ := strings.Cut(c.record, ".")
			count(t, len(w.records(noun+".replayed")), 1, "records of the repetition")

			// The same key for something else is a mistake, and does nothing.
			_, err = c.do(w, under(c.who(w).caller(), "01KEY"), 1)
			want(t, err, fault.Conflict)
			if !strings.Contains(fault.Public(err), "another request") {
				t.Fatalf("refused for another reason: %v", err)
			}
			count(t, len(w.records(c.record))-before, 1, "records of the change")
		})
	}
}

// TestChanges_RepeatNothingThatWasUndone is the attack on kept answers: what was
// taken back does not come again out of the store.
func TestChanges_RepeatNothingThatWasUndone(t *testing.T) {
	for name, c := range changes() {
		if c.undo == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			who := c.who(w)
			_, err := c.do(w, under(who.caller(), "01KEY"), 0)
			must(t, err)
			made := w.made
			c.undo(w)
			w.made = made
			_, err = c.do(w, under(who.caller(), "01KEY"), 0)
			want(t, err, fault.Conflict)
			if !strings.Contains(fault.Public(err), "choose a new key") {
				t.Fatalf("refused for another reason: %v", err)
			}
		})
	}
}

// TestChanges_AnswerOneOfManyAtATime sends each change ten times at once, to two
// replicas: one is made, and all get its answer.
func TestChanges_AnswerOneOfManyAtATime(t *testing.T) {
	for name, c := range changes() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.spares()
			before := len(w.records(c.record))
			gates := []*flow.Gate{w.gate, w.newGate()}
			who := c.who(w).caller()
			w.spareKey(0)
			var race sync.WaitGroup
			answers := make([]string, 10)
			for i := range answers {
				race.Go(func() {
					mine := *w
					mine.gate = gates[i%2]
					err := patiently(func() (err error) {
						answers[i], err = c.do(&mine, under(who, "01KEY"), 0)
						return err
					})
					if err != nil {
						t.Errorf("call %d: %v", i, err)
					}
				})
			}
			race.Wait()
			for _, a := range answers {
				if a != answers[0] {
					t.Fatalf("two answers: %q and %q", a, answers[0])
				}
			}
			count(t, len(w.records(c.record))-before, 1, "records of the change")
		})
	}
}

// TestChanges_KeysAreTheirCallers asks for somebody else's answer by its key.
func TestChanges_KeysAreTheirCallers(t *testing.T) {
	w := newWorld(t)
	other := w.stored(subject.Operator, "administrator", "other")
	invite := flow.InviteRequest{Kind: subject.Agent, Role: "deployer"}
	first, err := w.gate.Invite(ctx, under(w.admin.caller(), "01KEY"), invite)
	must(t, err)
	thief := under(other.caller(), "01KEY")
	second, err := w.gate.Invite(ctx, thief, invite)
	must(t, err)
	if first.Secret.Equal(second.Secret) || thief.Key.Replayed {
		t.Fatal("the join token went to another operator")
	}
	// The same key for another operation is another key.
	_, err = w.gate.PutResource(ctx, under(w.admin.caller(), "01KEY"), []string{"a", "b", "c"}, secret.FromString("x"))
	must(t, err)
	// A session of the same subject does not get what another one delegated.
	thumb, err := token.Thumbprint(w.public)
	must(t, err)
	to := token.Delegation{KeyThumb: thumb, Scopes: token.Scopes{"release:test"}}
	wide, err := w.gate.Delegate(ctx, under(w.agent.caller(), "01KEY"), to)
	must(t, err)
	narrow := certificateHolder(w).open("release:nothing")
	got, err := w.gate.Delegate(ctx, under(narrow.caller(), "01KEY"), to)
	if err == nil || got.Session.ID == wide.Session.ID {
		t.Fatalf("a narrower session got %+v, %v", got.Session, err)
	}
}

// TestChanges_KeepNothingOfADenial: who was denied, or failed, is judged anew.
func TestChanges_KeepNothingOfADenial(t *testing.T) {
	w := newWorld(t)
	put := func(c flow.Caller) error {
		_, err := w.gate.SetPolicy(ctx, c, "mine", policy.Sallyport, harmless)
		return err
	}
	want(t, put(under(w.agent.caller(), "01KEY")), fault.Denied)
	want(t, w.gate.RemovePolicy(ctx, under(w.admin.caller(), "01KEY"), "mine"), fault.NotFound)
	must(t, put(w.admin.caller()))
	must(t, w.gate.RemovePolicy(ctx, under(w.admin.caller(), "01KEY"), "mine"))
	// Who is not allowed any more does not get the first answer either.
	promoted := w.stored(subject.Operator, "administrator", "other")
	must(t, put(under(promoted.caller(), "01OTHER")))
	_, err := w.gate.ChangeSubject(ctx, w.admin.caller(), promoted.id, flow.SubjectChange{Act: "changed", Role: "auditor"})
	must(t, err)
	want(t, put(under(promoted.caller(), "01OTHER")), fault.Denied)
}

// TestRefresh_RepeatsForWhoShowsTheOldSession is the one call whose repetition
// comes with a session that the call itself has ended.
func TestRefresh_RepeatsForWhoShowsTheOldSession(t *testing.T) {
	w := newWorld(t)
	show := func(c *client, key string) (flow.Caller, error) {
		p := c.present()
		p.Refreshing = true
		if key != "" {
			k, err := flow.NewKey(key)
			must(t, err)
			p.Key = k
		}
		return w.gate.Authenticate(ctx, p)
	}
	who, err := show(w.agent, "01KEY")
	must(t, err)
	first, err := w.gate.RefreshSession(ctx, who)
	must(t, err)
	again, err := show(w.agent, "01KEY")
	must(t, err)
	second, err := w.gate.RefreshSession(ctx, again)
	must(t, err)
	if !first.Token.Equal(second.Token) || !again.Key.Replayed {
		t.Fatal("another session was made")
	}
	// Another key, or none, opens nothing with a session that has ended, and
	// neither does the key anywhere else.
	another, err := show(w.agent, "01OTHER")
	must(t, err)
	_, err = w.gate.RefreshSession(ctx, another)
	want(t, err, fault.Unauthenticated)
	_, err = show(w.agent, "")
	want(t, err, fault.Unauthenticated)
	_, err = w.agent.try(w.gate)
	want(t, err, fault.Unauthenticated)
	// A session that was revoked fetches nothing, and a revoked one is not fetched.
	must(t, w.gate.EndSession(ctx, w.admin.caller(), second.Session.ID, "stolen"))
	again, err = show(w.agent, "01KEY")
	must(t, err)
	_, err = w.gate.RefreshSession(ctx, again)
	want(t, err, fault.Conflict)
	_, err = show(w.agent.with(second), "01KEY")
	want(t, err, fault.Unauthenticated)
}

// TestEnrol_RepeatsForTheSameNewcomer loses the answer to the one call that uses
// a join token up.
func TestEnrol_RepeatsForTheSameNewcomer(t *testing.T) {
	w := newWorld(t)
	once := w.invite(subject.Agent, "deployer", "")
	key := func(text string) *flow.Key {
		k, err := flow.NewKey(text)
		must(t, err)
		return k
	}
	enrol := func(k *flow.Key, s secret.Bytes, csr []byte, name string) (flow.Enrolled, error) {
		return w.gate.Enrol(ctx, flow.EnrolRequest{Secret: s, CSR: csr, Name: name, Via: "rest", Address: "192.0.2.9", Key: k})
	}
	var race sync.WaitGroup
	got := make([]flow.Enrolled, 8)
	for i := range got {
		race.Go(func() {
			must(t, patiently(func() (err error) {
				got[i], err = enrol(key("01KEY"), once, w.csr[0], "newcomer")
				return err
			}))
		})
	}
	race.Wait()
	for _, e := range got {
		if e.Leaf != got[0].Leaf || e.Subject.ID != got[0].Subject.ID {
			t.Fatalf("two certificates for one token: %s and %s", e.Leaf.Serial, got[0].Leaf.Serial)
		}
	}
	count(t, len(w.records("subject.enrolled")), 1, "enrolments")
	for name, attack := range map[string]func() error{
		"another key pair":        func() error { _, err := enrol(key("01KEY"), once, w.csr[1], "newcomer"); return err },
		"another name":            func() error { _, err := enrol(key("01KEY"), once, w.csr[0], "other"); return err },
		"another idempotency key": func() error { _, err := enrol(key("01OTHER"), once, w.csr[0], "newcomer"); return err },
		"no idempotency key":      func() error { _, err := enrol(nil, once, w.csr[0], "newcomer"); return err },
		"another secret": func() error {
			_, err := enrol(key("01KEY"), secret.FromString("guess"), w.csr[0], "newcomer")
			return err
		},
	} {
		if err := attack(); !fault.Is(err, fault.Unauthenticated) && !fault.Is(err, fault.Conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, w.gate.RevokeCertificate(ctx, w.admin.caller(), got[0].Leaf.Serial, "test"))
	_, err := enrol(key("01KEY"), once, w.csr[0], "newcomer")
	want(t, err, fault.Conflict)
	w.house.change(got[0].Subject.ID, "revoked")
	_, err = enrol(key("01KEY"), once, w.csr[0], "newcomer")
	want(t, err, fault.Unauthenticated)
}

// TestReport_FinishesWhatTheFirstCallLeftUndone: a kept answer must not stand
// for revocations that never happened.
func TestReport_FinishesWhatTheFirstCallLeftUndone(t *testing.T) {
	w := newWorld(t)
	leak := signal.Signal{Value: secret.FromString(w.value), Source: "scanner"}
	first, err := w.gate.Report(ctx, under(w.admin.caller(), "01KEY"), leak)
	must(t, err)
	again, err := w.gate.Report(ctx, under(w.admin.caller(), "01KEY"), leak)
	must(t, err)
	if first.Record != again.Record || len(again.Matches) != 1 || !again.Matches[0].Repeat || again.Matches[0].Tag == "" {
		t.Fatalf("%+v, then %+v", first, again)
	}
}

func TestKey_IsVisibleText(t *testing.T) {
	for _, bad := range []string{"", " ", "a b", "ä", "a\x00", "a\n", strings.Repeat("k", 129)} {
		_, err := flow.NewKey(bad)
		want(t, err, fault.Invalid)
	}
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.StringMatching(`[!-~]{1,128}`).Draw(r, "key")
		if k, err := flow.NewKey(text); err != nil || k.Text != text || k.Replayed {
			r.Fatalf("%q: %v", text, err)
		}
	})
}
