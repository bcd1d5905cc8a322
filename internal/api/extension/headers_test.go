package extension

import (
	"net/http"
	"testing"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// The plugin does what policy was asked about: no header says otherwise, and none
// shows it what proves who calls.
func TestForwarded_LeavesOutWhatDeceives(t *testing.T) {
	h := http.Header{"Connection": {"X-Hop"}, "X-Hop": {"1"}}
	for _, name := range []string{"Authorization", "Cookie", "Dpop", "X-Forwarded-For", "X-Http-Method-Override", "X-Original-Url", "Sec-Fetch-Site"} {
		h.Set(name, "x")
	}
	h.Set("Accept", "text/plain")
	if got := forwarded(h); len(got) != 1 || got[0] != (plugin.Header{Name: "accept", Value: "text/plain"}) {
		t.Errorf("%+v", got)
	}
}

func TestReturned_LeadsNowhereElse(t *testing.T) {
	for location, want := range map[string]string{
		"/api/v1/myext/machines/7": "/api/v1/myext/machines/7", "/api/v1/myext/..": "", "/api/v1/myext/%2E%2e/other": "", "/api/v1/myext/.%2e/other": "",
		"/api/v1/myextra/": "", "//elsewhere.example/": "", "https://elsewhere.example/": "", "/api/v1/myext/a\\b": "",
	} {
		h := http.Header{}
		returned(h, []plugin.Header{{Name: "location", Value: location}, {Name: "set-cookie", Value: "a=b"}}, "/api/v1/myext")
		if h.Get("Location") != want || h.Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", location, h)
		}
	}
}
