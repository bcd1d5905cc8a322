package obs

import (
	"context"

	"github.com/sallyport-project/sallyport/internal/id"
)

// RequestHeader is the HTTP header that carries a request's id both ways.
const RequestHeader = "X-Request-Id"

// maxRequest bounds an id that a peer chose.
const maxRequest = 64

type requestKey struct{}

// WithRequest gives the context a request id and returns both. The peer's own
// id is taken when it has 1 to 64 letters, digits, dots, dashes and
// underscores, so that it cannot forge log lines; otherwise a fresh one is
// made. The id names a request and proves nothing.
func WithRequest(ctx context.Context, peers string) (context.Context, string) {
	if !plain(peers) {
		peers = id.New()
	}
	return context.WithValue(ctx, requestKey{}, peers), peers
}

// Request is the id of the request that the context belongs to, or empty.
func Request(ctx context.Context) string {
	s, _ := ctx.Value(requestKey{}).(string)
	return s
}

func plain(s string) bool {
	if s == "" || len(s) > maxRequest {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
