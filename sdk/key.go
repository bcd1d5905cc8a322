package sallyport

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"
)

// keyHeader carries the key under which a change is made once.
const keyHeader = "Idempotency-Key"

type keyInContext struct{}

// WithIdempotencyKey sets the key of the one change that is made under the
// context it returns: 1 to 128 visible ASCII characters. Whoever sends the same
// request under the same key within ten minutes, from another process too, gets
// the first answer once more, and nothing happens twice. Without it every change
// has a fresh key, which covers the client's own repetitions.
//
// Choose a ULID: keys that begin with the time cost the server the least.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyInContext{}, key)
}

// idempotencyKey is the key of the context, or a fresh one.
func (c *Client) idempotencyKey(ctx context.Context) string {
	if key, _ := ctx.Value(keyInContext{}).(string); key != "" {
		return key
	}
	return newULID(c.cfg.Now())
}

// newULID makes a name that begins with its time: 48 bits of milliseconds and 80
// random ones in 26 characters of Crockford's base 32 (github.com/ulid/spec).
func newULID(now time.Time) string {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var b [16]byte
	_, _ = rand.Read(b[6:]) // never fails (crypto/rand)
	high := uint64(now.UnixMilli())<<16 | uint64(binary.BigEndian.Uint16(b[6:8]))
	low := binary.BigEndian.Uint64(b[8:])
	var out [26]byte
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = alphabet[low&31]
		low = low>>5 | high<<59
		high >>= 5
	}
	return string(out[:])
}
