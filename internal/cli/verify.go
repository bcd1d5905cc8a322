package cli

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// keyOptions name the ledger's keys that an auditor trusts.
type keyOptions struct{ keys, files []string }

func (o *keyOptions) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&o.keys, "key", nil, "public key of the ledger, as init printed it; may be given several times")
	c.Flags().StringArrayVar(&o.files, "key-file", nil, "file with public keys of the ledger, one a line")
}

// keys reads them; none is no error here.
func (s *shell) keys(o keyOptions) ([]string, error) {
	all := append([]string(nil), o.keys...)
	for _, f := range o.files {
		text, err := s.readFile(f, maxSecret)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				all = append(all, line)
			}
		}
	}
	return all, nil
}

func auditVerify(s *shell) *cobra.Command {
	var keys keyOptions
	var old string
	c := &cobra.Command{
		Use: "verify DIR|PROOF --key KEY", Short: "Verify an export or a proof, offline", Args: cobra.ExactArgs(1),
		Long: `Verify an export (a folder) or a proof (a file), offline, with public keys alone.
Whatever was altered, removed, added or moved is found, and named. That the end
was cut off, or that all of it was written anew by the holder of the key, is found
with --checkpoint, a signed head of before.

Rotations of the key are followed: the key that you were given once is enough. With
a later key alone, the output says which rotations were not checked.

The exit code is 4 if anything is not as it was signed.`,
		Example: "  sallyport audit verify ledger/ --key-file ledger.pub --checkpoint monday.checkpoint\n  sallyport audit verify proof.json --key example.org/ledger/01K0...+5d0f...",
		RunE: func(c *cobra.Command, args []string) error {
			trusted, err := s.keys(keys)
			if err != nil {
				return err
			}
			if len(trusted) == 0 {
				return fault.Invalidf("whose ledger is it? give the key that you have from its operator: --key KEY or --key-file FILE")
			}
			info, err := os.Stat(args[0])
			if err != nil {
				return fileFault(args[0], err)
			}
			if !info.IsDir() {
				return s.verifyProof(args[0], trusted, old)
			}
			collectSeldom()
			return s.verifyExport(c.Context(), args[0], trusted, old)
		},
	}
	keys.flags(c)
	c.Flags().StringVar(&old, "checkpoint", "", "file with an older checkpoint, which this ledger must extend")
	return c
}

func (s *shell) verifyExport(ctx context.Context, dir string, keys []string, old string) error {
	opt := audit.VerifyOptions{Keys: keys, Now: time.Now}
	if old != "" {
		note, err := s.readFile(old, maxSecret)
		if err != nil {
			return err
		}
		opt.Old = string(note)
	}
	var stop func()
	opt.Progress, stop = s.progress("records")
	report, err := audit.Verify(ctx, os.DirFS(dir), opt)
	stop()
	if err != nil {
		return err
	}
	if err := s.print(report, func() error { return s.showVerified(report) }); err != nil {
		return err
	}
	if report.OK {
		return nil
	}
	return fault.Deniedf("the ledger is not what was signed: %s", describeProblem(report))
}

func (s *shell) showVerified(r audit.Report) error {
	if !r.OK {
		var rows [][]string
		for _, p := range r.Problems {
			at := ""
			if p.Position != nil {
				at = strconv.FormatUint(*p.Position, 10)
			}
			rows = append(rows, []string{string(p.Kind), at, p.Record, p.Tile, p.Detail})
		}
		if err := s.rows([]string{"PROBLEM", "POSITION", "RECORD", "FILE", "DETAIL"}, rows); err != nil {
			return err
		}
		if r.Unreported > 0 {
			return s.line("and %d more", r.Unreported)
		}
		return nil
	}
	root := ""
	if r.Root != nil {
		root = r.Root.String()
	}
	extends := ""
	if r.OldSize != nil {
		extends = "the checkpoint of " + strconv.FormatUint(*r.OldSize, 10) + " records"
	}
	if err := s.facts("ledger", r.Origin, "records", strconv.FormatUint(r.Records, 10), "root", root, "signed by", r.Key, "extends", extends,
		"took", r.Duration.Round(time.Millisecond).String()); err != nil {
		return err
	}
	if err := s.showRotations(r.Rotations); err != nil {
		return err
	}
	_, err := s.out.Write([]byte(s.paint(s.out, green, "verified: every record is what was signed") + "\n"))
	return written(err)
}

// showRotations says how the key came from one that was given, and what nothing
// has shown.
func (s *shell) showRotations(list []audit.Rotation) error {
	unproven := ""
	for _, r := range list {
		by := "vouched for by " + r.OldID()
		if !r.Followed {
			by, unproven = "not checked, "+r.OldID()+" was not given", r.Old
		}
		if err := s.facts("key since", strconv.FormatUint(r.Position, 10)+" "+r.New, "", by); err != nil {
			return err
		}
	}
	if unproven == "" {
		return nil
	}
	return s.line("not checked: that what came before a key which was not vouched for is the same ledger's; with the key of that time it is: --key %s", unproven)
}

// describeProblem is the first problem in words, with the record's name.
func describeProblem(r audit.Report) string {
	if len(r.Problems) == 0 {
		return "it was not judged"
	}
	p := r.Problems[0]
	text := string(p.Kind)
	if p.Position != nil {
		text += " at position " + strconv.FormatUint(*p.Position, 10)
	}
	if p.Record != "" {
		text += ", record " + p.Record
	}
	if p.Tile != "" {
		text += ", file " + p.Tile
	}
	if more := len(r.Problems) + r.Unreported - 1; more > 0 {
		text += ", and " + strconv.Itoa(more) + " more"
	}
	return text
}

func (s *shell) verifyProof(file string, trusted []string, old string) error {
	if old != "" {
		return fault.Invalidf("--checkpoint goes with an export: one proof says nothing about the whole ledger")
	}
	keys, err := audit.NewKeys(trusted...)
	if err != nil {
		return err
	}
	text, err := s.readFile(file, maxSecret)
	if err != nil {
		return err
	}
	proof, err := audit.ParseProof(text)
	if err != nil {
		return fault.Deniedf("%s is no proof: %s", file, fault.Public(err)).Because(err)
	}
	record, checkpoint, err := audit.VerifyProof(proof, keys)
	if err != nil {
		return fault.Deniedf("the proof does not hold: %s", fault.Public(err)).Because(err)
	}
	out := struct {
		OK     bool         `json:"ok"`
		Index  uint64       `json:"position"`
		Record audit.Record `json:"record"`
		Origin string       `json:"origin"`
		Size   uint64       `json:"size"`
		Root   audit.Hash   `json:"root"`
		Key    string       `json:"key"`
	}{true, proof.Index, record, checkpoint.Origin, checkpoint.Size, checkpoint.Root, checkpoint.Key}
	return s.print(out, func() error {
		if err := s.facts("record", record.ID, "type", record.Type, "at", when(record.At), "outcome", string(record.Outcome),
			"position", strconv.FormatUint(proof.Index, 10), "of", strconv.FormatUint(checkpoint.Size, 10)+" in "+checkpoint.Origin,
			"signed by", checkpoint.Key); err != nil {
			return err
		}
		_, err := s.out.Write([]byte(s.paint(s.out, green, "verified: the record stands in the ledger") + "\n"))
		return written(err)
	})
}
