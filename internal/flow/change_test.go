package flow_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

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
		}, undo: func(w *world) {
			_, err := w.gate.RevokeCertificate(ctx, w.admin.caller(), w.made, "test")
			must(w.t, err)
		}},
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
			out, err := w.gate.RevokeCertificate(ctx, c, w.victim.serial, fmt.Sprint("reason ", n))
			return fmt.Sprint(out.Certificate), err
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
			if fault.Is(err, fault.Invalid) { // on a busy machine the question who can administer runs out of its time
				err = fault.Unavailablef("late").Because(err)
			}
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
		}, undo: func(w *world) {
			must(w.t, w.gate.DeleteResource(ctx, w.admin.caller(), []string{"a", "b", "c"}, false))
		}},
		"delete resource": {record: "resource.deleted", do: func(w *world, c flow.Caller, n int) (string, error) {
			return "", w.gate.DeleteResource(ctx, c, []string{"spare", "b", fmt.Sprint(n)}, false)
		}},
		"trust": {record: "publisher.trusted", do: func(w *world, c flow.Caller, n int) (string, error) {
			out, err := w.gate.TrustPublisher(ctx, c, flow.PublisherKey{Publisher: fmt.Sprint("acme-", n), Public: w.public, Names: []string{"x"}})
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
	for _, p := range keys {
		if p.Name == "spare" {
			w.made = p.Keys[0].ID
		}
	}
	return w.made
}

// spares are things that are there to be removed.
func (w *world) spares() {
	w.t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	must(w.t, err)
	_, err = w.gate.TrustPublisher(ctx, w.admin.caller(), flow.PublisherKey{Publisher: "spare", Public: public})
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
