package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// opaque is a second plugin, of another publisher, built and signed by the first
// test that needs it.
var opaque = sync.OnceValues(func() (Programs, error) {
	p := Programs{Package: filepath.Join(workshop, "opaque.package")}
	binary := filepath.Join(workshop, "opaque")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	const source = "cmd/sallyport/testdata/opaque"
	if err := compile(ctx, binary, source); err != nil {
		return p, err
	}
	text, err := os.ReadFile(filepath.Join("..", "..", source, "plugin.json"))
	if err != nil {
		return p, err
	}
	m, err := plugin.ReadSpec(text)
	if err != nil {
		return p, err
	}
	p.Publisher = m.Publisher
	spec := plugin.Spec{Manifest: m, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: binary}}}
	if _, err := plugin.Build(spec, p.Package); err != nil {
		return p, err
	}
	p.PublicKey, err = sign(p.Package, filepath.Join(workshop, "other"))
	return p, err
})

// opaqueRules lets deployers have what the second plugin vends.
const opaqueRules = `package sallyport

release := {"allow": true, "bounds": {"kind": "opaque-token", "max_ttl_seconds": 600}} if {
	input.request.kind == "opaque-token"
	input.subject.role == "deployer"
}
`

// TestRevokedKey_StopsItsPluginAlone revokes the key of a plugin that runs and
// serves: its calls fail within seconds, the status says why, the plugin of
// another key notices nothing, and no restart brings it back.
func TestRevokedKey_StopsItsPluginAlone(t *testing.T) {
	second, err := opaque()
	must(t, err)
	ctx := t.Context()
	w := equipped(t, Options{})
	other, err := w.admin.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: second.Publisher, PublicKey: second.PublicKey})
	must(t, err)
	must(t, w.installFile(second.Package))
	must(t, done(w.admin.SetPolicy(ctx, "opaque", "sallyport", opaqueRules)))
	agent := w.enrol("agent", "deployer", "build-7")
	token := sallyport.VendRequest{Kind: "opaque-token", TTL: time.Minute}
	must(t, done(agent.client.Vend(ctx, token)))
	w.vend(agent, time.Minute)
	neighbour, victim := w.plugin("sshcert"), w.plugin("opaque")
	if neighbour.PID == 0 || victim.PID == 0 {
		t.Fatalf("not running: %+v, %+v", neighbour, victim)
	}

	must(t, w.admin.RevokePublisherKey(ctx, other.KeyID, "stolen"))
	must(t, Eventually(5*time.Second, func() error { return w.refusedAs("opaque", plugin.ReasonRevoked) }))
	_, err = agent.client.Vend(ctx, token)
	refused(t, "a call of the plugin", err, sallyport.Unavailable)
	if err != nil && !strings.Contains(err.Error(), "REVOKED") {
		t.Errorf("the refusal does not say why: %v", err)
	}
	must(t, Eventually(5*time.Second, func() error { return gonePID(victim.PID) }))
	w.vend(agent, time.Minute)
	if now := w.plugin("sshcert"); now.PID != neighbour.PID || now.Starts != neighbour.Starts || now.State != "ready" {
		t.Errorf("the plugin of another key was touched: %+v, before %+v", now, neighbour)
	}
	refused(t, "installing it again", w.installFile(second.Package), sallyport.Denied)
	_, err = w.admin.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: second.Publisher, PublicKey: second.PublicKey})
	refused(t, "trusting the key again", err, sallyport.Conflict)

	w = w.restart()
	agent = w.meet(agent)
	w.vend(agent, time.Minute)
	must(t, w.refusedAs("opaque", plugin.ReasonRevoked))
	_, err = agent.client.Vend(ctx, token)
	refused(t, "a call after the restart", err, sallyport.Unavailable)

	// Nor does whoever has the disk and no key: what was altered counts for nothing,
	// says so, and harms nothing else.
	behind(t, w.House, "UPDATE trust SET state = 'active', reason = '' WHERE id = ?", other.KeyID)
	w = w.restart()
	w.vend(w.meet(agent), time.Minute)
	must(t, w.refusedAs("opaque", plugin.ReasonDamaged))
	refused(t, "installing it", w.installFile(second.Package), sallyport.Denied)

	// The same of the decision that a plugin runs.
	behind(t, w.House, "UPDATE plugins SET digest = 'sha256:' || hex(zeroblob(32)) WHERE id = 'opaque'")
	w = w.restart()
	w.vend(w.meet(agent), time.Minute)
	must(t, w.refusedAs("opaque", plugin.ReasonDamaged))
	if s := w.plugin("opaque"); !strings.Contains(s.Detail, "what is stored of plugin opaque") {
		t.Errorf("the refusal does not say what is damaged: %s", s.Detail)
	}
	refused(t, "removing it", w.admin.RemovePlugin(ctx, "opaque"), sallyport.Denied)
	refused(t, "installing it over that", w.installFile(second.Package), sallyport.Denied)
}

func (w *world) installFile(file string) error {
	pack, err := os.Open(file)
	must(w.t, err)
	defer func() { _ = pack.Close() }()
	return done(w.admin.InstallPlugin(w.t.Context(), pack, sallyport.InstallRequest{}))
}

// plugin is how a plugin does, empty if there is none of this name.
func (w *world) plugin(name string) sallyport.PluginStatus {
	w.t.Helper()
	list, err := w.admin.Plugins(w.t.Context())
	must(w.t, err)
	for _, s := range list.Status {
		if s.Name == name {
			return s
		}
	}
	return sallyport.PluginStatus{}
}

// refusedAs demands that a plugin must not run, for a reason.
func (w *world) refusedAs(name string, want plugin.Reason) error {
	if s := w.plugin(name); s.State != "refused" || s.Reason != string(want) || s.PID != 0 {
		return fmt.Errorf("plugin %s is %s (%s), process %d", name, s.State, s.Reason, s.PID)
	}
	return nil
}

// gonePID demands that a process has ended.
func gonePID(pid int) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil && !strings.Contains(string(text), ") Z ") {
		return fmt.Errorf("process %d runs on", pid)
	}
	return nil
}
