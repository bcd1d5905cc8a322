package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// Records reads the whole ledger of a type ("" for all) through the API.
func (s *Server) Records(ctx context.Context, kind string) ([]audit.Record, error) {
	operator, err := s.Client(s.House.Operator)
	if err != nil {
		return nil, err
	}
	defer operator.Close()
	var out []audit.Record
	for from := ""; ; {
		page, err := operator.Records(ctx, sallyport.RecordQuery{Type: kind, From: from, Limit: 1000})
		if err != nil {
			return nil, fmt.Errorf("read records: %w", err)
		}
		for _, e := range page.Items {
			r, err := audit.ParseLeaf(e.Record)
			if err != nil {
				return nil, fmt.Errorf("record %d: %w", e.Position, err)
			}
			out = append(out, r)
		}
		if page.Next == "" {
			return out, nil
		}
		from = page.Next
	}
}

// Grants reads all grants as the operator.
func (s *Server) Grants(ctx context.Context) (map[string]sallyport.Grant, error) {
	operator, err := s.Client(s.House.Operator)
	if err != nil {
		return nil, err
	}
	defer operator.Close()
	out := map[string]sallyport.Grant{}
	for after := ""; ; {
		page, err := operator.Grants(ctx, sallyport.GrantQuery{Subject: "all", After: after, Limit: 1000})
		if err != nil {
			return nil, fmt.Errorf("read grants: %w", err)
		}
		for _, g := range page.Items {
			out[g.ID] = g
		}
		if page.Next == "" {
			return out, nil
		}
		after = page.Next
	}
}

// Verify exports the ledger by the command and verifies the export with the key
// that init printed, as an auditor does. It demands that the export is good.
func (s *Server) Verify(ctx context.Context) (audit.Report, error) {
	dir, err := os.MkdirTemp(s.House.Dir, "export")
	if err != nil {
		return audit.Report{}, fmt.Errorf("make folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return s.VerifyTo(ctx, filepath.Join(dir, "ledger"))
}

// VerifyTo is [Server.Verify] into a folder that stays.
func (s *Server) VerifyTo(ctx context.Context, dir string) (audit.Report, error) {
	if _, err := s.House.Command(ctx, "audit", "export", dir, "--url", "https://"+s.Main, "--key", s.House.LedgerKey); err != nil {
		return audit.Report{}, fmt.Errorf("export ledger: %w", err)
	}
	out, err := s.House.Command(ctx, "audit", "verify", dir, "--key", s.House.LedgerKey, "--output", "json")
	var report audit.Report
	if bad := json.Unmarshal([]byte(out), &report); bad != nil {
		return report, fmt.Errorf("read report of audit verify (%w): %w: %s", err, bad, out)
	}
	if err != nil {
		return report, fmt.Errorf("verify ledger: %w", err)
	}
	return report, nil
}

// Eventually repeats a check until it holds or its time is over; then it returns
// the last error.
func Eventually(within time.Duration, check func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
