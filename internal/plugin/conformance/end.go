package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

var (
	keepsSecrets = expectation{
		"calls/secrets", "no secret is in what it writes or answers with an error",
		"never log a credential or a configured secret, and keep them out of every error",
	}
	endsWhenAsked = expectation{
		"end/asked", "it ends within 2 s when it is asked to",
		"end on SIGTERM; finish what is under way first, but not for long",
	}
	leavesNothing = expectation{
		"end/children", "it leaves no process behind",
		"end the processes that you start, or start none",
	}
	saysOneLine = expectation{
		"end/output", "it writes one line on standard output and nothing after it",
		"write to standard error; standard output belongs to the handshake",
	}
)

// shortest is the length from which a credential can be looked for.
const shortest = 8

// secretChecks start it once more, with marked secrets, call it wrongly, and look
// for what must not be seen.
func (p *process) secretChecks(ctx context.Context, store *plugin.Store) {
	what := fmt.Sprintf("%d credentials are not in its output", len(p.seen))
	if secrets(p.m.Config) {
		marker := "conformance-secret-" + rand.Text()
		if problem := p.marked(ctx, store, marker); problem != "" {
			p.add(keepsSecrets, Fail, problem)
			return
		}
		what += ", nor are its configured secrets"
	}
	for _, value := range p.seen {
		if len(value) >= shortest && p.log.has(string(value)) {
			p.add(keepsSecrets, Fail, "a credential is in what it wrote")
			return
		}
	}
	p.add(keepsSecrets, Pass, what)
}

// marked runs it with a marker for every configured secret.
func (p *process) marked(ctx context.Context, store *plugin.Store, marker string) string {
	host, err := p.newHost(store, marker)
	if err != nil {
		return text(err)
	}
	defer func() { _ = host.Close(context.WithoutCancel(ctx)) }()
	other := &process{run: p.run, trust: p.trust, host: host}
	if err := other.start(ctx); err == nil {
		for _, x := range p.examples() {
			if !p.vends() {
				break
			}
			for _, wrong := range []map[string]any{{}, {unknown: marker}, x.Params} {
				x.Params = wrong
				s := x.scope(now())
				if _, _, err := other.try(ctx, s, open(s)); err != nil && strings.Contains(err.Error(), marker) {
					return "a configured secret is in the text of an error"
				}
			}
		}
		other.probe.Stop()
	}
	p.seen = append(p.seen, other.seen...)
	if p.log.has(marker) {
		return "a configured secret is in what it wrote"
	}
	return ""
}

// endChecks end it, and look for what is left.
func (p *process) endChecks() {
	before := family(p.probe.PID())
	e := p.probe.Stop()
	problem := ""
	if !e.ByItself {
		problem = "it was killed after " + e.Took.Round(time.Millisecond).String()
	}
	p.judge(endsWhenAsked, problem, "after "+e.Took.Round(time.Millisecond).String())
	if len(before) == 0 {
		p.add(leavesNothing, Skipped, "this system does not say which processes there are")
	} else {
		problem = ""
		if left := alive(before); len(left) > 0 {
			problem = fmt.Sprintf("%d processes are left", len(left))
		}
		p.judge(leavesNothing, problem, fmt.Sprintf("there were %d", len(before)))
	}
	problem = ""
	if e.Stdout > 0 {
		problem = fmt.Sprintf("%d bytes follow the line of the handshake", e.Stdout)
	}
	p.judge(saysOneLine, problem, "")
}
