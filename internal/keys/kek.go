package keys

import (
	"context"
	"encoding/binary"

	"github.com/sallyport-project/sallyport/internal/secret"
)

// KEK is the port to the key encryption key. An implementation is safe for
// concurrent use and authenticates aad with every blob.
//
// Wrap uses the newest key. Unwrap knows older ones too, chosen by what the
// blob itself says. A blob that was changed, or that belongs to other aad, is a
// fault of kind Internal; a blob of a key that is not there, or a device that
// does not answer, is Unavailable. Both say what the operator can do.
type KEK interface {
	ID() string // of the newest key; never secret
	Wrap(ctx context.Context, plaintext secret.Bytes, aad []byte) ([]byte, error)
	Unwrap(ctx context.Context, blob, aad []byte) (secret.Bytes, error)
}

// appendBound writes one member of associated data: length and bytes, so that
// no two lists of members have the same encoding.
func appendBound(dst []byte, member string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(member))) //nolint:gosec // members are names and ids, bounded by their callers
	return append(dst, member...)
}

// binding is the associated data of a value: where it belongs, and in which
// version. The domain separates uses of the same table and row.
func binding(domain, key, table, row string, version int64) []byte {
	b := make([]byte, 0, 4*4+len(domain)+len(key)+len(table)+len(row)+8)
	b = appendBound(b, domain)
	b = appendBound(b, key)
	b = appendBound(b, table)
	b = appendBound(b, row)
	return binary.BigEndian.AppendUint64(b, uint64(version)) //nolint:gosec // the bits, not the number, are bound
}
