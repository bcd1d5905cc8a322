package cli

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func newReference(s *shell) *cobra.Command {
	return group("reference", "What evidence is judged by",
		`Endorsements are what makers say about their devices: certificates, revocation
lists, collateral. Reference values are what you expect of evidence: appraisal
policies compare it with them (docs/reference.md).`,
		"  sallyport reference import vcek.der genoa.crl\n  sallyport reference record evidence.json --at 2026-01-02T15:04:05Z",
		referenceImport(s), referenceEKCA(s), referenceList(s), referenceGet(s), referenceRemove(s), referenceSet(s), referenceRecord(s), referenceDiff(s))
}

// kindEKCA is the kind that is imported on the operator's word alone.
const kindEKCA = "tpm-ek-ca"

func referenceImport(s *shell) *cobra.Command {
	c := &cobra.Command{
		Use: "import FILE|FOLDER...", Short: "Store what makers say about their devices", Args: cobra.MinimumNArgs(1),
		Long: `Store endorsements: VCEKs and revocation lists of AMD, collateral of Intel (TCB
info, identity of the quoting enclave, chains of their signers, revocation lists),
revocation lists of TPM manufacturers. What a file is for is told by its content.
The server verifies each by its maker's keys before it stores any; a file that is
nothing of this is refused. Something older than what is stored is refused too;
what has ended is stored, and said to be EXPIRED.`,
		Example: "  sallyport reference import vcek.der genoa.crl\n  sallyport reference import collateral/",
		RunE:    func(c *cobra.Command, args []string) error { return s.importMaterial(c.Context(), args, "") },
	}
	return repeatable(c, "stores nothing twice")
}

func (s *shell) importMaterial(ctx context.Context, paths []string, kind string) error {
	files, err := app.MaterialFiles(paths...)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fault.NotFoundf("there are no files there")
	}
	// Certificates come before the documents that they verify.
	slices.SortStableFunc(files, func(a, b reference.File) int { return document(a) - document(b) })
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	all := []sallyport.Imported{}
	for len(files) > 0 {
		var part []sallyport.ReferenceFile
		part, files = portion(files)
		list, err := client.ImportEndorsements(ctx, part, kind)
		if err != nil {
			if len(all) > 0 {
				s.note("%d endorsements of the files before are stored", len(all))
			}
			return err
		}
		all = append(all, list...)
	}
	return s.print(all, func() error {
		var rows [][]string
		for _, i := range all {
			state := "stored"
			if !i.Changed {
				state = "was there already"
			}
			rows = append(rows, []string{i.ID, strconv.FormatInt(i.Version, 10), state, s.ending(i.NotAfter), i.SHA256[:16], i.File})
		}
		return s.rows([]string{"ENDORSEMENT", "VERSION", "STATE", "ENDS", "SHA-256", "FILE"}, rows)
	})
}

func document(f reference.File) int {
	if bytes.HasPrefix(bytes.TrimSpace(f.Data), []byte("{")) {
		return 1
	}
	return 0
}

// portion takes as many files as go into one request, at least one.
func portion(files []reference.File) (part []sallyport.ReferenceFile, rest []reference.File) {
	const most = 8 << 20
	size := 0
	for i, f := range files {
		if size += len(f.Data); i > 0 && size > most || i == reference.MaxFiles {
			return part, files[i:]
		}
		part = append(part, sallyport.ReferenceFile{Name: shortName(f.Name), Data: f.Data})
	}
	return part, nil
}

// shortName is a file's name in the ledger: its last parts.
func shortName(name string) string {
	const most = 200
	if len(name) > most {
		return filepath.Base(name)
	}
	return name
}

func referenceEKCA(s *shell) *cobra.Command {
	load := &cobra.Command{
		Use: "import FILE...", Short: "Trust the authorities in bundles", Args: cobra.MinimumNArgs(1),
		Long: `Store bundles of certificates in PEM: the authorities by whom the endorsement keys
of TPMs are believed. Nothing but your word makes them good: take them from the
manufacturers. A bundle of the same file name replaces the one before.`,
		Example: "  sallyport reference ek-ca import tpm-roots.pem tpm-intermediates.pem",
		RunE:    func(c *cobra.Command, args []string) error { return s.importMaterial(c.Context(), args, kindEKCA) },
	}
	list := &cobra.Command{
		Use: "list", Short: "List the bundles", Args: cobra.NoArgs,
		Long:    "List the bundles of authorities by whom the endorsement keys of TPMs are believed.",
		Example: "  sallyport reference ek-ca list",
		RunE: func(c *cobra.Command, _ []string) error {
			return s.listEndorsements(c.Context(), func(e sallyport.Endorsement) bool { return e.Kind == kindEKCA })
		},
	}
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Trust a bundle no longer", Args: cobra.ExactArgs(1),
		Long:    "Take a bundle of authorities out of use.",
		Example: "  sallyport reference ek-ca remove tpm-roots.pem",
		RunE: func(c *cobra.Command, args []string) error {
			return s.removeReference(c.Context(), reference.EndorsementID(kindEKCA, args[0]))
		},
	}
	return group("ek-ca", "Authorities of endorsement keys of TPMs", "Bundles of certificates by whom the endorsement keys of TPMs are believed.",
		"  sallyport reference ek-ca import tpm-roots.pem", repeatable(load, "stores nothing twice"), list, remove)
}

func referenceList(s *shell) *cobra.Command {
	var values, endorsements bool
	c := &cobra.Command{
		Use: "list [--values | --endorsements]", Short: "List endorsements and reference values", Args: cobra.NoArgs,
		Long:    "List what evidence is judged by, with where it came from and until when it counts.",
		Example: "  sallyport reference list\n  sallyport reference list --values --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case values && endorsements:
				return fault.Invalidf("without --values and --endorsements both are listed")
			case endorsements:
				return s.listEndorsements(c.Context(), func(sallyport.Endorsement) bool { return true })
			case values:
				return s.listValues(c.Context())
			case s.output != "table":
				return fault.Invalidf("say which in this form of output: --values or --endorsements")
			}
			if err := s.listEndorsements(c.Context(), func(sallyport.Endorsement) bool { return true }); err != nil {
				return err
			}
			return s.listValues(c.Context())
		},
	}
	c.Flags().BoolVar(&values, "values", false, "only reference values")
	c.Flags().BoolVar(&endorsements, "endorsements", false, "only endorsements")
	return c
}

func (s *shell) listEndorsements(ctx context.Context, shown func(sallyport.Endorsement) bool) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	p, err := client.Endorsements(ctx)
	if err != nil {
		return err
	}
	list := []sallyport.Endorsement{}
	for _, e := range p.Items {
		if shown(e) {
			list = append(list, e)
		}
	}
	return s.print(list, func() error {
		var rows [][]string
		for _, e := range list {
			rows = append(rows, []string{e.ID, s.ending(e.NotAfter), e.SHA256[:16], first(e.Author, "fetched"), when(e.At), e.Source})
		}
		return s.rows([]string{"ENDORSEMENT", "EXPIRES", "SHA-256", "AUTHOR", "AT", "SOURCE"}, rows)
	})
}

func (s *shell) listValues(ctx context.Context) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	p, err := client.ReferenceValues(ctx)
	if err != nil {
		return err
	}
	return s.print(p.Items, func() error {
		var rows [][]string
		for _, v := range p.Items {
			rows = append(rows, []string{v.Name, middle(string(v.Value)), strconv.FormatInt(v.Version, 10), s.ending(v.Expires), v.Source, v.Author})
		}
		return s.rows([]string{"VALUE", "IS", "VERSION", "EXPIRES", "FROM", "AUTHOR"}, rows)
	})
}

// ending says when something ends, and warns.
func (s *shell) ending(t time.Time) string {
	switch now := s.Now(); {
	case t.IsZero():
		return "never"
	case now.After(t):
		return when(t) + " EXPIRED"
	case now.Add(reference.Soon).After(t):
		return when(t) + " SOON"
	}
	return when(t)
}

// isEndorsement tells an endorsement's id from a value's name.
func isEndorsement(id string) bool {
	kind, _, _ := strings.Cut(id, "/")
	return reference.IsKind(kind)
}

func referenceGet(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Print a reference value, or an endorsement", Args: cobra.ExactArgs(1),
		Long: `Print a reference value by its name, as JSON, or an endorsement by its id, byte for
byte as its maker signed it.`,
		Example: "  sallyport reference get snp_launch_measurement\n  sallyport reference get snp-crl/Genoa > genoa.crl",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if isEndorsement(args[0]) {
				e, err := client.Endorsement(c.Context(), args[0])
				if err != nil {
					return err
				}
				return s.print(e, func() error {
					_, err := s.out.Write(e.Data)
					return written(err)
				})
			}
			v, err := client.ReferenceValue(c.Context(), args[0])
			if err != nil {
				return err
			}
			return s.print(v, func() error {
				_, err := io.WriteString(s.out, string(v.Value)+"\n")
				return written(err)
			})
		},
	}
}

func referenceRemove(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take a reference value, or an endorsement, out of use", Args: cobra.ExactArgs(1),
		Long:    "Take a reference value (by its name) or an endorsement (by its id) out of use, on every replica. What was attested by it stays attested until its result expires.",
		Example: "  sallyport reference remove mr_td\n  sallyport reference remove snp-crl/Genoa",
		RunE:    func(c *cobra.Command, args []string) error { return s.removeReference(c.Context(), args[0]) },
	}
}

func (s *shell) removeReference(ctx context.Context, id string) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if isEndorsement(id) {
		err = client.RemoveEndorsement(ctx, id)
	} else {
		err = client.RemoveReferenceValue(ctx, id)
	}
	if err != nil {
		return err
	}
	return s.print(map[string]string{"removed": id}, func() error { return s.line("%s is out of use", id) })
}
