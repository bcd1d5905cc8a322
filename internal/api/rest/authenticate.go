package rest

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
)

// via is this door's name in records and policies.
const via = "rest"

// Presented collects what a request shows of its caller. Whether it proves
// anything is the gate's to say. Forwarding headers count for nothing.
func Presented(r *http.Request) (flow.Presented, error) {
	p := flow.Presented{Method: r.Method, URL: target(r), Via: via, Address: address(r)}
	// A chain that the handshake did not verify is no certificate.
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && len(r.TLS.PeerCertificates) > 0 {
		p.Certificate = r.TLS.PeerCertificates[0]
	}
	shown := r.Header.Values("Authorization")
	if len(shown) == 0 {
		return p, nil
	}
	scheme, token, ok := strings.Cut(shown[0], " ")
	if len(shown) > 1 || !ok || !plainToken(token) {
		return p, errAuthorization()
	}
	switch strings.ToLower(scheme) {
	case "bearer":
		p.Token = token
	case "dpop": // RFC 9449, sections 4.3 and 7.1
		proofs := r.Header.Values("DPoP")
		if len(proofs) != 1 {
			return p, fault.Unauthenticatedf("send exactly one proof of possession in the DPoP header")
		}
		p.Token, p.Proof = token, proofs[0]
	default:
		return p, errAuthorization()
	}
	return p, nil
}

func errAuthorization() error {
	return fault.Unauthenticatedf("send one Authorization header: Bearer and a session token, or DPoP and a delegated one")
}

// plainToken reports whether s can be a token: visible ASCII (RFC 6750, 2.1).
func plainToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != ""
}

// target is the URL that a proof must name: the one that the client used,
// without query.
func target(r *http.Request) string {
	scheme := "https"
	if r.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + r.Host + r.URL.EscapedPath()
}

// address is the peer's network address without the port.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().WithZone("").String()
	}
	return ""
}

// keyHeader carries the Idempotency-Key, and replayHeader says in an answer that
// it is the first one under the key, once more.
const (
	keyHeader    = "Idempotency-Key"
	replayHeader = "Idempotent-Replay"
)

// idempotencyKey reads the header, nil if it is absent.
func idempotencyKey(h http.Header) (*flow.Key, error) {
	values := h.Values(keyHeader)
	switch len(values) {
	case 0:
		return nil, nil
	case 1:
		return flow.NewKey(values[0])
	}
	return nil, fault.Invalidf("the header %s must stand once", keyHeader)
}
