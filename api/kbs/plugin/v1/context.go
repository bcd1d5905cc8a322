package pluginv1

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
)

// What a broker says of who calls travels as gRPC metadata of Handle, and only
// where its operator has switched it on: Trustee sends nothing, and the messages
// stay as they are. docs/plugins/kbs.md has the members and how to check them.
const (
	// ContextKey is the name of the metadata: a JWT in compact form.
	ContextKey = "sallyport-context"
	// ContextType is the typ of its header.
	ContextType = "sallyport-context+jwt"
)

// The values of the member caller.
const (
	CallerGuest         = "guest"         // attested, and allowed by policy
	CallerAdministrator = "administrator" // and no attested guest
	CallerAnybody       = "anybody"       // nobody had to say who he is
)

// RequestDigest is the member request, by which a context belongs to one request:
// SHA-256 in base64url of these parts one after the other, each after its length
// as 8 bytes, big-endian: the method; the number of segments (its 8 bytes stand
// alone) and each segment; the number of query members and name and value of each,
// sorted by the bytes of the names; the body.
func RequestDigest(method string, path []string, query map[string]string, body []byte) string {
	h := sha256.New()
	count := func(n int) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(n)) //nolint:gosec // a length
		_, _ = h.Write(b[:])
	}
	part := func(b []byte) { count(len(b)); _, _ = h.Write(b) }
	part([]byte(method))
	count(len(path))
	for _, s := range path {
		part([]byte(s))
	}
	count(len(query))
	for _, name := range slices.Sorted(maps.Keys(query)) {
		part([]byte(name))
		part([]byte(query[name]))
	}
	part(body)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
