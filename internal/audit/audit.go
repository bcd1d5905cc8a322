// Package audit is the ledger: the record of what was decided, the tree over
// all records, and the proofs that let a stranger check both.
//
// A record's leaf is the exact RFC 8785 byte string that was stored with the
// change it describes. Leaves stand in one RFC 6962 tree (SHA-256); its head is
// signed as a C2SP checkpoint (c2sp.org/tlog-checkpoint, c2sp.org/signed-note,
// Ed25519), and the tree is kept and exported as C2SP tiles
// (c2sp.org/tlog-tiles). There is no hash chain beside the tree: a chain adds
// nothing that the tree does not prove, forks under concurrent writers, and
// serialises them.
//
// The package is pure. The store keeps rows, tiles and notes; an integrator
// gives records their positions with a [Builder]; every replica holds the last
// note outside the database and asks [Consistent] before it signs or serves.
//
// What verification shows: the records of an export are exactly those under a
// checkpoint that a key signed, none altered, removed, added or reordered
// ([Verify]); one record stands under a checkpoint ([VerifyProof]); a later
// checkpoint extends an earlier one (an old note given to [Verify]). What it
// does not show: that a record is true, that the holder of the key did not sign
// two histories for two audiences (compare notes), or, without an old note,
// that the end was not cut off before the newest checkpoint was made. A key
// that comes with an export proves nothing; the auditor must have it from
// elsewhere.
package audit
