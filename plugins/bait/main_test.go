package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/sdk/plugin"
	"github.com/sallyport-project/sallyport/sdk/plugintest"
)

func TestBait_IsNeverTheSame(t *testing.T) {
	p := plugintest.StartAgentKMS(t, bait)
	seen := map[string]bool{}
	for range 100 {
		c, err := p.Vend(t.Context(), plugin.Scope{Kind: "honeytoken", TTL: time.Minute})
		if err != nil || !strings.HasPrefix(string(c.Value), prefix) || len(c.Value) != len(prefix)+32 || seen[string(c.Value)] {
			t.Fatalf("%q, %v", c.Value, err)
		}
		seen[string(c.Value)] = true
	}
	if _, err := p.Vend(t.Context(), plugin.Scope{}); err == nil {
		t.Error("a token without a life was made")
	}
}
