package audit

import (
	"encoding/binary"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// maxBundle is the largest entry bundle that this ledger writes.
const maxBundle = TileWidth * (2 + MaxLeaf)

// appendEntry appends one leaf to an entry bundle: 16 bits of length, big
// endian, and the leaf (c2sp.org/tlog-tiles, Log entries).
func appendEntry(bundle, leaf []byte) ([]byte, error) {
	if len(leaf) > MaxLeaf {
		return nil, fault.Invalidf("the audit record is larger than %d bytes", MaxLeaf)
	}
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(leaf))) //nolint:gosec // at most MaxLeaf
	return append(bundle, leaf...), nil
}

// entries splits a bundle that must hold exactly width leaves. If it does not,
// the fault is Invalid, and the leaves before the damage are returned with it.
// The leaves share memory with the bundle.
func entries(bundle []byte, width int, list [][]byte) ([][]byte, error) {
	for range width {
		if len(bundle) < 2 {
			return list, fault.Invalidf("the bundle ends after %d of %d records", len(list), width)
		}
		n := int(binary.BigEndian.Uint16(bundle))
		bundle = bundle[2:]
		if n > MaxLeaf {
			return list, fault.Invalidf("record %d of the bundle is too large", len(list))
		}
		if n > len(bundle) {
			return list, fault.Invalidf("the bundle ends within record %d of %d", len(list), width)
		}
		list = append(list, bundle[:n:n])
		bundle = bundle[n:]
	}
	if len(bundle) > 0 {
		return list, fault.Invalidf("the bundle has %d bytes after its %d records", len(bundle), width)
	}
	return list, nil
}
