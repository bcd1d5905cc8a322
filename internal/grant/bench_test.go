package grant_test

import (
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/grant"
)

func certificateScope() grant.Scope {
	return grant.Scope{Kind: "ssh-user-cert", TTL: 5 * time.Minute, Params: map[string]any{
		"principals": []any{"deploy"}, "source_addresses": []any{"127.0.0.1/32"}, "extensions": []any{"permit-pty"},
		"host.serial": "12", "host.key_id": "01JD", "host.public_key": "ssh-ed25519 AAAA", "host.ca_public_key": "ssh-ed25519 AAAA",
		"host.valid_after": "1", "host.valid_before": "2",
	}}
}

func BenchmarkScope_Hash(b *testing.B) {
	s := certificateScope().WithoutHost()
	b.ReportAllocs()
	for b.Loop() {
		s.Hash()
	}
}

func BenchmarkWithin(b *testing.B) {
	requested := certificateScope()
	bounds := grant.Bounds{Kind: requested.Kind, MaxTTL: 15 * time.Minute, MaxParams: map[string]any{
		"principals": []any{"deploy", "rollback"}, "source_addresses": []any{"127.0.0.0/8", "10.0.0.0/8"}, "extensions": []any{"permit-pty"},
	}}
	b.ReportAllocs()
	for b.Loop() {
		if err := grant.Within(requested, requested, bounds); err != nil {
			b.Fatal(err)
		}
	}
}
