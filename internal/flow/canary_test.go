package flow_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/subject"
)

// canaries are secrets that must be found nowhere.
type canaries map[string][]byte

func (c canaries) add(name string, value []byte) {
	if len(value) > 0 {
		c[name] = bytes.Clone(value)
		c[name+" in hex"] = []byte(hex.EncodeToString(value))
		c[name+" in base64"] = []byte(base64.StdEncoding.EncodeToString(value)[:len(value)*4/3-2])
	}
}

func (c canaries) search(t *testing.T, where string, text []byte) {
	t.Helper()
	for name, value := range c {
		if bytes.Contains(text, value) {
			t.Errorf("%s holds the %s", where, name)
		}
	}
}

// TestSecrets_StayOutOfRecordsLogsErrorsAndFiles goes through every verb, with
// parts that fail and talk, and looks for what they handled.
func TestSecrets_StayOutOfRecordsLogsErrorsAndFiles(t *testing.T) {
	ctx := context.Background()
	found := canaries{}
	var said []error
	note := func(err error) { said = append(said, err) }

	talkative := newTaker(grant.EffectsRemote)
	talkative.source.KeepValue = true
	talkative.revoke = func(int, string) error {
		return fault.Unavailablef("the provider is down").Because(errors.New("DELETE https://api.example/tokens/" + talkative.made[len(talkative.made)-1]))
	}
	signs := &signer{finish: func(_ grant.Prepared, _ grant.Scope, v secret.Bytes) (grant.Signed, error) {
		return grant.Signed{Value: secret.FromString("signed-" + string(v.Reveal()))}, nil
	}}
	h := newHouse(t, func(c *flow.Config) { c.Signers = map[string]grant.Signer{"test-signed": signs} })
	wide := newVendor(grant.EffectsNone)
	wide.issue = func(_ context.Context, a grant.Scope, b grant.Bounds) (grant.Issued, error) {
		i := wide.proper(a, b)
		i.Scope.TTL = 2 * b.MaxTTL
		return i, nil
	}
	h.vendors["test-remote"], h.vendors["test-signed"], h.vendors["test-wide"] = talkative, newVendor(grant.EffectsNone), wide

	join := h.invite(subject.Agent, "deployer", "")
	found.add("join token", join.Reveal())
	c, err := h.enrol(h.gate, join, "agent")
	must(t, err)
	_, err = h.enrol(h.gate, join, "agent")
	note(err)
	c = c.open()
	d := c.delegate("release:*")
	found.add("session token", []byte(c.token))
	found.add("delegate's token", []byte(d.token))
	broken := *c
	broken.token = c.token[:len(c.token)-6] + "AAAAAA"
	_, err = broken.try(h.gate)
	note(err)

	var values []string
	for _, kind := range []string{"test-remote", "test-signed", "test-wide"} {
		out, err := h.gate.Vend(ctx, under(c.caller(), "my-key-"+kind), request(kind))
		if err != nil {
			note(err)
			continue
		}
		found.add("credential of "+kind, out.Value.Reveal())
		found.add("private key of "+kind, out.Private.Reveal())
		values = append(values, string(out.Value.Reveal()))
		_, err = h.gate.Vend(ctx, under(c.caller(), "my-key-"+kind), request(kind))
		must(t, err)
	}
	found.add("refused credential", []byte(wide.made[0]))
	_, err = h.gate.Vend(ctx, under(d.caller(), "delegate"), request("test-signed"))
	must(t, err)

	reporter := h.stored(subject.Agent, "reporter", "reporter").open()
	for _, v := range append(values, "an-unknown-leaked-value-000") {
		_, err := h.gate.Report(ctx, reporter.caller(), leak(v))
		note(err)
		s := leak(v)
		s.Reason = "it was " + v
		_, err = h.gate.Report(ctx, reporter.caller(), s)
		note(err)
	}
	found.add("reported value", []byte("an-unknown-leaked-value-000"))
	h.pass(time.Minute)
	_, err = h.gate.Sweep(ctx)
	note(err)
	h.phone.fail = func(int) error { return fault.Unavailablef("busy") }
	_, err = h.gate.Deliver(ctx)
	note(err)

	h.resourcePolicy(policy.ResourceAllowAll())
	h.put("the-resource-value-of-this-test", "a", "b", "c")
	found.add("resource", []byte("the-resource-value-of-this-test"))
	g := h.guest()
	must(t, g.attest())
	_, err = g.fetch(false, "a", "b", "c")
	must(t, err)
	_, err = g.fetch(false, "a", "b", "d")
	note(err)
	found.add("handshake cookie", []byte(g.cookie))
	_, err = h.gate.Attest(ctx, g.cookie, []byte("the-resource-value-of-this-test"), "")
	note(err)

	for _, r := range h.ledger() {
		leaf, err := r.Leaf()
		must(t, err)
		found.search(t, "a record of type "+r.Type, leaf)
	}
	found.search(t, "the log", []byte(h.log.String()))
	for _, err := range said {
		if err != nil {
			found.search(t, "a public text", []byte(fault.Public(err)))
			found.search(t, "an error", []byte(err.Error()))
		}
	}
	due, err := h.store.DeliveriesDue(ctx, h.now().Add(hour), 1000)
	must(t, err)
	text, err := json.Marshal(due)
	must(t, err)
	found.search(t, "a notification", text)
	storetest.Close(t, h.store)
	files, err := filepath.Glob(filepath.Join(h.dir, "*"))
	must(t, err)
	for _, name := range files {
		content, err := os.ReadFile(name)
		must(t, err)
		found.search(t, "the file "+filepath.Base(name), content)
	}
	if len(files) == 0 || len(found) < 20 || len(due) == 0 || h.log.String() == "" {
		t.Fatal("there was too little to search")
	}
}
