package policy

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestSet_Explain(t *testing.T) {
	s := mustCompile(t,
		doc("a", "deployer if {\n\tinput.subject.kind == \"agent\"\n\tinput.subject.role == \"deployer\"\n}\n"+strings.Replace(sshAllow, `input.subject.role == "deployer"`, "deployer", 1)),
		doc("broken", `release := {"allow": false} if to_number(input.subject.name) == 1`),
		doc("nonsense", `release := x if some x in [{"allow": 1}]`),
		doc("silent", "release := {\"allow\": false} if {\n\tinput.subject.kind == \"agent\"\n\tinput.subject.role == \"guest\"\n}"),
		doc("veto", `release := {"allow": false, "reasons": ["no"]}`),
	)
	in := request()
	e, err := s.Explain(context.Background(), "release", in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(decide(t, s, "release", in), e.Decision); diff != "" {
		t.Errorf("explain and decide differ: %s", diff)
	}
	var votes []Vote
	for _, d := range e.Documents {
		votes = append(votes, d.Vote)
	}
	if diff := cmp.Diff([]Vote{Allows, Breaks, Breaks, Silent, Denies}, votes); diff != "" {
		t.Error(diff)
	}
	want := []RuleTrace{{Rule: "release", Line: 2, FailedLine: 4, Failed: `input.subject.role == "guest"`}}
	if diff := cmp.Diff(want, e.Documents[3].Rules); diff != "" {
		t.Error(diff)
	}
	for _, r := range e.Documents[0].Rules {
		if !r.Succeeded || r.Failed != "" {
			t.Errorf("rule of an allow: %+v", r)
		}
	}
	if len(e.Documents[0].Rules) != 2 || e.Documents[0].Bounds == nil || e.Documents[0].Answer == nil {
		t.Errorf("allow: %+v", e.Documents[0])
	}
	if !strings.Contains(e.Documents[1].Error, "line 2") {
		t.Errorf("error %q", e.Documents[1].Error)
	}
	text, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(text), `"max_ttl_seconds":900`) {
		t.Errorf("JSON %s, %v", text, err)
	}
}

func TestSet_Explain_faults(t *testing.T) {
	s := mustCompile(t, doc("a", sshAllow))
	if _, err := s.Explain(context.Background(), "destroy", request()); !fault.Is(err, fault.Invalid) {
		t.Errorf("unknown verb: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Explain(ctx, "release", request()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestTest_reportsEachRule(t *testing.T) {
	document := Document{Name: "ssh", Kind: Sallyport, Source: ExampleSSH()}
	tests := Document{Name: "ssh_test", Source: `package sallyport_test

agent := {"kind": "agent", "role": "deployer", "state": "registered"}

asked := {"subject": agent, "request": {"kind": "ssh-user-cert"}}

test_deployer_may_log_in if data.sallyport.release.allow with input as asked

test_ttl_is_bounded if {
	answer := data.sallyport.release with input as asked
	answer.bounds.max_ttl_seconds == 60
}

test_deployer_is_admitted if {
	data.sallyport.admit.allow with input as {"subject": agent, "evidence": {"kind": "certificate", "verified": true}}
}

test_breaks if to_number("x") == 1

todo_test_later if false

not_a_test if false
`}
	r, err := Test(context.Background(), []Document{document}, []Document{tests}, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []TestResult{
		{Document: "ssh_test", Name: "test_deployer_may_log_in", Line: 7, Outcome: Pass},
		{Document: "ssh_test", Name: "test_ttl_is_bounded", Line: 9, Outcome: Fail, At: 11, Detail: "answer.bounds.max_ttl_seconds == 60"},
		{Document: "ssh_test", Name: "test_deployer_is_admitted", Line: 14, Outcome: Pass},
		{Document: "ssh_test", Name: "test_breaks", Line: 18, Outcome: Fail, At: 18, Detail: `to_number: strconv.ParseFloat: parsing "x": invalid syntax`},
		{Document: "ssh_test", Name: "todo_test_later", Line: 20, Outcome: Skip},
	}
	if diff := cmp.Diff(want, r.Results); diff != "" {
		t.Error(diff)
	}
	if r.Passed != 2 || r.Failed != 2 || r.Skipped != 1 || r.OK() {
		t.Errorf("counts %+v", r)
	}
	if len(r.Coverage) != 1 || r.Coverage[0].Percent != 100 {
		t.Errorf("coverage %+v", r.Coverage)
	}
}

func TestTest_ofForeignKinds(t *testing.T) {
	documents := Installed(noon)
	tests := []Document{
		{Name: "resource-policy_test", Source: `package policy
test_refuses_sample if not allow with data.plugin as "resource" with input as {"submods": {"cpu0": {"ear.veraison.annotated-evidence": {"sample": {}}}}}
test_allows_snp if allow with data.plugin as "resource" with input as {"submods": {"cpu0": {"ear.status": "warning", "ear.veraison.annotated-evidence": {"snp": {}}}}}
`},
		{Name: "default_cpu_test", Source: `package policy_test
values(id) := {"launch_digest": ["abcde"]}[id]
test_known_digest if {
	data.policy.trust_claims.executables == 3 with input as {"sample": {"launch_digest": "abcde"}} with query_reference_value as values
}
`},
	}
	r, err := Test(context.Background(), documents, tests, time.Second)
	if err != nil || !r.OK() || r.Passed != 3 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestTest_faults(t *testing.T) {
	one := doc("a", sshAllow)
	endless := "package sallyport\ntest_endless if {\n\tsome a in numbers.range(1, 100000)\n\tsome b in numbers.range(1, 100000)\n\ta * b == -1\n}"
	tests := map[string]struct {
		documents, tests []Document
		want             fault.Kind
	}{
		"broken document":      {[]Document{doc("a", "release := {")}, nil, fault.Invalid},
		"broken tests":         {[]Document{one}, []Document{{Name: "a_test", Source: "package sallyport\ntest_x if {"}}, fault.Invalid},
		"tests of nothing":     {[]Document{one, doc("b", sshAllow)}, []Document{{Name: "c_test", Source: "package sallyport\ntest_x if true"}}, fault.Invalid},
		"tests named like it":  {[]Document{one}, []Document{{Name: "a", Source: "package sallyport\ntest_x if true"}}, fault.Invalid},
		"another package":      {[]Document{one}, []Document{{Name: "a_test", Source: "package other\ntest_x if true"}}, fault.Invalid},
		"outside the sandbox":  {[]Document{one}, []Document{{Name: "a_test", Source: "package sallyport\ntest_x if http.send({})"}}, fault.Invalid},
		"reference to nothing": {[]Document{one}, []Document{{Name: "a_test", Source: "package sallyport\ntest_x if nobody"}}, fault.Invalid},
		"same document twice":  {[]Document{one, one}, nil, fault.Invalid},
		"no end":               {[]Document{one}, []Document{{Name: "a_test", Source: endless}}, fault.Unavailable},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Test(context.Background(), tt.documents, tt.tests, 300*time.Millisecond); !fault.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if r, err := Test(context.Background(), []Document{one}, nil, 0); err != nil || r.OK() {
		t.Errorf("nothing to run counts as %+v, %v", r, err)
	}
}
