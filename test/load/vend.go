package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys/sshca"
	"github.com/sallyport-project/sallyport/internal/store"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// vended is a kind of credential to measure.
type vended struct {
	kind   string
	plugin string // package in the module
	params string // JSON, the members of an object
	policy string // Rego, bounds of the kind
	keyed  bool   // each agent brings an SSH key of its own
}

var sshCertificate = vended{
	kind: "ssh-user-cert", plugin: "plugins/sshcert",
	params: `"principals":["deploy"],"source_addresses":["127.0.0.1/32"],"extensions":["permit-pty"]`,
	policy: `{"principals": ["deploy", "rollback"], "source_addresses": ["127.0.0.0/8", "10.0.0.0/8"], "extensions": ["permit-pty"]}`,
	keyed:  true,
}

var opaqueText = vended{
	kind: "load-token", plugin: "test/load/agentkms",
	params: `"places":["north"]`, policy: `{"places": ["north", "south"]}`,
}

// document is the policy: agents are admitted, and get the kind within bounds.
func (v vended) document() string {
	return `package sallyport

admit := {"allow": true, "reasons": ["loaders are known"]} if {
	input.subject.kind == "agent"
	input.subject.role == "loader"
	input.evidence.kind in {"join-token", "certificate"}
	input.evidence.verified == true
}

release := {
	"allow": true,
	"bounds": {"kind": "` + v.kind + `", "max_params": ` + v.policy + `, "max_ttl_seconds": 900},
	"reasons": ["loaders may load"],
} if {
	input.request.kind == "` + v.kind + `"
	input.subject.kind == "agent"
	input.subject.role == "loader"
	input.subject.state in {"registered", "attested"}
}
`
}

func vendBudgets(o options) []budget {
	return []budget{atLeast("ratio", 0.12), atMost("p99_ms", 15), atMost("c1_p50_ms", 1)}
}

func agentkmsBudgets(options) []budget { return []budget{atLeast("requests_per_s", 2_000)} }

// vend measures credentials by one call of our own plugin contract.
func vend(ctx context.Context, o options) (result, error) { return sshCertificate.measure(ctx, o) }

// vendAgentKMS measures credentials by the six calls of agentkms.plugin.v1.
func vendAgentKMS(ctx context.Context, o options) (result, error) { return opaqueText.measure(ctx, o) }

// measure drives POST /v1/credentials: mTLS, a session token, policy, plugin,
// and a durable record for every answer. Beside the wanted number of
// connections it measures one.
func (v vended) measure(ctx context.Context, o options) (r result, err error) {
	floor, err := startBare(ctx, true)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, floor.stop()) }()
	var agents []agent
	prepare := func(s *server, admin *sallyport.Client) error {
		if err := install(ctx, admin, o.dir, v.plugin); err != nil {
			return err
		}
		if _, err := admin.SetPolicy(ctx, "load", "sallyport", v.document()); err != nil {
			return fmt.Errorf("set policy: %w", err)
		}
		if agents, err = enrol(ctx, admin, s.in.roots(), min(o.conns, mostAgents)); err != nil {
			return err
		}
		return v.equip(agents)
	}
	err = running(ctx, o, prepare, func(s *server) error {
		size := len(agents[0].body)
		return between(ctx, &r, floor, o, size, func() error {
			one := o
			one.conns, one.duration, one.warm = 1, min(o.duration, 3*time.Second), o.warm/2
			single, err := v.drive(ctx, s, agents, one)
			if err != nil {
				return err
			}
			all, err := v.drive(ctx, s, agents, o)
			if err != nil {
				return err
			}
			r.take(all)
			if n := len(all.times); n > 0 {
				r.figure("plugin_cpu_us_per_request", float64((s.plugins[1]-s.plugins[0]).Microseconds())/float64(n))
			}
			r.figure("c1_requests_per_s", single.perSecond())
			r.figure("c1_p50_ms", milliseconds(quantile(single.times, 0.5)))
			r.figure("c1_p99_ms", milliseconds(quantile(single.times, 0.99)))
			r.Errors += single.failed()
			return nil
		})
	})
	r.Driver, r.CPUOf = o.driver, "the server and its plugin"
	if o.driver == store.PostgreSQL {
		r.CPUOf += ", without PostgreSQL"
	}
	return r, err
}

// equip gives each agent what it will ask for. An agent that brings its own key
// keeps the private part where it is, which is how credentials should be used.
func (v vended) equip(agents []agent) error {
	for i := range agents {
		params := v.params
		if v.keyed {
			public, _, err := sshca.FreshPair("load")
			if err != nil {
				return fmt.Errorf("make agent's key: %w", err)
			}
			params += `,"public_key":"` + public + `"`
		}
		agents[i].body = []byte(`{"kind":"` + v.kind + `","params":{` + params + `},"ttl_seconds":300}`)
	}
	return nil
}

// drive sends vend requests, each under an Idempotency-Key of its own.
func (v vended) drive(ctx context.Context, s *server, agents []agent, o options) (sample, error) {
	var opened connections
	defer opened.close()
	return drive{
		conns: o.conns, warm: o.warm, duration: o.duration, cpu: s.cpu,
		open: func(ctx context.Context, i int) (call, error) {
			do, c, err := v.open(ctx, s, agents[i%len(agents)])
			if err == nil {
				opened.add(c)
			}
			return do, err
		},
	}.run(ctx)
}

// open connects an agent and gives the call by which it asks for credentials.
func (v vended) open(ctx context.Context, s *server, a agent) (call, *connection, error) {
	c, err := dial(ctx, s.main, a.tls)
	if err != nil {
		return nil, nil, err
	}
	key := id.New() // as the SDK makes them: the time first
	text := request(http.MethodPost, "/v1/credentials", s.main, a.body, "Authorization: Bearer "+a.token, "Idempotency-Key: "+key)
	field := text[strings.Index(string(text), key):][:len(key)]
	n := 0
	return func(context.Context) error {
		n++
		copy(field, id.New())
		status, answer, err := c.exchange(text)
		if err == nil && status != http.StatusCreated {
			err = refused(status, answer)
		}
		if err == nil && n == 1 {
			err = v.look(answer)
		}
		return err
	}, c, nil
}

// look makes sure, once for each connection, that the answer is a credential.
func (v vended) look(answer []byte) error {
	var c struct {
		Grant, Kind, Value string
	}
	if err := json.Unmarshal(answer, &c); err != nil {
		return fmt.Errorf("read credential: %w", err)
	}
	if c.Grant == "" || c.Kind != v.kind || c.Value == "" {
		return errors.New("the answer is no credential")
	}
	return nil
}

// between measures the floor before and after do, so that a machine that gets
// slower meanwhile does so for both, and sets the ratio to their mean.
func between(ctx context.Context, r *result, floor *bare, o options, size int, do func() error) error {
	name := "bare TLS echo (net/http), same client"
	if len(floor.client.Certificates) > 0 {
		name = "bare mTLS echo (net/http), same client"
	}
	return amid(ctx, r, name, o, floor.drive(size), do)
}

// amid is between with a floor of its own kind.
func amid(ctx context.Context, r *result, name string, o options, floor drive, do func() error) error {
	floor.conns, floor.warm, floor.duration = o.conns, min(o.warm, time.Second), min(o.duration, 3*time.Second)
	once := func() (sample, error) { return floor.run(ctx) }
	before, err := once()
	if err != nil {
		return fmt.Errorf("measure floor: %w", err)
	}
	if err := do(); err != nil {
		return err
	}
	after, err := once()
	if err != nil {
		return fmt.Errorf("measure floor: %w", err)
	}
	r.against(name, (before.perSecond()+after.perSecond())/2)
	r.figure("floor_before_per_s", before.perSecond())
	r.figure("floor_after_per_s", after.perSecond())
	r.figure("floor_p50_ms", milliseconds(quantile(after.times, 0.5)))
	r.figure("floor_p99_ms", milliseconds(quantile(after.times, 0.99)))
	if n := len(after.times); n > 0 {
		r.figure("floor_cpu_us_per_request", float64(after.cpu.Microseconds())/float64(n))
	}
	r.Errors += before.failed() + after.failed()
	return nil
}

// folderOf finds the sources of a package of the module.
func folderOf(ctx context.Context, pkg string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", module+"/"+pkg).Output() //nolint:gosec // constant packages
	if err != nil {
		return "", fmt.Errorf("find %s: %w", pkg, err)
	}
	return strings.TrimSpace(string(out)), nil
}
