package cli

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func newAudit(s *shell) *cobra.Command {
	return group("audit", "The ledger: read, prove, export, verify",
		`Every decision is a record in a ledger that nobody can rewrite unseen: a Merkle
tree whose head is signed (C2SP tlog-tiles and checkpoints). An auditor needs the
ledger's public key, from init or from the operator, and nothing else: audit
verify asks no server.`,
		"  sallyport audit list --type grant.\n  sallyport audit export ledger/\n  sallyport audit verify ledger/ --key-file ledger.pub",
		auditList(s), auditProve(s), auditExport(s), auditVerify(s), auditCheckpoint(s))
}

func auditList(s *shell) *cobra.Command {
	q := sallyport.RecordQuery{Newest: true}
	var subjectName string
	var oldest bool
	c := &cobra.Command{
		Use: "list", Short: "List records", Args: cobra.NoArgs,
		Long: `List records, the newest first unless --oldest. --type takes a whole type
(grant.issued) or a noun and a dot (grant.).`,
		Example: "  sallyport audit list --type grant. --limit 20\n  sallyport audit list --subject build-7 --oldest --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if subjectName != "" {
				if q.Subject, err = subject(c.Context(), client, subjectName); err != nil {
					return err
				}
			}
			limit := q.Limit
			q.Newest, q.Limit = !oldest, min(limit, 1000)
			list, err := pages(func(from string) (sallyport.Page[sallyport.Record], error) {
				q.From = first(from, q.From)
				return client.Records(c.Context(), q)
			}, limit)
			if err != nil {
				return err
			}
			return s.print(list, func() error { return s.showRecords(list) })
		},
	}
	f := c.Flags()
	f.StringVar(&q.Type, "type", "", "a whole type, or a noun and a dot")
	f.StringVar(&subjectName, "subject", "", "that concern this subject, by name or id")
	f.StringVar(&q.Grant, "grant", "", "that concern this grant")
	f.StringVar(&q.From, "from", "", "from this position on")
	f.IntVar(&q.Limit, "limit", 50, "at most this many; 0 for all")
	f.BoolVar(&oldest, "oldest", false, "the oldest first")
	return c
}

func (s *shell) showRecords(list []sallyport.Record) error {
	var rows [][]string
	for _, e := range list {
		r, err := audit.ParseLeaf(e.Record)
		if err != nil {
			return fault.Wrap(err, "read record %d", e.Position)
		}
		rows = append(rows, []string{
			strconv.FormatUint(e.Position, 10), when(r.At), r.Type, string(r.Outcome),
			strings.TrimSpace(r.Actor.Kind + " " + first(r.Actor.Subject, r.Actor.Via)), first(r.Target, r.Grant, r.Subject), r.ID,
		})
	}
	return s.rows([]string{"POSITION", "AT", "TYPE", "OUTCOME", "ACTOR", "CONCERNS", "ID"}, rows)
}

func auditProve(s *shell) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "prove RECORD-ID", Short: "Get the proof that a record stands in the ledger", Args: cobra.ExactArgs(1),
		Long:    "Get a proof that one record stands in the ledger. Whoever has the ledger's key can check it: sallyport audit verify FILE",
		Example: "  sallyport audit prove 01K0ABCDEFGHJKMNPQRSTVWXYZ --out proof.json",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			proof, err := s.proof(c.Context(), client, args[0])
			if err != nil {
				return err
			}
			if out != "" {
				if err := replace(out, append(proof, '\n'), 0o644); err != nil {
					return err
				}
				return s.print(map[string]string{"file": out}, func() error { return s.line("the proof is in %s", out) })
			}
			return s.print(proof, func() error {
				_, err := s.out.Write(append(proof, '\n'))
				return written(err)
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "file for the proof (default: standard output)")
	return c
}

// proof gets a proof. A record that is younger than the newest checkpoint is
// below one soon: the SDK repeats the call while the server says so.
func (s *shell) proof(ctx context.Context, client *sallyport.Client, id string) (json.RawMessage, error) {
	raw, err := client.RecordProof(ctx, id)
	if err != nil {
		return nil, err
	}
	if _, err := audit.ParseProof(raw); err != nil {
		return nil, fault.Wrap(err, "read proof")
	}
	return raw, nil
}

func auditCheckpoint(s *shell) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "checkpoint", Short: "Print the newest signed head of the ledger", Args: cobra.NoArgs,
		Long: `Print the newest signed head of the ledger (c2sp.org/tlog-checkpoint). Keep it: given
to audit verify --checkpoint later, it finds a ledger that was cut or rewritten.`,
		Example: "  sallyport audit checkpoint --out monday.checkpoint",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			note, err := client.Checkpoint(c.Context())
			if err != nil {
				return err
			}
			if out != "" {
				if err := replace(out, []byte(note), 0o644); err != nil {
					return err
				}
				return s.print(map[string]string{"file": out}, func() error { return s.line("the checkpoint is in %s", out) })
			}
			return s.print(map[string]string{"checkpoint": note}, func() error {
				_, err := io.WriteString(s.out, note)
				return written(err)
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "file for the checkpoint (default: standard output)")
	return c
}
