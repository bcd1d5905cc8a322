package flow_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
)

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

// TestChanges_AnswerOneOfManyAtATime sends each change four times at once, to two
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
			answers := make([]string, 4)
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

// meanwhile is a store on which the same call is made by another replica just
// before this one reads what the call changes.
type meanwhile struct {
	flow.Reader
	once sync.Once
	do   func()
}

func (m *meanwhile) Judging(ctx context.Context) (plugin.Judging, error) {
	m.once.Do(m.do)
	return m.Reader.Judging(ctx)
}

func (m *meanwhile) Invitation(ctx context.Context, id string) (subject.Invitation, error) {
	m.once.Do(m.do)
	return m.Reader.Invitation(ctx, id)
}

// TestChanges_FindTheAnswerThatOvertookThem: who looked for a first answer before
// it was there, and then finds the change made, must not take it for a conflict.
func TestChanges_FindTheAnswerThatOvertookThem(t *testing.T) {
	w := newWorld(t)
	once := w.invite(subject.Agent, "deployer", "")
	key, err := flow.NewKey("01KEY")
	must(t, err)
	for name, do := range map[string]func(*flow.Gate) (string, error){
		"trust": func(g *flow.Gate) (string, error) {
			out, err := g.TrustPublisher(ctx, under(w.admin.caller(), "01KEY"), flow.PublisherKey{Publisher: "acme", Public: w.public})
			return out.ID + out.At.String(), err
		},
		"enrol": func(g *flow.Gate) (string, error) {
			out, err := g.Enrol(ctx, flow.EnrolRequest{Secret: once, CSR: w.csr[0], Name: "newcomer", Via: "rest", Key: key})
			return out.Subject.ID + out.Leaf.PEM, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var first string
			m := &meanwhile{Reader: w.store, do: func() {
				var err error
				first, err = do(w.house.gate)
				must(t, err)
			}}
			second, err := do(w.newGate(func(c *flow.Config) { c.Store = m }))
			must(t, err)
			if first == "" || first != second {
				t.Errorf("answered %q, then %q", first, second)
			}
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
	_, err := w.gate.RevokeCertificate(ctx, w.admin.caller(), got[0].Leaf.Fingerprint, "test")
	must(t, err)
	_, err = enrol(key("01KEY"), once, w.csr[0], "newcomer")
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
