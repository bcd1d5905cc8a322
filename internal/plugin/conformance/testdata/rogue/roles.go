package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// beside serves the roles beside a vender, of which each does what the name says.
func beside() {
	revoked := false
	plugin.Serve(plugin.About{Name: name, Version: "1.0.0", Kinds: []string{"rogue"}},
		plugin.Revoker{
			Revoke: func(context.Context, plugin.Revocation) error {
				if name == "beside-forgets" && revoked {
					return plugin.Deniedf("there is no such credential")
				}
				revoked = true
				return nil
			},
			Supports: func(ctx context.Context, _ string) (bool, error) {
				if name == "beside-hangs" {
					<-ctx.Done()
				}
				return true, ctx.Err()
			},
		},
		plugin.Notifier{Notify: func(context.Context, plugin.Notification) error {
			if name == "beside-mute" {
				<-time.After(time.Minute)
			}
			return nil
		}},
		plugin.Verifier{Judge: func(_ context.Context, e plugin.Evidence) (plugin.Judgement, error) {
			var shown struct{ Bound []byte }
			j := plugin.Judgement{Class: plugin.CPU, ReportData: e.ReportData}
			switch err := json.Unmarshal(e.Body, &shown); {
			case name == "beside-gullible":
				j.Checks.That(true, plugin.Check{Name: "signature"})
				return j, nil
			case err != nil && name == "beside-panics":
				panic(err)
			case err != nil:
				return j, plugin.Invalidf("it is no evidence")
			}
			j.Checks.Bound(e, "report-data", e.ReportData, shown.Bound)
			return j, nil
		}},
	)
}
