package flow_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/token"
)

// backend is an external plugin, and a protocol of what happened around it.
type backend struct {
	rules       external.Rules
	admin, seal bool
	answer      external.Response
	fails       string // the call that fails
	replaced    string // the call before which another package comes, by the rules next
	next        external.Rules
	within      func() // what happens while it handles a request
	said        []string
	context     string // what Handle was told of the caller
}

func (b *backend) Open() bool { return true }

func (b *backend) Find(name string) (external.Backend, error) {
	if name != "x" {
		return nil, fault.NotFoundf("no plugin answers below this name")
	}
	return b, nil
}

func (b *backend) About() external.About {
	return external.About{Name: "x", Source: "a test", Rules: b.rules}
}

func (b *backend) called(name string) error {
	if b.replaced == name {
		b.replaced, b.rules = "", b.next
		return fault.Unavailablef("plugin x was replaced").Because(external.ErrReplaced)
	}
	b.said = append(b.said, name)
	if b.fails == name {
		return fault.Unavailablef("plugin x cannot be reached")
	}
	return nil
}

func (b *backend) ValidateAuth(_ context.Context, r external.Request) (bool, error) {
	if r.Context != "" {
		b.said = append(b.said, "context")
	}
	return b.admin, b.called("ValidateAuth")
}

func (b *backend) Handle(_ context.Context, r external.Request) (external.Response, error) {
	b.context = r.Context
	if b.within != nil {
		b.within()
	}
	a := b.answer
	a.Body = bytes.Clone(a.Body)
	return a, b.called("Handle")
}

func (b *backend) NeedsEncryption(_ context.Context, r external.Request) (bool, error) {
	if r.Context != "" {
		b.said = append(b.said, "context")
	}
	return b.seal, b.called("NeedsEncryption")
}

// ask sends a request with an operator and a guest that would both be recognised,
// if they are not nil.
func (b *backend) ask(h *house, operator *client, g *guest, method string) (flow.ExternalAnswer, error) {
	return h.gate.External(context.Background(), flow.ExternalCall{
		Name: "x", Request: external.Request{Method: method, Path: []string{"a", ""}, Query: map[string]string{"secret": "canary"}, Body: []byte("canary")},
		Operator: func(context.Context) (flow.Caller, error) {
			b.said = append(b.said, "operator")
			if operator == nil {
				return flow.Caller{}, fault.Unauthenticatedf("no operator")
			}
			return operator.caller(), nil
		},
		Guest: func(ctx context.Context) (flow.Caller, token.Attested, error) {
			b.said = append(b.said, "guest")
			if g == nil {
				return flow.Caller{}, token.Attested{}, fault.Unauthenticatedf("no guest")
			}
			return h.gate.Guest(ctx, g.cookie, "", "192.0.2.50", method)
		},
	})
}

func externalHouse(t *testing.T) (*house, *backend, *guest) {
	t.Helper()
	b := &backend{seal: true, answer: external.Response{Body: []byte("the answer"), Status: 200}}
	h := newHouse(t, func(c *flow.Config) { c.Backends = b })
	g := h.guest()
	must(t, g.attest())
	h.resourcePolicy(policy.ResourceAllowAll())
	return h, b, g
}

func floor(f string, methods ...string) external.Rules {
	return external.Rules{Declared: &manifest.KBS{Routes: []manifest.KBSRoute{{Methods: methods, Floor: f}}}}
}

// A package that is replaced in the middle: what is asked of the caller and what
// answers are of one package.
func TestExternal_BeginsAgainWhenThePackageIsReplaced(t *testing.T) {
	for _, at := range []string{"ValidateAuth", "Handle"} {
		h, b, g := externalHouse(t)
		b.rules, b.next, b.replaced = floor(manifest.FloorPublic), floor(manifest.FloorAdmin), at
		if _, err := b.ask(h, nil, g, "GET"); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("replaced before %s, the new package's floor does not count: %v", at, err)
		}
		if slices.Contains(b.said, "Handle") {
			t.Errorf("replaced before %s, the new package answers under the old floor: %v", at, b.said)
		}
		b.rules, b.next, b.replaced, b.said = floor(manifest.FloorAdmin), floor(manifest.FloorAdmin), at, nil
		if out, err := b.ask(h, h.admin, g, "POST"); err != nil || string(out.Response.Body) != "the answer" {
			t.Errorf("an upgrade before %s fails a call: %v", at, err)
		}
	}
	// It has answered, and can be asked no more whether that is sealed.
	h, b, g := externalHouse(t)
	b.seal, b.rules, b.next, b.replaced = false, floor(manifest.FloorAttested), floor(manifest.FloorAttested), "NeedsEncryption"
	if out, err := b.ask(h, nil, g, "POST"); err != nil || out.Sealed == nil || strings.Count(strings.Join(b.said, " "), "Handle") != 1 {
		t.Errorf("replaced after the answer: %+v, %v, %v", out, err, b.said)
	}
}

// The order in which things happen, call by call: golden transcripts.
func TestExternal_AsksInOrder(t *testing.T) {
	h, b, g := externalHouse(t)
	for name, c := range map[string]struct {
		rules       external.Rules
		admin, seal bool
		want        string
	}{
		"as Trustee, for guests":                      {want: "ValidateAuth guest Handle NeedsEncryption", seal: true},
		"as Trustee, for guests, raw":                 {want: "ValidateAuth guest Handle NeedsEncryption"},
		"as Trustee, for administrators":              {want: "ValidateAuth operator Handle", admin: true, seal: true},
		"floor attested: before anything is sent":     {rules: floor("attested"), want: "guest ValidateAuth Handle NeedsEncryption", seal: true},
		"floor attested, and the plugin tightens":     {rules: floor("attested"), want: "guest ValidateAuth operator Handle NeedsEncryption", admin: true, seal: true},
		"floor admin: before anything is sent":        {rules: floor("admin"), want: "operator ValidateAuth Handle"},
		"floor public":                                {rules: floor("public"), want: "ValidateAuth Handle"},
		"floor public, and the plugin tightens":       {rules: floor("public"), want: "ValidateAuth operator Handle", admin: true},
		"encrypt always: the plugin is not asked":     {rules: external.Rules{Configured: &manifest.KBS{Encrypt: "always"}}, want: "ValidateAuth guest Handle"},
		"encrypt always is not about administrators":  {rules: external.Rules{Configured: &manifest.KBS{Encrypt: "always"}}, admin: true, want: "ValidateAuth operator Handle"},
		"a floor of another method: the plugin's own": {rules: floor("public", "PUT"), want: "ValidateAuth guest Handle NeedsEncryption"},
	} {
		t.Run(name, func(t *testing.T) {
			b.rules, b.admin, b.seal, b.said = c.rules, c.admin, c.seal, nil
			out, err := b.ask(h, h.admin, g, "GET")
			must(t, err)
			if got := strings.Join(b.said, " "); got != c.want {
				t.Errorf("it went %s, want %s", got, c.want)
			}
			sealed := strings.Contains(c.want, "guest") && (c.seal || strings.HasPrefix(name, "encrypt always"))
			if (out.Sealed != nil) != sealed {
				t.Fatalf("sealed: %v", out.Sealed)
			}
			plain := out.Response.Body
			if sealed {
				if len(plain) > 0 {
					t.Error("the body stands beside the sealed one")
				}
				opened, err := seal.Open(g.key, *out.Sealed)
				must(t, err)
				plain = opened.Reveal()
			}
			if string(plain) != "the answer" {
				t.Errorf("the answer is %q", plain)
			}
		})
	}
}

// Where a step fails, nothing after it happens.
func TestExternal_StopsWhereAStepFails(t *testing.T) {
	h, b, g := externalHouse(t)
	for name, c := range map[string]struct {
		change     func()
		noOperator bool
		noGuest    bool
		step       flow.Step
		said       string
	}{
		"ValidateAuth fails":          {change: func() { b.fails = "ValidateAuth" }, step: flow.StepPlugin, said: "ValidateAuth"},
		"no administrator":            {change: func() { b.admin = true }, noOperator: true, step: flow.StepOperator, said: "ValidateAuth operator"},
		"no guest":                    {noGuest: true, step: flow.StepGuest, said: "ValidateAuth guest"},
		"floor attested, no guest":    {change: func() { b.rules = floor("attested") }, noGuest: true, step: flow.StepGuest, said: "guest"},
		"floor admin, nobody":         {change: func() { b.rules = floor("admin") }, noOperator: true, step: flow.StepOperator, said: "operator"},
		"both, the operator missing":  {change: func() { b.rules, b.admin = floor("attested"), true }, noOperator: true, step: flow.StepOperator, said: "guest ValidateAuth operator"},
		"Handle fails":                {change: func() { b.fails = "Handle" }, step: flow.StepPlugin, said: "ValidateAuth guest Handle"},
		"a status that is none":       {change: func() { b.answer.Status = 99 }, step: flow.StepPlugin, said: "ValidateAuth guest Handle"},
		"a refusal":                   {change: func() { b.answer.Status = 403 }, step: flow.StepPlugin, said: "ValidateAuth guest Handle"},
		"a status that is none, rich": {change: func() { b.answer.Status, b.rules.Rich = 1000, true }, step: flow.StepPlugin, said: "ValidateAuth guest Handle"},
		"NeedsEncryption fails":       {change: func() { b.fails = "NeedsEncryption" }, step: flow.StepPlugin, said: "ValidateAuth guest Handle NeedsEncryption"},
	} {
		t.Run(name, func(t *testing.T) {
			*b = backend{seal: true, answer: external.Response{Body: []byte("canary"), Status: 200}}
			if c.change != nil {
				c.change()
			}
			operator, who := h.admin, g
			if c.noOperator {
				operator = nil
			}
			if c.noGuest {
				who = nil
			}
			_, err := b.ask(h, operator, who, "GET")
			step, ok := errors.AsType[*flow.StepError](err)
			if !ok || step.Step != c.step || strings.Contains(fault.Public(err), "canary") {
				t.Errorf("got %v in %+v", err, step)
			}
			if diff := cmp.Diff(c.said, strings.Join(b.said, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
	h.resourcePolicy(policy.ResourceDenyAll())
	*b = backend{}
	_, err := b.ask(h, h.admin, g, "GET")
	if step, ok := errors.AsType[*flow.StepError](err); !ok || step.Step != flow.StepPolicy || !fault.Is(err, fault.Denied) {
		t.Errorf("policy denies: %v", err)
	}
	if got := strings.Join(b.said, " "); got != "ValidateAuth guest" {
		t.Errorf("policy denies after %s", got)
	}
}

// Each call is in the ledger twice, decision and answer, without what it said.
func TestExternal_IsRecordedWithoutSecrets(t *testing.T) {
	h, b, g := externalHouse(t)
	_, err := b.ask(h, h.admin, g, "GET")
	must(t, err)
	b.answer.Status = 500
	_, err = b.ask(h, h.admin, g, "POST")
	want(t, err, fault.Unavailable)
	b.answer.Status, b.admin = 0, true
	_, err = b.ask(h, h.admin, g, "DELETE")
	must(t, err)
	called, answered := h.records("external.called"), h.records("external.answered")
	count(t, len(called), 3, "decisions")
	count(t, len(answered), 3, "answers")
	if r := called[0]; r.Target != "x/a/" || r.Actor.Kind != "workload" || r.Data["method"] != "GET" || r.Data["source"] != "a test" || len(r.Policy) == 0 || r.Subject == "" {
		t.Errorf("recorded %+v", r)
	}
	for i, want := range []string{"done 200 true", "failed 500 ", "done 0 false"} {
		r := answered[i]
		if got := string(r.Outcome) + " " + r.Data["status"] + " " + r.Data["sealed"]; got != want {
			t.Errorf("recorded %s, want %s", got, want)
		}
	}
	if answered[2].Actor.Kind != "operator" || answered[2].Actor.Subject != h.admin.caller().Subject.ID {
		t.Errorf("the operator's call is recorded as %+v", answered[2].Actor)
	}
	for _, r := range h.records("") {
		for _, v := range append(append([]string{r.Target}, r.Reasons...), values(r.Data)...) {
			if strings.Contains(v, "canary") {
				t.Errorf("%s records a secret: %s", r.Type, v)
			}
		}
	}
	before := len(h.records(""))
	b.admin, b.rules = false, floor("public")
	_, err = b.ask(h, nil, nil, "GET")
	must(t, err)
	count(t, len(h.records("")), before, "records; requests of nobody write none")
}

func values(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// What changes while the plugin works counts: the answer does not leave.
func TestExternal_JudgesAgainBeforeTheAnswer(t *testing.T) {
	h, b, g := externalHouse(t)
	b.within = func() { h.resourcePolicy(policy.ResourceDenyAll()) }
	_, err := b.ask(h, h.admin, g, "GET")
	want(t, err, fault.Denied)
	h.resourcePolicy(policy.ResourceAllowAll())
	b.within = func() {
		who, _, err := h.gate.Guest(context.Background(), g.cookie, "", "192.0.2.50", "GET")
		must(t, err)
		_, err = h.gate.ChangeSubject(context.Background(), h.admin.caller(), who.Subject.ID, flow.SubjectChange{Act: "locked", Reason: "a test"})
		must(t, err)
	}
	if _, err = b.ask(h, h.admin, g, "GET"); err == nil {
		t.Fatal("a workload that was locked meanwhile gets the answer")
	}
}

func TestExternal_KnowsNothing(t *testing.T) {
	h, b, _ := externalHouse(t)
	_, err := h.gate.External(context.Background(), flow.ExternalCall{Name: "y"})
	if step, ok := errors.AsType[*flow.StepError](err); !ok || step.Step != flow.StepPlugin {
		t.Errorf("an unknown name: %v", err)
	}
	bare := newHouse(t)
	_, err = bare.gate.External(context.Background(), flow.ExternalCall{Name: "x"})
	if step, ok := errors.AsType[*flow.StepError](err); !ok || step.Step != flow.StepFind {
		t.Errorf("nothing is configured: %v", err)
	}
	if len(b.said) > 0 {
		t.Errorf("asked %v", b.said)
	}
}
