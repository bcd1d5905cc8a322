package policy

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
)

const sshAllow = `release := {"allow": true, "bounds": {"kind": "ssh-user-cert", "max_params": {"principals": ["deploy", "root"]}, "max_ttl_seconds": 900}, "reasons": ["deployer"]} if input.subject.role == "deployer"`

func decide(t testing.TB, s *Set, verb string, input map[string]any) Decision {
	t.Helper()
	d, err := s.Decide(context.Background(), verb, input)
	if err != nil {
		t.Fatalf("decide: %v", err)
	}
	return d
}

func TestSet_Decide(t *testing.T) {
	freeze := doc("freeze", `release := {"allow": false, "reasons": ["freeze"]}`)
	tests := []struct {
		name      string
		documents []Document
		input     map[string]any
		want      Decision
	}{
		{"denies without documents", nil, request(), Decision{Reasons: []string{"no policy allows this"}}},
		{
			"denies when nobody has an opinion",
			[]Document{doc("a", sshAllow)},
			request(object{"subject": object{"role": "reader"}}),
			Decision{Reasons: []string{"no policy allows this"}},
		},
		{
			"allows within bounds",
			[]Document{doc("a", sshAllow)},
			request(),
			Decision{Allow: true, Documents: []string{"a@1"}, Reasons: []string{"deployer"}, Bounds: Bounds{
				Kind: "ssh-user-cert", MaxTTL: 15 * time.Minute, MaxParams: object{"principals": []any{"deploy", "root"}},
			}},
		},
		{
			"denies when one vetoes",
			[]Document{doc("a", sshAllow), freeze},
			request(),
			Decision{Documents: []string{"a@1", "freeze@1"}, Reasons: []string{"freeze"}},
		},
		{
			"narrows to what all allow",
			[]Document{
				doc("a", sshAllow),
				doc("b", `release := {"allow": true, "bounds": {"kind": "ssh-user-cert", "max_params": {"principals": {"deploy"}, "pty": false}, "max_ttl_seconds": 60}}`),
			},
			request(),
			Decision{Allow: true, Documents: []string{"a@1", "b@1"}, Reasons: []string{"deployer"}, Bounds: Bounds{
				Kind: "ssh-user-cert", MaxTTL: time.Minute, MaxParams: object{"principals": []any{"deploy"}, "pty": false},
			}},
		},
		{
			"denies when kinds disagree",
			[]Document{doc("a", sshAllow), doc("b", `release := {"allow": true, "bounds": {"kind": "github-pat", "max_ttl_seconds": 60}}`)},
			request(),
			Decision{Documents: []string{"a@1", "b@1"}, Reasons: []string{"the policies allow different kinds"}},
		},
		{
			"denies a kind that was not asked for",
			[]Document{doc("a", sshAllow)},
			request(object{"request": object{"kind": "github-pat"}}),
			Decision{Documents: []string{"a@1"}, Reasons: []string{"the policies allow another kind of credential"}},
		},
		{
			"denies a release that names no kind",
			[]Document{doc("a", sshAllow)},
			request(object{"request": object{"kind": nil}}),
			Decision{Documents: []string{"a@1"}, Reasons: []string{"the policies allow another kind of credential"}},
		},
		{
			"does not let documents share rules",
			[]Document{doc("a", "trusted := true\nrespond := {\"allow\": false} if false"), doc("b", `release := {"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60}} if data.sallyport.trusted`)},
			request(),
			Decision{Reasons: []string{"no policy allows this"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, decide(t, mustCompile(t, tt.documents...), "release", tt.input)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever a document answers that is not exactly the contract is a refusal,
// also while another document allows.
func TestSet_Decide_failsClosedOnMalformedAnswers(t *testing.T) {
	good := doc("good", sshAllow)
	// x hides each value from the checks made when a document is set.
	wrap := func(expr string) string {
		return "x(v) := v if input.action\nrelease := x(" + expr + ")"
	}
	answers := []string{
		`true`, `"allow"`, `1`, `null`, `[]`, `{}`, `{"allow": "true"}`, `{"allow": 1}`, `{"allow": null}`, `{"alow": true}`,
		`{"allow": true}`, `{"allow": true, "extra": 1}`, `{"allow": true, "bounds": []}`, `{"allow": true, "bounds": {}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert"}}`,
		`{"allow": true, "bounds": {"max_ttl_seconds": 60}}`,
		`{"allow": true, "bounds": {"kind": "", "max_ttl_seconds": 60}}`,
		`{"allow": true, "bounds": {"kind": 1, "max_ttl_seconds": 60}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 0}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": -1}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 1.5}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": "60"}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 31536001}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 1e30}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60, "max_uses": 1}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60, "max_params": []}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60, "max_params": {"a": null}}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60, "max_params": {"a": {}}}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60, "max_params": {"a": [1]}}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60, "max_params": {"a": 9007199254740993}}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60, "max_params": {1: "a"}}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60, "max_params": {"": "a"}}}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60}, "reasons": "because"}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60}, "reasons": [1]}`,
		`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60}, "reasons": ["` + strings.Repeat("a", 2000) + `"]}`,
		`{"allow": false, "bounds": 3}`, `{1: true}`, `{"allow": true, 1: 2}`,
	}
	for _, a := range answers {
		t.Run(a, func(t *testing.T) {
			d := decide(t, mustCompile(t, doc("bad", wrap(a)), good), "release", request())
			if d.Allow || len(d.Reasons) == 0 || !cmp.Equal(d.Documents, []string{"bad@1", "good@1"}) {
				t.Errorf("got %+v, want a refusal by bad@1", d)
			}
		})
	}
	// The wrapper itself must not be what refuses.
	d := decide(t, mustCompile(t, doc("bad", wrap(`{"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60}}`)), good), "release", request())
	if !d.Allow {
		t.Errorf("a well-formed answer was refused: %+v", d)
	}
}

func TestSet_Decide_deniesWhenADocumentBreaks(t *testing.T) {
	tests := map[string]string{
		"contradiction": `release := {"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60}} if input.action
release := {"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 61}} if input.action`,
		"allow against deny": `release := {"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60}} if input.action
release := {"allow": false} if input.action`,
		"builtin error": `release := {"allow": false} if to_number(input.subject.name) == 1`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			d := decide(t, mustCompile(t, doc("bad", text), doc("good", sshAllow)), "release", request(object{"subject": object{"name": "canary-7f"}}))
			if d.Allow || len(d.Reasons) != 1 || !strings.Contains(d.Reasons[0], "bad@1 breaks on this request at line") {
				t.Errorf("got %+v", d)
			}
			if strings.Contains(strings.Join(d.Reasons, ""), "canary-7f") {
				t.Errorf("the reasons quote the input: %v", d.Reasons)
			}
		})
	}
}

// A policy can limit where a request comes from, and what cannot be read as an
// address breaks the document: a veto, never an allow.
func TestSet_Decide_limitsSourceAddresses(t *testing.T) {
	const text = `release := {"allow": true, "bounds": {"kind": "ssh-user-cert", "max_ttl_seconds": 60}} if {
	some zone in ["10.0.0.0/8", "2001:db8::/32"]
	net.cidr_contains(zone, input.context.address)
}`
	s := mustCompile(t, doc("zone", text))
	for address, allowed := range map[string]bool{
		"10.0.0.7": true, "10.255.255.255": true, "11.0.0.1": false, "192.0.2.1": false, "2001:db8::1": true, "2001:db9::1": false,
		"::ffff:10.0.0.7": true, "10.0.0.0/9": true, "10.0.0.0/7": false, "0.0.0.0/0": false,
		"": false, "localhost": false, "10.0.0": false, "010.0.0.7": false, "10.0.0.7 ": false, "10.0.0.7:443": false,
	} {
		d := decide(t, s, "release", request(object{"context": object{"address": address}}))
		if d.Allow != allowed {
			t.Errorf("from %q: %+v", address, d)
		}
	}
}

func TestSet_Decide_stopsInTime(t *testing.T) {
	const endless = `respond := {"allow": true} if {
	some a in numbers.range(1, 100000)
	some b in numbers.range(1, 100000)
	a * b == -1
}`
	s, err := Compile([]Document{doc("endless", endless), doc("good", `respond := {"allow": true}`)}, clock)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	d, err := s.Decide(context.Background(), "respond", request())
	if !fault.Is(err, fault.Unavailable) || d.Allow {
		t.Fatalf("got %+v, %v; want Unavailable", d, err)
	}
	if took := time.Since(begun); took > 20*Limit {
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if d, err := s.Decide(ctx, "respond", request()); !fault.Is(err, fault.Unavailable) || d.Allow {
		t.Errorf("cancelled: got %+v, %v; want Unavailable", d, err)
	}
}

func TestSet_Decide_refusesWrongQuestions(t *testing.T) {
	s := mustCompile(t, doc("a", sshAllow))
	tests := map[string]struct {
		verb  string
		input map[string]any
	}{
		"unknown verb":   {"destroy", request()},
		"helper as verb": {"data", request()},
		"no time":        {"release", request(object{"context": object{"time": nil}})},
		"wrong time":     {"release", request(object{"context": object{"time": "yesterday"}})},
		"nil input":      {"release", nil},
		"not JSON":       {"release", request(object{"subject": object{"x": make(chan int)}})},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if d, err := s.Decide(context.Background(), tt.verb, tt.input); !fault.Is(err, fault.Invalid) || d.Allow {
				t.Errorf("got %+v, %v; want Invalid", d, err)
			}
		})
	}
}

// The time that documents see is the request's, so that a decision can be
// repeated from its input.
func TestSet_Decide_takesTimeFromTheRequest(t *testing.T) {
	s := mustCompile(t, doc("hours", `respond := {"allow": true} if time.clock(time.now_ns())[0] < 18`))
	at := func(hour string) bool {
		return decide(t, s, "respond", request(object{"context": object{"time": "2026-03-01T" + hour + ":00:00Z"}})).Allow
	}
	if !at("17") || at("19") {
		t.Errorf("17:00 %v, 19:00 %v; want true, false", at("17"), at("19"))
	}
}

func TestSet_Decide_isSafeForConcurrentUse(t *testing.T) {
	s := mustCompile(t, append(Installed(noon), doc("a", sshAllow))...)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			role := []string{"deployer", "reader"}[i%2]
			for range 50 {
				d, err := s.Decide(context.Background(), "release", request(object{"subject": object{"role": role}}))
				if err != nil || d.Allow != (role == "deployer") {
					t.Errorf("%s: %+v, %v", role, d, err)
					return
				}
				r, err := s.ResourceAllowed(context.Background(), ResourceRequest{Plugin: "resource", Path: []string{"a", "b", role}}, Claims{Members: snpClaims()})
				if err != nil || !r.Allow {
					t.Errorf("resource: %+v, %v", r, err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestSet_CanAdminister(t *testing.T) {
	ask := func(role string) map[string]any {
		return request(object{"subject": object{"kind": "operator", "role": role}, "action": "set", "target": object{"kind": "policy"}})
	}
	ctx := context.Background()
	base := Installed(noon)
	t.Run("accepts when one of them may", func(t *testing.T) {
		if err := mustCompile(t, base...).CanAdminister(ctx, []map[string]any{ask("auditor"), ask("administrator")}); err != nil {
			t.Error(err)
		}
	})
	refused := map[string]struct {
		set    *Set
		inputs []map[string]any
	}{
		"nobody has the role": {mustCompile(t, base...), []map[string]any{ask("auditor")}},
		"nobody is asked":     {mustCompile(t, base...), nil},
		"no documents":        {mustCompile(t), []map[string]any{ask("administrator")}},
		"a veto":              {mustCompile(t, append(base, doc("veto", `administer := {"allow": false}`))...), []map[string]any{ask("administrator")}},
		"a document breaks":   {mustCompile(t, append(base, doc("veto", `administer := {"allow": true} if to_number("x") == 1`))...), []map[string]any{ask("administrator")}},
		"another question":    {mustCompile(t, base...), []map[string]any{request(object{"target": object{"kind": "audit"}})}},
	}
	for name, tt := range refused {
		t.Run("refuses when "+name, func(t *testing.T) {
			if err := tt.set.CanAdminister(ctx, tt.inputs); !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want Invalid", err)
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	in := request()
	run := func(b *testing.B, s *Set, allow bool) {
		b.ReportAllocs()
		for b.Loop() {
			if d, err := s.Decide(context.Background(), "release", in); err != nil || d.Allow != allow {
				b.Fatal(d, err)
			}
		}
	}
	b.Run("one", func(b *testing.B) {
		run(b, mustCompile(b, append(Installed(noon), Document{Name: "ssh", Version: 1, Kind: Sallyport, Source: exampleSSH})...), true)
	})
	b.Run("five", func(b *testing.B) {
		var all []Document
		for _, n := range []string{"a", "b", "c", "d", "e"} {
			all = append(all, doc(n, sshAllow))
		}
		run(b, mustCompile(b, all...), true)
	})
	for name, token := range map[string]string{"resource": "", "resource again": "token"} {
		b.Run(name, func(b *testing.B) {
			s, claims := mustCompile(b, Installed(noon)...), Claims{token, snpClaims()}
			b.ReportAllocs()
			for b.Loop() {
				if d, err := s.ResourceAllowed(context.Background(), ResourceRequest{Plugin: "resource", Path: []string{"a", "b", "c"}}, claims); err != nil || !d.Allow {
					b.Fatal(d, err)
				}
			}
		})
	}
}
