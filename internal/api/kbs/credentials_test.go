package kbs

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
)

// A query says one thing: what could be read in two ways is refused, and not read in
// one of them by chance.
func TestCredentialRequest(t *testing.T) {
	got, err := credentialRequest("ticket", map[string]string{"ttl": "60", "principals[]": "a,b", "host": "x"})
	want := flow.VendRequest{Kind: "ticket", TTL: time.Minute, Params: map[string]any{"principals": []any{"a", "b"}, "host": "x"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, query := range []map[string]string{
		{"principals": "root", "principals[]": "a,b"}, {"ttl": "60", "ttl[]": "60"}, {"ttl": "0"}, {"ttl": "1e3"}, {"ttl": "99999999999"},
	} {
		for range 20 { // a map has no order
			if _, err := credentialRequest("ticket", query); !fault.Is(err, fault.Invalid) {
				t.Errorf("%v: %v", query, err)
			}
		}
	}
}
