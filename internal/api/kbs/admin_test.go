package kbs

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// A page of another origin makes an operator's browser show its certificate, or
// reaches a door that asks for nothing from within its network: neither counts.
func TestAdministrator_RefusesPagesOfOtherOrigins(t *testing.T) {
	d := door{Config: Config{Admin: Admin{Mode: BearerJWT, As: "alice"}}, origin: http.NewCrossOriginProtection()}
	for name, c := range map[string]struct {
		method string
		header http.Header
		want   fault.Kind
	}{
		"a program":      {"POST", http.Header{}, fault.Unauthenticated},
		"its own page":   {"POST", http.Header{"Origin": {"https://kbs.example"}}, fault.Unauthenticated},
		"another page":   {"POST", http.Header{"Origin": {"https://elsewhere.example"}}, fault.Denied},
		"a form of it":   {"DELETE", http.Header{"Sec-Fetch-Site": {"cross-site"}}, fault.Denied},
		"what only asks": {"GET", http.Header{"Sec-Fetch-Site": {"cross-site"}}, fault.Unauthenticated},
	} {
		r := httptest.NewRequest(c.method, "https://kbs.example/kbs/v0/resource/a/b/c", nil)
		r.Header = c.header
		if _, err := d.administrator(r); !fault.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
