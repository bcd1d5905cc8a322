package policy

import (
	"context"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestInstalled_decides(t *testing.T) {
	operator := func(role string) object { return object{"subject": object{"kind": "operator", "role": role}} }
	subject := func(kind, role, state string) object {
		return object{"subject": object{"kind": kind, "role": role, "state": state}}
	}
	target := func(action, kind string) object { return object{"action": action, "target": object{"kind": kind}} }
	evidence := func(kind string, verified any, role string) object {
		return object{"evidence": object{"kind": kind, "verified": verified, "role": role}}
	}
	tests := []struct {
		name, verb string
		change     []map[string]any
		want       bool
	}{
		{"administrator sets a policy", "administer", []object{operator("administrator"), target("set", "policy")}, true},
		{"administrator locks an agent", "administer", []object{operator("administrator"), target("lock", "agent")}, true},
		{"administrator stores a secret", "administer", []object{operator("administrator"), target("put", "resource")}, true},
		{"administrator does not read a secret", "administer", []object{operator("administrator"), target("read", "resource")}, false},
		{"locked administrator does nothing", "administer", []object{subject("operator", "administrator", "locked"), target("set", "policy")}, false},
		{"revoked administrator does nothing", "administer", []object{subject("operator", "administrator", "revoked"), target("set", "policy")}, false},
		{"administrator without a state does nothing", "administer", []object{subject("operator", "administrator", ""), target("set", "policy")}, false},
		{"agent with the role's name does nothing", "administer", []object{subject("agent", "administrator", "registered"), target("set", "policy")}, false},
		{"agent does not replace a policy", "administer", []object{target("set", "policy")}, false},
		{"role without a name does nothing", "administer", []object{operator(""), target("list", "audit")}, false},
		{"role in other letters does nothing", "administer", []object{operator("Administrator"), target("set", "policy")}, false},
		{"role that begins like one does nothing", "administer", []object{operator("administrators"), target("set", "policy")}, false},
		{"auditor lists the audit", "administer", []object{operator("auditor"), target("list", "audit")}, true},
		{"auditor exports the audit", "administer", []object{operator("auditor"), target("export", "audit")}, true},
		{"auditor does not archive the audit", "administer", []object{operator("auditor"), target("archive", "audit")}, false},
		{"auditor does not read policies", "administer", []object{operator("auditor"), target("list", "policy")}, false},
		{"reporter reports", "respond", []object{subject("agent", "reporter", "registered")}, true},
		{"administrator reports", "respond", []object{operator("administrator")}, true},
		{"deployer does not report", "respond", nil, false},
		{"locked reporter does not report", "respond", []object{subject("agent", "reporter", "locked")}, false},
		{"agent enrols with its join token", "admit", []object{subject("agent", "reporter", "pending"), evidence("join-token", true, "reporter")}, true},
		{"agent with a role that no document knows does not enrol", "admit", []object{subject("agent", "deployer", "pending"), evidence("join-token", true, "deployer")}, false},
		{"agent enrols with the role of its token alone", "admit", []object{evidence("join-token", true, "reader")}, false},
		{"agent without a role does not enrol", "admit", []object{{"subject": object{"role": nil}}, {"evidence": object{"kind": "join-token", "verified": true}}}, false},
		{"agent does not enrol with an unknown token", "admit", []object{evidence("join-token", false, "deployer")}, false},
		{"agent does not enrol with a word for verified", "admit", []object{evidence("join-token", "true", "deployer")}, false},
		{"agent does not enrol with nothing", "admit", nil, false},
		{"operator enrols with a join token", "admit", []object{operator("auditor"), evidence("join-token", true, "auditor")}, true},
		{"machine does not enrol with a join token", "admit", []object{subject("machine", "reporter", "pending"), evidence("join-token", true, "reporter")}, false},
		{"agent opens a session", "admit", []object{subject("agent", "reporter", "registered"), evidence("certificate", true, "")}, true},
		{"agent with an unknown role opens none", "admit", []object{evidence("certificate", true, "")}, false},
		{"locked agent opens no session", "admit", []object{subject("agent", "reporter", "locked"), evidence("certificate", true, "")}, false},
		{"workload is told what was found", "admit", []object{subject("workload", "", ""), evidence("tee", true, "")}, true},
		{"workload without accepted evidence is told nothing", "admit", []object{subject("workload", "", ""), evidence("tee", false, "")}, false},
		{"nothing is released to agents", "release", nil, false},
		{"nothing is released to administrators", "release", []object{operator("administrator")}, false},
		{"nothing is observed", "observe", []object{operator("administrator")}, false},
	}
	s := mustCompile(t, Installed(noon)...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := decide(t, s, tt.verb, request(tt.change...)); d.Allow != tt.want {
				t.Errorf("got %+v, want allow %v", d, tt.want)
			}
		})
	}
}

func withExample(t testing.TB, extra ...Document) *Set {
	all := append(Installed(noon), Document{Name: "ssh", Version: 1, Kind: Sallyport, Source: ExampleSSH(), At: noon})
	return mustCompile(t, append(all, extra...)...)
}

func TestExampleSSH_bounds(t *testing.T) {
	d := decide(t, withExample(t), "release", request())
	if !d.Allow || d.Bounds.MaxTTL.Seconds() != 900 || d.Bounds.Kind != "ssh-user-cert" {
		t.Fatalf("got %+v", d)
	}
	for _, p := range []string{"principals", "source_addresses", "extensions"} {
		if list, ok := d.Bounds.MaxParams[p].([]any); !ok || len(list) == 0 {
			t.Errorf("%s: %v", p, d.Bounds.MaxParams[p])
		}
	}
	for name, in := range map[string]map[string]any{
		"another role":  request(object{"subject": object{"role": "deployers"}}),
		"no role":       request(object{"subject": object{"role": nil}}),
		"another kind":  request(object{"request": object{"kind": "github-pat"}}),
		"a locked one":  request(object{"subject": object{"state": "locked"}}),
		"an operator":   request(object{"subject": object{"kind": "operator"}}),
		"a list of its": request(object{"subject": object{"role": []any{"deployer"}}}),
	} {
		if d := decide(t, withExample(t), "release", in); d.Allow {
			t.Errorf("%s: %+v", name, d)
		}
	}
	frozen := withExample(t, Document{Name: "freeze", Version: 2, Kind: Sallyport, Source: ExampleFreeze()})
	if d := decide(t, frozen, "release", request()); d.Allow || d.Reasons[0] != "change freeze" {
		t.Errorf("freeze: %+v", d)
	}
}

// A window over midnight, and the hour from 23 to 24, can be said.
func TestSet_Decide_windowOverMidnight(t *testing.T) {
	s := mustCompile(t, doc("night", `hour := time.clock(time.now_ns())[0]
night if hour >= 22
night if hour < 6
respond := {"allow": true} if night`))
	for hour, want := range map[string]bool{"21": false, "22": true, "23": true, "00": true, "05": true, "06": false} {
		in := request(object{"context": object{"time": "2026-03-01T" + hour + ":59:59Z"}})
		if d := decide(t, s, "respond", in); d.Allow != want {
			t.Errorf("%s:59: %v", hour, d.Allow)
		}
	}
}

// Who shows less gets no more, whatever is left out.
func TestInstalled_lessEvidenceNeverGrantsMore(t *testing.T) {
	s := withExample(t)
	word := rapid.SampledFrom([]string{"", "agent", "operator", "workload", "administrator", "auditor", "reporter", "deployer", "registered", "attested", "locked", "join-token", "certificate", "tee", "audit", "policy", "list", "set", "ssh-user-cert"})
	rapid.Check(t, func(t *rapid.T) {
		in := request(object{
			"subject": object{"kind": word.Draw(t, "kind"), "role": word.Draw(t, "role"), "state": word.Draw(t, "state")},
			"action":  word.Draw(t, "action"), "target": object{"kind": word.Draw(t, "target")},
			"evidence": object{"kind": word.Draw(t, "evidence"), "role": word.Draw(t, "evidence role"), "verified": rapid.Bool().Draw(t, "verified")},
		})
		verb := rapid.SampledFrom(Verbs()).Draw(t, "verb")
		full, err := s.Decide(context.Background(), verb, in)
		if err != nil {
			t.Fatal(err)
		}
		group := rapid.SampledFrom([]string{"subject", "target", "evidence", "request"}).Draw(t, "group")
		member := rapid.SampledFrom([]string{"kind", "role", "state", "verified"}).Draw(t, "member")
		if rapid.Bool().Draw(t, "whole") {
			delete(in, group)
		} else {
			delete(in[group].(map[string]any), member)
		}
		less, err := s.Decide(context.Background(), verb, in)
		if err != nil {
			t.Fatal(err)
		}
		if less.Allow && !full.Allow {
			t.Fatalf("%s without %s.%s: %+v", verb, group, member, less)
		}
	})
}

// Fewer reference values never make a better appraisal.
func TestInstalled_fewerReferenceValuesNeverAppraiseBetter(t *testing.T) {
	s := mustCompile(t, Installed(noon)...)
	ids := []string{"launch_digest", "svn", "major_version", "minimum_minor_version"}
	rapid.Check(t, func(t *rapid.T) {
		in := sampleEvidence(object{"sample": object{"svn": fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "svn")), "debug": rapid.Bool().Draw(t, "debug")}})
		gone := rapid.SliceOfDistinct(rapid.SampledFrom(ids), rapid.ID[string]).Draw(t, "gone")
		all, err := s.Appraise(context.Background(), CPUName, in, sampleReferences())
		if err != nil {
			t.Fatal(err)
		}
		fewer, err := s.Appraise(context.Background(), CPUName, in, sampleReferences(gone...))
		if err != nil {
			t.Fatal(err)
		}
		for claim, was := range all.Claims {
			if fewer.Claims[claim] < was {
				t.Fatalf("without %v %s is %d, was %d", gone, claim, fewer.Claims[claim], was)
			}
		}
	})
}
