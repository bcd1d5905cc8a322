// Command bait makes honeytokens: credentials that open nothing. Whoever reports
// one has found a leak, and where.
//
// It speaks agentkms.plugin.v1 and has the one role credential-vender; the scopes
// are validated by another package, plugins/honeytoken, which is written in Python.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// prefix makes a token look like one of a service that scanners know.
const prefix = "hny_live_"

func main() {
	plugin.ServeAgentKMS(bait)
}

var bait = plugin.AgentKMS{Kind: "honeytoken", Vend: vend}

func vend(_ context.Context, s plugin.Scope) (plugin.Issued, error) {
	if s.TTL <= 0 {
		return plugin.Issued{}, plugin.Invalidf("ttl must be positive")
	}
	random := make([]byte, 20)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	value := prefix + strings.ToLower(base32.StdEncoding.EncodeToString(random))
	return plugin.Issued{Scope: s, Value: []byte(value), ExpiresAt: time.Now().Add(s.TTL)}, nil
}
