package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
)

func evidenceEK(s *shell) *cobra.Command {
	var bundles, material []string
	var at string
	c := &cobra.Command{
		Use: "ek FILE --ca BUNDLE", Short: "Judge the certificate of a TPM's endorsement key", Args: cobra.ExactArgs(1),
		Long: `Judge the certificate of a TPM's endorsement key, as it comes out of the TPM or
from its maker (DER or PEM): that one of the manufacturers in the bundles issued
it, that it is valid and on no revocation list given, and that it is for an
endorsement key. The exit code is 4
when it is refused. From a TPM it is read by: tpm2_nvread 0x1c00002 -o ek.crt`,
		Example: "  sallyport evidence ek ek.crt --ca tpm-roots.pem --ca tpm-intermediates.pem",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(bundles) == 0 {
				return fault.Invalidf("whom do you trust? --ca BUNDLE, a file of manufacturers' certificates in PEM")
			}
			when := s.Now()
			if at != "" {
				var err error
				if when, err = time.Parse(time.RFC3339, at); err != nil {
					return fault.Invalidf("--at is a time like 2026-01-02T15:04:05Z")
				}
			}
			return s.judgeEK(args[0], bundles, material, when)
		},
	}
	c.Flags().StringArrayVar(&bundles, "ca", nil, "file of manufacturers' certificates in PEM; may be given several times")
	c.Flags().StringArrayVar(&material, "reference", nil, "file or folder with revocation lists; may be given several times")
	c.Flags().StringVar(&at, "at", "", "judge as of this time, RFC 3339 (default: now)")
	return c
}

func (s *shell) judgeEK(file string, bundles, material []string, at time.Time) error {
	cert, err := s.readFile(file, maxSecret)
	if err != nil {
		return err
	}
	var authorities []reference.File
	for _, b := range bundles {
		text, err := s.readFile(b, maxBundle)
		if err != nil {
			return err
		}
		authorities = append(authorities, reference.File{Name: b, Data: text})
	}
	checks, err := app.JudgeEK(cert, authorities, material, at)
	if err != nil {
		return err
	}
	failed, refused := checks.Refused()
	out := struct {
		At      time.Time       `json:"at"`
		Verdict string          `json:"verdict"`
		Checks  evidence.Checks `json:"checks"`
	}{at.UTC(), map[bool]string{false: "accepted", true: "refused"}[refused], checks}
	if err := s.print(out, func() error { return s.showChecks(checks) }); err != nil {
		return err
	}
	if refused {
		return fault.Deniedf("the certificate is refused by the check %s: %s", failed.Name, failed.Reason)
	}
	return nil
}

// maxBundle bounds a file of authorities, in bytes.
const maxBundle = 8 << 20
