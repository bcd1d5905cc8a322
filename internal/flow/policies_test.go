package flow_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func TestSetPolicy_RefusesABrokenDocumentWithItsLineAndKeepsTheOld(t *testing.T) {
	ctx := context.Background()
	h, c := agentWith(t, newVendor(grant.EffectsNone))
	err := policyIs(h, "deployers", "package sallyport\n\nrelease := nonsense(input)\n")
	want(t, err, fault.Invalid)
	if text := fault.Public(err); !strings.Contains(text, "deployers:3") {
		t.Fatalf("the refusal reads %q", text)
	}
	_, err = h.gate.Vend(ctx, c.caller(), request("test"))
	must(t, err)
	versions, err := h.gate.PolicyVersions(ctx, h.admin.caller(), "deployers")
	must(t, err)
	count(t, len(versions), 1, "versions")
	count(t, len(h.records("policy.set")), 0, "records")
}

func TestSetPolicy_ConcernsEveryReplicaAtOnce(t *testing.T) {
	ctx := context.Background()
	h, c := agentWith(t, newVendor(grant.EffectsNone))
	replica := h.newGate()
	who := c.caller()
	freeze := func() { must(t, policyIs(h, "freeze", policy.ExampleFreeze())) }
	thaw := func() { must(t, h.gate.RemovePolicy(ctx, h.admin.caller(), "freeze")) }
	for range 3 {
		_, err := replica.Vend(ctx, who, request("test"))
		must(t, err)
		freeze()
		_, err = replica.Vend(ctx, who, request("test"))
		want(t, err, fault.Denied)
		thaw()
	}
	auditor := h.stored(subject.Operator, "auditor", "auditor").caller()
	_, err := replica.Policies(ctx, auditor)
	want(t, err, fault.Denied)
	must(t, policyIs(h, "readers", "package sallyport\nadminister := {\"allow\": true} if input.subject.role == \"auditor\""))
	_, err = replica.Policies(ctx, auditor)
	must(t, err)
	must(t, h.gate.RemovePolicy(ctx, h.admin.caller(), "readers"))
	_, err = replica.Policies(ctx, auditor) // a reading act, that ends in no unit
	want(t, err, fault.Denied)
	set := h.records("policy.set")
	if r := set[0]; r.Target != "freeze" || r.Data["version"] != "1" || r.Actor.Subject != h.admin.id || len(r.Policy) == 0 {
		t.Fatalf("recorded %+v", r)
	}
	versions, err := h.gate.PolicyVersions(ctx, h.admin.caller(), "freeze")
	must(t, err)
	count(t, len(versions), 6, "versions")
}

func TestSetPolicy_IsForAdministrators(t *testing.T) {
	h, c := agentWith(t, newVendor(grant.EffectsNone))
	for _, who := range []*client{c, h.stored(subject.Operator, "auditor", "auditor")} {
		_, err := h.gate.SetPolicy(context.Background(), who.caller(), "mine", policy.Sallyport, "package sallyport")
		want(t, err, fault.Denied)
		want(t, h.gate.RemovePolicy(context.Background(), who.caller(), "base"), fault.Denied)
	}
	count(t, len(h.records("policy.set")), 2, "denials recorded")
	_, err := h.gate.SetPolicy(context.Background(), h.admin.caller(), "base", policy.KBSResource, "package policy\nallow := true")
	want(t, err, fault.Conflict)
}

func TestLastAdministrator_CannotBeLockedOut(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	change := func(of string, c flow.SubjectChange) error {
		_, err := h.gate.ChangeSubject(ctx, h.admin.caller(), of, c)
		return err
	}
	want(t, policyIs(h, "base", "package sallyport\nadminister := {\"allow\": false}"), fault.Invalid)
	want(t, h.gate.RemovePolicy(ctx, h.admin.caller(), "base"), fault.Invalid)
	for _, c := range []flow.SubjectChange{{Act: "revoked"}, {Act: "locked"}, {Act: "changed", Role: "auditor"}} {
		want(t, change(h.admin.id, c), fault.Conflict)
	}
	must(t, change(h.admin.id, flow.SubjectChange{Act: "changed", Team: "platform"})) // still an administrator
	must(t, policyIs(h, "team", `package sallyport
administer := {"allow": false, "reasons": ["team"]} if input.subject.team != "platform"`))
	want(t, change(h.admin.id, flow.SubjectChange{Act: "changed", Team: "other"}), fault.Conflict)
	must(t, h.gate.RemovePolicy(ctx, h.admin.caller(), "team"))
	second := h.stored(subject.Operator, "administrator", "second")
	must(t, change(h.admin.id, flow.SubjectChange{Act: "changed", Role: "auditor"}))
	_, err := h.gate.ChangeSubject(ctx, second.caller(), second.id, flow.SubjectChange{Act: "revoked"})
	want(t, err, fault.Conflict)
	want(t, change(second.id, flow.SubjectChange{Act: "revoked"}), fault.Denied) // an auditor by now
}

func TestLastAdministrator_SurvivesTwoWhoStepDownTogether(t *testing.T) {
	ctx := context.Background()
	for range 5 {
		h := newHouse(t)
		second := h.stored(subject.Operator, "administrator", "second")
		replica := h.newGate()
		// Both have decided before one of them commits.
		var both sync.WaitGroup
		both.Add(2)
		var seen sync.Map
		h.tap.on(func(u unit.Unit) error {
			if _, again := seen.LoadOrStore(u.Record.Actor.Subject, true); !again && u.Record.Type == "subject.changed" {
				both.Done()
				both.Wait()
			}
			return nil
		})
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i, c := range []*client{h.admin, second} {
			who, g := c.caller(), []*flow.Gate{h.gate, replica}[i]
			wg.Go(func() {
				_, errs[i] = g.ChangeSubject(ctx, who, who.Subject.ID, flow.SubjectChange{Act: "changed", Role: "auditor"})
			})
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("got %v and %v, want one of them refused", errs[0], errs[1])
		}
	}
}

func TestChangeSubject_LetsNobodyUnlockThemselvesByARequestInFlight(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	thief := h.stored(subject.Operator, "administrator", "thief")
	who := thief.caller()
	h.change(thief.id, "locked")
	for _, act := range []string{"unlocked", "changed"} {
		_, err := h.gate.ChangeSubject(ctx, who, thief.id, flow.SubjectChange{Act: act, Role: "administrator", Team: "x"})
		want(t, err, fault.Unauthenticated)
	}
	want(t, policyAs(h, who), fault.Unauthenticated)
	_, err := h.gate.Invite(ctx, who, flow.InviteRequest{Kind: subject.Operator, Role: "administrator"})
	want(t, err, fault.Unauthenticated)
	want(t, done(h.gate.RevokeCertificate(ctx, who, h.admin.serial, "revenge")), fault.Unauthenticated)
	held, err := h.store.Subject(ctx, thief.id)
	must(t, err)
	if held.State != subject.Locked {
		t.Fatalf("the subject is %s", held.State)
	}
	h.change(thief.id, "unlocked")
	thief.caller()
}

func policyAs(h *house, who flow.Caller) error {
	_, err := h.gate.SetPolicy(context.Background(), who, "mine", policy.Sallyport, "package sallyport\nrespond := {\"allow\": true}")
	return err
}

func TestChangeSubject_TakesNoStepThatIsNotAnOperators(t *testing.T) {
	h := newHouse(t)
	c := h.stored(subject.Agent, "deployer", "agent")
	for _, act := range []string{"attested", "stripped", "downgraded", "", "x.y\x00"} {
		_, err := h.gate.ChangeSubject(context.Background(), h.admin.caller(), c.id, flow.SubjectChange{Act: act})
		want(t, err, fault.Invalid)
	}
}

func TestRole_ActsOnTheNextRequest(t *testing.T) {
	ctx := context.Background()
	h, c := agentWith(t, newVendor(grant.EffectsNone))
	_, err := h.gate.ChangeSubject(ctx, h.admin.caller(), c.id, flow.SubjectChange{Act: "changed", Role: "reporter"})
	must(t, err)
	_, err = h.gate.Vend(ctx, c.caller(), request("test"))
	want(t, err, fault.Denied)
	_, err = h.gate.ChangeSubject(ctx, h.admin.caller(), c.id, flow.SubjectChange{Act: "changed", Role: "developer"})
	must(t, err)
	bare := *c
	bare.token = ""
	_, err = h.gate.OpenSession(ctx, bare.caller(), nil) // a role that nobody knows
	want(t, err, fault.Denied)
}

func TestPlugins_ARefusedPackageIsRecorded(t *testing.T) {
	h := newHouse(t)
	_, err := h.gate.InstallPlugin(context.Background(), h.admin.caller(), bytes.NewReader([]byte("no package")), flow.InstallRequest{})
	want(t, err, fault.Denied)
	refused := h.records("plugin.refused")
	count(t, len(refused), 1, "records")
	if refused[0].Outcome != audit.Denied || refused[0].Actor.Subject != h.admin.id {
		t.Fatalf("recorded %+v", refused[0])
	}
}

// judgeless is a depot that keeps by what it should judge, and refuses.
type judgeless struct {
	flow.Depot
	trust plugin.Trust
}

func (d *judgeless) Receive(_ context.Context, _ io.Reader, trust plugin.Trust) (flow.Parcel, error) {
	d.trust = trust
	return nil, plugin.Refuse(plugin.ReasonBadSignature, "no")
}

// TestUpload_IsJudgedForOthers uploads at a server that accepts packages of
// developers and is locked: what it publishes is run elsewhere.
func TestUpload_IsJudgedForOthers(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	d := &judgeless{}
	h.gate.Depot, h.gate.Development, h.gate.Locked = d, true, map[string]string{}
	opened, err := h.gate.OpenSession(ctx, h.admin.caller(), token.Scopes{"administer:package", "administer:package/*"})
	must(t, err)
	h.admin.token = string(opened.Token.Reveal())
	_, err = h.gate.UploadPackage(ctx, h.admin.caller(), bytes.NewReader(nil))
	want(t, err, fault.Denied)
	count(t, len(h.records("package.refused")), 1, "refusals")
	if d.trust.Now == nil || d.trust.Development || d.trust.Locked != nil {
		t.Errorf("judged by %+v", d.trust)
	}
}

func TestQueries_AreForWhomPolicyAllows(t *testing.T) {
	ctx := context.Background()
	h, c := agentWith(t, newVendor(grant.EffectsNone))
	out, err := h.gate.Vend(ctx, c.caller(), request("test"))
	must(t, err)
	mine, err := h.gate.Grants(ctx, c.caller(), grant.Filter{Subject: c.id})
	must(t, err)
	if len(mine) != 1 || mine[0].ID != out.Grant {
		t.Fatalf("listed %v", mine)
	}
	me, err := h.gate.Subject(ctx, c.caller(), c.id)
	must(t, err)
	if me.Subject.ID != c.id || len(me.Certificates) != 1 || len(me.Sessions) != 1 || len(me.Live) != 1 || me.Grants[grant.Active] != 1 {
		t.Fatal("an agent cannot read itself")
	}
	before := len(h.records(""))
	refused := map[string]func(flow.Caller) error{
		"subjects":   func(w flow.Caller) error { _, err := h.gate.Subjects(ctx, w, subject.Filter{}); return err },
		"subject":    func(w flow.Caller) error { _, err := h.gate.Subject(ctx, w, h.admin.id); return err },
		"grants":     func(w flow.Caller) error { _, err := h.gate.Grants(ctx, w, grant.Filter{}); return err },
		"policies":   func(w flow.Caller) error { _, err := h.gate.Policies(ctx, w); return err },
		"versions":   func(w flow.Caller) error { _, err := h.gate.PolicyVersions(ctx, w, "base"); return err },
		"explain":    func(w flow.Caller) error { _, err := h.gate.ExplainPolicy(ctx, w, "release", nil); return err },
		"audit":      func(w flow.Caller) error { _, err := h.gate.Audit(ctx, w, "list"); return err },
		"export":     func(w flow.Caller) error { _, err := h.gate.Audit(ctx, w, "export"); return err },
		"plugins":    func(w flow.Caller) error { _, _, err := h.gate.Plugins(ctx, w); return err },
		"publishers": func(w flow.Caller) error { _, err := h.gate.Publishers(ctx, w); return err },
		"resources":  func(w flow.Caller) error { _, err := h.gate.Resources(ctx, w, "", "", 0); return err },
		"put": func(w flow.Caller) error {
			_, err := h.gate.PutResource(ctx, w, []string{"a", "b", "c"}, secret.FromString("x"))
			return err
		},
		"read": func(w flow.Caller) error {
			_, _, err := h.gate.ReadResource(ctx, w, []string{"a", "b", "c"}, 0)
			return err
		},
		"history": func(w flow.Caller) error {
			_, err := h.gate.ResourceVersions(ctx, w, []string{"a", "b", "c"}, 0, 0)
			return err
		},
		"delete": func(w flow.Caller) error { return h.gate.DeleteResource(ctx, w, []string{"a", "b", "c"}, false) },
		"change": func(w flow.Caller) error {
			_, err := h.gate.ChangeSubject(ctx, w, h.admin.id, flow.SubjectChange{Act: "revoked"})
			return err
		},
		"certificate":    func(w flow.Caller) error { return done(h.gate.RevokeCertificate(ctx, w, h.admin.serial, "")) },
		"no certificate": func(w flow.Caller) error { return done(h.gate.RevokeCertificate(ctx, w, "00", "")) },
		"session":        func(w flow.Caller) error { return h.gate.EndSession(ctx, w, "01M83KZ46TQER6DG0ZVY5GDGA6", "") },
		"invite": func(w flow.Caller) error {
			_, err := h.gate.Invite(ctx, w, flow.InviteRequest{Kind: subject.Operator, Role: "administrator"})
			return err
		},
		"remove plugin": func(w flow.Caller) error { return h.gate.RemovePlugin(ctx, w, "x") },
		"distrust":      func(w flow.Caller) error { return h.gate.DistrustPublisher(ctx, w, "x") },
		"install": func(w flow.Caller) error {
			_, err := h.gate.InstallPlugin(ctx, w, bytes.NewReader(nil), flow.InstallRequest{})
			return err
		},
	}
	for name, ask := range refused {
		if err := ask(c.caller()); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	count(t, len(h.records(""))-before, len(refused), "denials recorded")
	_, err = h.gate.Audit(ctx, h.stored(subject.Operator, "auditor", "auditor").caller(), "export")
	must(t, err)
	count(t, len(h.records("ledger.read")), 3, "exports and refusals recorded")
}

func TestVend_WaitsForNoPolicyThatIsNotLoaded(t *testing.T) {
	h, c := agentWith(t, newVendor(grant.EffectsNone))
	who := c.caller()
	g, err := flow.New(h.gate.Config)
	must(t, err)
	_, err = g.Vend(context.Background(), who, request("test"))
	want(t, err, fault.Unavailable)
	_ = time.Second
}

// TestChangeSubject_ShowsPolicyWhatItMakesOfThem: who may move people among teams
// gives nobody a role, least of all their own.
func TestChangeSubject_ShowsPolicyWhatItMakesOfThem(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	must(t, policyIs(h, "desk", `package sallyport
administer := {"allow": true} if {
	input.subject.role == "desk"
	input.action == "changed"
	input.target.kind in {"agent", "operator"}
	not input.request.role
	input.request.team in {"red", "blue"}
}
`))
	desk, agent := h.stored(subject.Operator, "desk", "desk"), h.stored(subject.Agent, "deployer", "agent")
	change := func(id string, c flow.SubjectChange) error {
		c.Act = "changed"
		return done(h.gate.ChangeSubject(ctx, desk.caller(), id, c))
	}
	must(t, change(agent.id, flow.SubjectChange{Team: "red"}))
	for name, c := range map[string]flow.SubjectChange{
		"a role": {Role: "administrator"}, "a role with a team": {Role: "administrator", Team: "red"}, "another team": {Team: "black"}, "nothing": {},
	} {
		for _, id := range []string{desk.id, agent.id} {
			if err := change(id, c); !fault.Is(err, fault.Denied) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
