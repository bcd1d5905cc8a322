package storetest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// turned makes another key of the ledger and the record by which the present one
// is replaced.
func turned(t testing.TB, present *audit.Signer, n byte) (*audit.Signer, audit.Record) {
	t.Helper()
	next, err := audit.NewSigner(Origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)))
	must(t, err)
	r := Record(audit.KeyRotated)
	r.Target = audit.LedgerTarget
	r.Data, err = present.Rotate(next.VerifierKey())
	must(t, err)
	return next, r
}

// rotations replaces the ledger's key while records arrive: whatever covers the
// record is signed by the new key, and nothing is as long as the node has not got
// it.
func rotations(t *testing.T, e Engine) {
	ctx, cfg := context.Background(), e.Config(t)
	s := Open(t, cfg)
	stop := Running(t, s)
	first, _ := Signer(t)
	fill(t, s, 20)
	if c := coveredTo(t, s, 20); c.Key != first.ID() {
		t.Errorf("signed by %s", c.Key)
	}
	second, r := turned(t, first, 2)
	must(t, s.Commit(ctx, unit.Unit{Record: r}))
	fill(t, s, 5)
	time.Sleep(400 * time.Millisecond) // the integrator would have had its time
	if c, err := s.Head(ctx); err != nil || c.Key != first.ID() || c.Size != 20 {
		t.Errorf("without the new key the head is %d by %s, %v", c.Size, c.Key, err)
	}
	known, err := audit.NewKeys(first.VerifierKey(), second.VerifierKey())
	must(t, err)
	s.UseSigners([]*audit.Signer{first, second}, known)
	if c := coveredTo(t, s, 26); c.Key != second.ID() {
		t.Errorf("the checkpoint over the rotation is signed by %s", c.Key)
	}

	// What a key states that is not the ledger's any more changes nothing.
	evil, forged := turned(t, first, 66)
	all, err := audit.NewKeys(first.VerifierKey(), second.VerifierKey(), evil.VerifierKey())
	must(t, err)
	s.UseSigners([]*audit.Signer{first, second, evil}, all)
	must(t, s.Commit(ctx, unit.Unit{Record: forged}))
	if c := coveredTo(t, s, 27); c.Key != second.ID() {
		t.Errorf("a forged rotation is followed: signed by %s", c.Key)
	}
	stop()
	Close(t, s)
	reopened(t, cfg, first, second, known)
}

// reopened goes on with the store of rotations, as after a start.
func reopened(t *testing.T, cfg store.Config, first, second *audit.Signer, known audit.Keys) {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(ctx, cfg)
	must(t, err)
	t.Cleanup(func() { Close(t, s) })
	s.UseMAC(MAC{})
	must(t, s.UseSigner(ctx, first, known))
	s.UseSigners([]*audit.Signer{first, second}, known)
	Running(t, s)
	fill(t, s, 3)
	if c := coveredTo(t, s, 30); c.Key != second.ID() {
		t.Errorf("after a start the checkpoint is signed by %s", c.Key)
	}
	dir := t.TempDir()
	head, err := s.Head(ctx)
	must(t, err)
	must(t, audit.Export(ctx, dir, s, head, audit.ExportOptions{}))
	report := judged(t, dir) // by the first key alone
	if report.OK || len(report.Problems) != 1 || report.Problems[0].Kind != audit.BadRotation || *report.Problems[0].Position != 26 {
		t.Errorf("the forged rotation is not found: %+v", report)
	}
	if len(report.Rotations) != 1 || !report.Rotations[0].Followed {
		t.Errorf("the rotation is not followed: %+v", report.Rotations)
	}

	// A store that has lost the key which signed the head signs no more.
	// So it does when the next record is a rotation that does not replace that key.
	s.UseSigners([]*audit.Signer{first}, known)
	_, forged := turned(t, first, 67)
	must(t, s.Commit(ctx, unit.Unit{Record: forged}))
	time.Sleep(400 * time.Millisecond)
	if c, err := s.Head(ctx); err != nil || c.Size != 30 {
		t.Errorf("a head of %d, %v", c.Size, err)
	}
	s.UseSigners([]*audit.Signer{first}, mustKeys(t, first))
	if _, err := s.Head(ctx); !fault.Is(err, fault.Internal) {
		t.Errorf("a head by an unknown key is served: %v", err)
	}
	s.UseSigners([]*audit.Signer{first, second}, known)
	coveredTo(t, s, 31)
}

// rotationByTheNewKey starts with a ledger whose key was replaced before the last
// records had their place, and with the new key alone: it signs over all of them.
func rotationByTheNewKey(t *testing.T, e Engine) {
	ctx, cfg := context.Background(), e.Config(t)
	s := Open(t, cfg)
	stop := Running(t, s)
	first, _ := Signer(t)
	fill(t, s, 20)
	coveredTo(t, s, 20)
	stop()
	fill(t, s, 2)
	second, r := turned(t, first, 2)
	must(t, s.Commit(ctx, unit.Unit{Record: r}))
	fill(t, s, 1)
	Close(t, s)
	s, err := store.Open(ctx, cfg)
	must(t, err)
	t.Cleanup(func() { Close(t, s) })
	s.UseMAC(MAC{})
	known, err := audit.NewKeys(first.VerifierKey(), second.VerifierKey())
	must(t, err)
	must(t, s.UseSigner(ctx, second, known))
	Running(t, s)
	if c := coveredTo(t, s, 24); c.Key != second.ID() {
		t.Errorf("the checkpoint over the rotation is signed by %s", c.Key)
	}
}

func mustKeys(t testing.TB, s *audit.Signer) audit.Keys {
	t.Helper()
	keys, err := audit.NewKeys(s.VerifierKey())
	must(t, err)
	return keys
}
