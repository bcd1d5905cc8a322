package cli

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func agentRevoke(s *shell) *cobra.Command {
	var reason, certificate, session string
	var keep bool
	c := &cobra.Command{
		Use:   "revoke NAME|ID | --certificate FINGERPRINT|SERIAL|FILE | --session ID",
		Short: "Revoke a subject, a certificate or a session, for good",
		Args:  cobra.MaximumNArgs(1),
		Long: `Revoke a subject for good: its certificates and sessions are refused from the
next request on, and this subject cannot come back. Credentials that it was given
are taken back like leaked ones, unless --keep-credentials leaves them: the answer
counts them, and says how many only a person can revoke. With --certificate or
--session only that one is revoked, with what hangs on it: the sessions that are
bound to a certificate, and the sessions that were delegated from either. To stop
somebody for a while, see: sallyport agent lock

A certificate is named by its SHA-256 fingerprint, by its serial where only one
has it, or by a file that holds it; this also works for one of an authority of
your own, and before its first use.`,
		Example: `  sallyport agent revoke build-7 --reason "laptop stolen"
  sallyport agent revoke build-7 --reason "no longer used" --keep-credentials
  sallyport agent revoke --certificate 5f3a...
  sallyport agent revoke --certificate stolen.pem --reason "key copied"
  sallyport agent revoke --session 01K0...`,
		RunE: func(c *cobra.Command, args []string) error {
			given := len(args)
			for _, x := range []string{certificate, session} {
				if x != "" {
					given++
				}
			}
			if keep && len(args) == 0 {
				return fault.Invalidf("--keep-credentials belongs to a subject; a certificate or session takes no credentials with it")
			}
			if given != 1 {
				return fault.Invalidf("say what to revoke, and one thing only: a subject, --certificate FINGERPRINT or --session ID")
			}
			if len(args) == 1 {
				change := sallyport.SubjectChange{Act: "revoke", Reason: reason}
				if keep {
					change.Credentials = "keep"
				}
				return s.act(c.Context(), args[0], change)
			}
			if session != "" {
				return s.revokeSession(c.Context(), session, reason)
			}
			return s.revokeCertificate(c.Context(), certificate, reason)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	c.Flags().BoolVar(&keep, "keep-credentials", false, "leave the subject's live credentials until they expire")
	c.Flags().StringVar(&certificate, "certificate", "", "SHA-256 fingerprint, serial or file of a certificate")
	c.Flags().StringVar(&session, "session", "", "id of a session, or current")
	return c
}

func (s *shell) revokeSession(ctx context.Context, session, reason string) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.EndSession(ctx, session, reason); err != nil {
		return err
	}
	return s.print(map[string]string{"revoked": session}, func() error { return s.line("revoked session %s", session) })
}

func (s *shell) revokeCertificate(ctx context.Context, given, reason string) error {
	name, file, err := s.certificateName(given)
	if err != nil {
		return err
	}
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	out, err := client.RevokeCertificate(ctx, name, reason)
	if err != nil {
		return err
	}
	switch {
	case out.Seen:
	case file:
		s.warn("nobody has shown this certificate here yet; it is refused when it comes")
	default: // openssl's fingerprint is another: it would never be met
		return fault.NotFoundf("no certificate with this fingerprint was shown here: take it from `sallyport agent show`, or name the certificate's file")
	}
	return s.print(out, func() error {
		return s.facts("revoked certificate", out.Certificate.Fingerprint, "serial", out.Certificate.Serial, "issuer", out.Certificate.Issuer,
			"subject", out.Subject, "sessions ended", strconv.Itoa(out.Sessions))
	})
}

// maxCertificates bounds a file with a certificate and its chain.
const maxCertificates = 1 << 20

// certificateName is what the server knows a certificate by: a fingerprint as
// `agent show` lists it, a serial as openssl and others write it, or the
// fingerprint of the certificate in a file. What could be a number is one: a file of such a name is
// written ./cafe.
func (s *shell) certificateName(given string) (name string, file bool, err error) {
	const fingerprint, serial = 64, 40
	digits := strings.ToLower(strings.ReplaceAll(given, ":", ""))
	if n := len(digits); n > 0 && n <= fingerprint && strings.Trim(digits, "0123456789abcdef") == "" {
		if n != fingerprint && n > serial {
			return "", false, fault.Invalidf("a fingerprint has %d hexadecimal digits (SHA-256), a serial at most %d; this has %d", fingerprint, serial, n)
		}
		return digits, false, nil
	}
	text, err := s.readFile(given, maxCertificates)
	if err != nil {
		return "", true, err
	}
	name, err = leafFingerprint(text)
	return name, true, err
}

// leafFingerprint is the SHA-256 of what is signed of the first certificate in a
// file, PEM or DER, in lower-case hex. A file that begins with an authority's is Invalid: revoking
// that would do nothing to those below it.
func leafFingerprint(text []byte) (string, error) {
	der, found := text, false
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			der, found = block.Bytes, true
			break
		}
	}
	cert, err := x509.ParseCertificate(der)
	switch {
	case err != nil && found:
		return "", fault.Invalidf("the first certificate in the file cannot be read").Because(err)
	case err != nil:
		return "", fault.Invalidf("the file holds no certificate, in PEM or DER").Because(err)
	case cert.IsCA:
		return "", fault.Invalidf("the file begins with the certificate of an authority; name the client certificate itself")
	}
	sum := sha256.Sum256(cert.RawTBSCertificate) // as the server does: a signature has several forms
	return hex.EncodeToString(sum[:]), nil
}

// act takes a subject through one step of its life.
func (s *shell) act(ctx context.Context, nameOrID string, change sallyport.SubjectChange) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	id, err := subject(ctx, client, nameOrID)
	if err != nil {
		return err
	}
	x, err := client.ChangeSubject(ctx, id, change)
	if err != nil {
		return err
	}
	s.warnOfLive(x)
	return s.print(x, func() error {
		facts := []string{"name", x.Name, "id", x.ID, "role", x.Role, "team", x.Team, "state", x.State, "reason", x.Reason}
		if r := x.Recalled; r != nil {
			facts = append(facts, "credentials revoked", strconv.Itoa(r.Revoked), "need a person", strconv.Itoa(r.Manual),
				"provider is asked again", some(r.Failed), "dead already", some(r.Expired))
		}
		return s.facts(facts...)
	})
}

// warnOfLive tells, beside the answer, which credentials still work.
func (s *shell) warnOfLive(x sallyport.ChangedSubject) {
	switch r := x.Recalled; {
	case r == nil && x.State == "revoked":
		s.warn("credentials that it was given are kept, and work until they expire: sallyport credential list --subject %s", x.ID)
	case r == nil:
	case r.Manual > 0:
		s.warn("%d credentials are live until a person revokes them: sallyport credential list --subject %s --state manual", r.Manual, x.ID)
	case r.Failed > 0:
		s.warn("%d credentials are live until their provider answers: sallyport credential list --subject %s --state revoking", r.Failed, x.ID)
	}
	if x.Recalled != nil && x.Recalled.Unfinished {
		s.warn("the server goes on revoking its credentials: sallyport agent show %s", x.ID)
	}
}

func some(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func agentLock(s *shell) *cobra.Command {
	change := sallyport.SubjectChange{Act: "lock"}
	recall := false
	c := &cobra.Command{
		Use: "lock NAME|ID", Short: "Stop a subject for a while", Args: cobra.ExactArgs(1),
		Long: `Stop a subject for a while: deny it everything until it is unlocked. It acts on
the next request. Credentials that it was given go on working until they expire,
unless --revoke-credentials takes them back as agent revoke does.`,
		Example: `  sallyport agent lock build-7 --reason "looked into"
  sallyport agent lock build-7 --reason "odd requests" --revoke-credentials`,
		RunE: func(c *cobra.Command, args []string) error {
			if recall {
				change.Credentials = "revoke"
			}
			return s.act(c.Context(), args[0], change)
		},
	}
	c.Flags().StringVar(&change.Reason, "reason", "", "why, for the ledger")
	c.Flags().BoolVar(&recall, "revoke-credentials", false, "take back what it was given, too")
	return c
}

func agentUnlock(s *shell) *cobra.Command {
	change := sallyport.SubjectChange{Act: "unlock"}
	c := &cobra.Command{
		Use: "unlock NAME|ID", Short: "Let a locked subject act again", Args: cobra.ExactArgs(1),
		Long: `Let a locked subject act again as before, from the next request on. While its
credentials are still being revoked it stays locked.`,
		Example: `  sallyport agent unlock build-7 --reason "looked into"`,
		RunE: func(c *cobra.Command, args []string) error {
			return s.act(c.Context(), args[0], change)
		},
	}
	c.Flags().StringVar(&change.Reason, "reason", "", "why, for the ledger")
	return c
}

func agentSetRole(s *shell) *cobra.Command {
	change := sallyport.SubjectChange{Act: "change"}
	c := &cobra.Command{
		Use: "set-role NAME|ID ROLE", Short: "Change a subject's role", Args: cobra.ExactArgs(2),
		Long:    "Change a subject's role, and with --team its team. The certificate stays: the role is in the server's row.",
		Example: "  sallyport agent set-role build-7 reviewer --team platform",
		RunE: func(c *cobra.Command, args []string) error {
			change.Role = args[1]
			return s.act(c.Context(), args[0], change)
		},
	}
	c.Flags().StringVar(&change.Team, "team", "", "the team from now on")
	c.Flags().StringVar(&change.Reason, "reason", "", "why, for the ledger")
	return c
}
