// Command aide is a plugin for the stories, with the roles that stand beside a
// vender: it takes the opaque tokens back, tells people on its standard error, and
// judges the evidence of a TEE that does not exist.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

func main() {
	plugin.Serve(plugin.About{Name: "aide", Version: "1.0.0", Kinds: []string{"opaque-token"}},
		plugin.Revoker{Revoke: revoke}, plugin.Notifier{Notify: tell}, plugin.Verifier{Judge: judge})
}

// revoke takes a token back; where the place is far it does not arrive the first time.
func revoke(ctx context.Context, r plugin.Revocation) error {
	if !strings.HasPrefix(string(r.Value), "opaque-") {
		return plugin.Invalidf("this is no token of mine")
	}
	if r.Handle == "far" {
		_, err := plugin.HostFrom(ctx).Swap(ctx, "tried/"+r.Idempotency, []byte("once"), 0)
		if err == nil {
			return plugin.Unavailablef("the far place does not answer")
		}
		if !plugin.Conflict(err) {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "took back %x\n", sha256.Sum256(r.Value))
	return nil
}

// tell tells of each event once, however often it comes: what was told is kept at
// the host, so that other processes and replicas know it too.
func tell(ctx context.Context, n plugin.Notification) error {
	if n.ID == "" || n.Title == "" {
		return plugin.Invalidf("there is nothing to tell")
	}
	host := plugin.HostFrom(ctx)
	if _, err := host.Swap(ctx, "told/"+n.ID, nil, 0); plugin.Conflict(err) {
		return nil
	} else if err != nil {
		return err
	}
	told, _, err := host.List(ctx, "told/", "", 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "tell %s: %s, grant %s (%d so far)\n", n.Urgency, n.Kind, n.Fields["grant"], len(told))
	return nil
}

// judge takes evidence that says itself what it is bound to: nobody signs it.
func judge(_ context.Context, e plugin.Evidence) (plugin.Judgement, error) {
	var shown struct{ Bound, Firmware string }
	if err := json.Unmarshal(e.Body, &shown); err != nil {
		return plugin.Judgement{}, plugin.Invalidf("it is no evidence of this TEE")
	}
	bound, err := hex.DecodeString(shown.Bound)
	if err != nil {
		return plugin.Judgement{}, plugin.Invalidf("what it is bound to is not hexadecimal")
	}
	j := plugin.Judgement{Class: plugin.CPU, ReportData: bound, Claims: map[string]any{"firmware": shown.Firmware}}
	j.Checks.That(shown.Firmware != "", plugin.Check{Name: "firmware", Reason: "the evidence names no firmware"})
	j.Checks.Bound(e, "report-data", e.ReportData, bound)
	return j, nil
}
