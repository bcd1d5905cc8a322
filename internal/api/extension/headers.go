package extension

import (
	"net/http"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// kept are headers of a request that the plugin does not get: what proves who
// calls, what belongs to the connection, what anybody can write about where a
// request comes from, and what some frameworks take for another method or path than
// those that policy was asked about.
var kept = []string{
	"authorization", "cookie", "dpop", "proxy-authorization", "proxy-connection", "proxy-authenticate",
	"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
	"forwarded", "via", "x-real-ip", "client-cert", "client-cert-chain", "x-client-cert", "expect",
	"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url",
}

// forwarded are the headers of a request that the plugin gets.
func forwarded(h http.Header) []plugin.Header {
	named := map[string]bool{} // by Connection (RFC 9110, 7.6.1)
	for _, v := range h.Values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			named[strings.ToLower(strings.TrimSpace(name))] = true
		}
	}
	var out []plugin.Header
	for name, values := range h {
		lower := strings.ToLower(name)
		if named[lower] || slices.Contains(kept, lower) || strings.HasPrefix(lower, "x-forwarded-") || strings.HasPrefix(lower, "sec-") {
			continue
		}
		for _, v := range values {
			out = append(out, plugin.Header{Name: lower, Value: strings.ToValidUTF8(v, "")})
		}
	}
	return out
}

// passed are the headers of an answer that the caller gets, besides those that
// begin with x-ext-.
var passed = []string{
	"accept-ranges", "allow", "cache-control", "content-disposition", "content-encoding", "content-language", "content-range", "content-type",
	"etag", "expires", "last-modified", "link", "location", "retry-after", "vary",
}

// returned writes the headers of an answer that may pass. A redirection leads
// nowhere but below the prefix.
func returned(h http.Header, from []plugin.Header, base string) {
	for _, x := range from {
		name := strings.ToLower(x.Name)
		if !slices.Contains(passed, name) && !strings.HasPrefix(name, "x-ext-") || strings.ContainsAny(x.Value, "\r\n\x00") {
			continue
		}
		if name == "location" && !below(x.Value, base) {
			continue
		}
		h.Add(name, x.Value)
	}
}

func below(location, base string) bool {
	dots := strings.ReplaceAll(strings.ToLower(location), "%2e", ".") // to a browser they are the same
	return strings.HasPrefix(location, base+"/") && !strings.Contains(dots, "..") && !strings.ContainsAny(location, "\\ \t")
}
