package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
)

// holds opens the store after a crash and checks everything that was promised.
// Acks are lines of the worker; those of earlier rounds count as well.
func holds(cfg store.Config, acks []string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open after the crash: %w", err)
	}
	err = promised(ctx, s, acks)
	return errors.Join(err, s.Close(ctx))
}

func promised(ctx context.Context, s *store.Store, acks []string) error {
	s.UseMAC(storetest.MAC{})
	signer, keys, err := storetest.NewSigner()
	if err != nil {
		return err
	}
	if err := s.UseSigner(ctx, signer, keys); err != nil {
		return fmt.Errorf("the ledger after the crash: %w", err)
	}
	head, err := integrated(ctx, s)
	if err != nil {
		return err
	}
	issued, revoked := map[string]int{}, map[string]int{}
	for from := uint64(0); from < head.Size; {
		list, err := s.Records(ctx, audit.Filter{From: from, Limit: 1000})
		if err != nil || len(list) == 0 {
			return fmt.Errorf("read records from %d of %d: %w", from, head.Size, err)
		}
		for _, e := range list {
			r, err := audit.ParseLeaf(e.Leaf)
			if err != nil {
				return fmt.Errorf("record %d: %w", e.Position, err)
			}
			switch r.Type {
			case "grant.issued":
				issued[r.Grant]++
			case "grant.revoked":
				revoked[r.Grant]++
			}
		}
		from = list[len(list)-1].Position + 1
	}
	if err := agree(ctx, s, issued, revoked); err != nil {
		return err
	}
	for _, line := range acks {
		what, name, _ := strings.Cut(strings.TrimPrefix(line, "ACK "), " ")
		if what == "issued" && issued[name] != 1 || what == "revoked" && revoked[name] != 1 {
			return fmt.Errorf("LOST: %s of grant %s was acknowledged and is not there", what, name)
		}
	}
	return verifies(ctx, s, head)
}

// integrated lets the integrator finish and returns the head.
func integrated(ctx context.Context, s *store.Store) (audit.Checkpoint, error) {
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Integrate(run) }()
	deadline := time.Now().Add(20 * time.Second)
	for {
		n, err := s.PendingCount(ctx)
		if err != nil || time.Now().After(deadline) {
			cancel()
			return audit.Checkpoint{}, errors.Join(fmt.Errorf("%d records stay pending", n), err, <-done)
		}
		if n == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		return audit.Checkpoint{}, err
	}
	head, err := s.Head(ctx)
	if fault.Is(err, fault.NotFound) {
		return audit.Checkpoint{}, nil
	}
	return head, err
}

// agree demands that grants, fingerprints and records tell the same story: no
// transition is there by halves.
func agree(ctx context.Context, s *store.Store, issued, revoked map[string]int) error {
	seen := 0
	for after := ""; ; {
		list, err := s.Grants(ctx, grant.Filter{After: after, Limit: 1000})
		if err != nil {
			return fmt.Errorf("read grants: %w", err)
		}
		if len(list) == 0 {
			break
		}
		for _, g := range list {
			seen++
			if issued[g.ID] != 1 {
				return fmt.Errorf("HALF: grant %s has %d records of its issue", g.ID, issued[g.ID])
			}
			if want := map[bool]int{true: 1}[g.State == grant.Revoked]; revoked[g.ID] != want {
				return fmt.Errorf("HALF: grant %s is %s with %d records of a revocation", g.ID, g.State, revoked[g.ID])
			}
		}
		after = list[len(list)-1].ID
		if err := fingerprinted(ctx, s, list); err != nil {
			return err
		}
	}
	if seen != len(issued) {
		return fmt.Errorf("HALF: %d grants, %d records of issues", seen, len(issued))
	}
	return nil
}

// fingerprinted demands that grants are found by their fingerprints. It looks for 64
// drawn at random: a search costs what all records behind the runs cost, for each
// fingerprint.
func fingerprinted(ctx context.Context, s *store.Store, list []grant.Grant) error {
	rand.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
	wanted := map[string]bool{}
	for _, g := range list[:min(len(list), 64)] {
		wanted[g.ID] = true
	}
	found, err := s.GrantsByFingerprint(ctx, slices.Collect(maps.Keys(wanted)))
	if err != nil {
		return fmt.Errorf("search fingerprints: %w", err)
	}
	for _, g := range found {
		delete(wanted, g.ID)
	}
	for name := range wanted {
		return fmt.Errorf("HALF: grant %s is not found by its fingerprint", name)
	}
	return nil
}

// verifies exports the ledger and verifies it with the public key alone.
func verifies(ctx context.Context, s *store.Store, head audit.Checkpoint) error {
	if head.Size == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "crash-export")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, "export")
	if err := audit.Export(ctx, out, s, head, audit.ExportOptions{}); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	_, keys, err := storetest.NewSigner()
	if err != nil {
		return err
	}
	r, err := audit.Verify(ctx, os.DirFS(out), audit.VerifyOptions{Keys: keys.Strings()})
	if err != nil || !r.OK || r.Records != head.Size {
		return fmt.Errorf("the ledger does not verify: %+v: %w", r, err)
	}
	return nil
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected: %+v", err)
	}
}
