package flow_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
)

// plainContexts writes what would be signed.
type plainContexts struct{}

func (plainContexts) Sign(audience string, members map[string]any) (string, error) {
	members["aud"] = audience
	text, err := json.Marshal(members)
	return string(text), err
}

// A plugin is told who calls in rich mode alone, in Handle alone, and of the
// evidence only what it is and how it was appraised.
func TestExternal_TellsWhoCalls(t *testing.T) {
	h, b, g := externalHouse(t)
	h.reopen(func(c *flow.Config) { c.Backends, c.Contexts = b, plainContexts{} })
	told := func(rules external.Rules, admin bool, operator *client, who *guest) map[string]any {
		t.Helper()
		*b = backend{rules: rules, admin: admin, answer: external.Response{Status: 200}}
		_, err := b.ask(h, operator, who, "GET")
		must(t, err)
		if b.context == "" {
			return nil
		}
		var out map[string]any
		must(t, json.Unmarshal([]byte(b.context), &out))
		digest := external.Request{Method: "GET", Path: []string{"a", ""}, Query: map[string]string{"secret": "canary"}, Body: []byte("canary")}.Digest()
		if out["aud"] != "x" || out["request"] != digest || strings.Contains(b.context, "canary") {
			t.Errorf("the context is %s", b.context)
		}
		return out
	}
	rich := func(r external.Rules) external.Rules { r.Rich = true; return r }
	if got := told(external.Rules{}, false, h.admin, g); got != nil {
		t.Errorf("as in Trustee: %v", got)
	}
	got := told(rich(external.Rules{}), false, h.admin, g)
	who, _ := got["guest"].(map[string]any)
	if got["caller"] != "guest" || got["administrator"] != nil || who["own"] != true || who["workload"] == "" || who["token"] == "" ||
		who["key"] != g.key.Public().Thumbprint() || who["status"] != "contraindicated" {
		t.Errorf("of a guest: %v", got)
	}
	devices, _ := json.Marshal(who["devices"])
	if string(devices) != `[{"name":"cpu0","policy":"default_cpu","status":"contraindicated","tee":"sample"}]` {
		t.Errorf("of its devices: %s", devices)
	}
	for _, never := range []string{"tee-pubkey", "submods", "report_data", "ciphertext"} {
		if strings.Contains(b.context, never) {
			t.Errorf("the context has %s: %s", never, b.context)
		}
	}
	if got := told(rich(external.Rules{}), true, h.admin, nil); got["caller"] != "administrator" || got["administrator"] != "root" || got["guest"] != nil {
		t.Errorf("of an administrator: %v", got)
	}
	if got := told(rich(floor("attested")), true, h.admin, g); got["caller"] != "guest" || got["administrator"] != "root" {
		t.Errorf("of both: %v", got)
	}
	if got := told(rich(floor("public")), false, nil, nil); got["caller"] != "anybody" || got["guest"] != nil {
		t.Errorf("of anybody: %v", got)
	}
}
