package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os/exec"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// leakStep reports the certificate by its fingerprint alone: the scanner that
// found it does not send it on.
func (d *demo) leakStep(ctx context.Context, n *demoNotes) error {
	var err error
	if d.scanner, err = d.enrol(ctx, n, "leak-scanner", "reporter"); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(d.cred.Value.Reveal())))
	n.say("it has found the certificate somewhere, and reports its SHA-256, not the certificate: %x", sum)
	d.reported = time.Now()
	if d.response, err = d.report(ctx); err != nil {
		return err
	}
	took := time.Since(d.reported)
	if err := demoMust(len(d.response.Matches) == 1, "%d grants were found, not the one", len(d.response.Matches)); err != nil {
		return err
	}
	m := d.response.Matches[0]
	n.say("found: grant %s, %s, %s, tag %s, after %d ms", m.Grant, m.Kind, m.State, m.Tag, took.Milliseconds())
	if err := demoMust(m.Grant == d.cred.Grant && m.State == "revoked" && !m.Repeat && m.Failed == "", "another grant was found, or it was not revoked"); err != nil {
		return err
	}
	g, err := d.agent.Grant(ctx, d.cred.Grant)
	if err != nil {
		return err
	}
	n.say("its owner sees: grant %s version %d, %s at %s, %s", g.ID, g.Version, g.State, when(g.EndedAt), g.Reason)
	return demoMust(g.State == "revoked", "the grant is %s", g.State)
}

func (d *demo) report(ctx context.Context) (sallyport.Reaction, error) {
	sum := sha256.Sum256([]byte(strings.TrimSpace(d.cred.Value.Reveal())))
	return d.scanner.ReportLeak(ctx, sallyport.Leak{
		Fingerprint: hex.EncodeToString(sum[:]), Source: "leak-scanner", Location: "a public repository", Reason: "committed by mistake",
		SeenAt: d.reported,
	})
}

// refuseStep lets the host fetch the list of revocations, and logs in again.
func (d *demo) refuseStep(ctx context.Context, n *demoNotes) error {
	before := len(d.sshd.child.said())
	if err := d.fetchKRL(ctx); err != nil {
		return err
	}
	n.say("the host fetches /v1/ssh/krl again")
	_, err := d.login(ctx, d.idFile, "-o", "CertificateFile="+d.idFile+"-cert.pub")
	took := time.Since(d.reported)
	why, err := demoRefused(err, "a revoked certificate, by sshd,", fault.Denied)
	if err != nil {
		return err
	}
	n.say("$ ssh -i id -p %d %s@127.0.0.1", d.sshd.port, d.sshd.login)
	n.say("%s", why)
	if err := demoMust(d.sshdSaid(n, before, "revoked"), "sshd refuses the certificate, but not as revoked"); err != nil {
		return err
	}
	n.say("from the report to the refusal: %d ms", took.Milliseconds())
	return d.queryKRL(ctx, n)
}

// queryKRL asks OpenSSH's own reader.
func (d *demo) queryKRL(ctx context.Context, n *demoNotes) error {
	keygen, err := demoTool("ssh-keygen", "openssh-client")
	if err != nil {
		return err
	}
	out, said, err := d.command(ctx, keygen, "-Q", "-f", d.at("sshd", "krl"), d.idFile+"-cert.pub")
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fault.Wrap(err, "query list")
	}
	said = strings.TrimSpace(out + said)
	n.say("$ ssh-keygen -Q -f krl id-cert.pub")
	n.say("%s", said)
	return demoMust(exit != nil && strings.Contains(said, "REVOKED"), "ssh-keygen does not find the certificate revoked")
}

// notifyStep finds the line that the owner was told, and reports again.
func (d *demo) notifyStep(ctx context.Context, n *demoNotes) error {
	told := ""
	err := demoWait(ctx, 10*time.Second, "the notification", func() (bool, error) {
		for _, line := range strings.Split(d.server.said(), "\n") {
			if strings.Contains(line, d.cred.Grant) && strings.Contains(line, "was revoked") {
				told = line
			}
		}
		return told != "", nil
	})
	if err != nil {
		return err
	}
	n.say("server, on standard error: %s", told)
	old, err := d.agent.Grant(ctx, d.cred.Grant)
	if err != nil {
		return err
	}
	again, err := d.report(ctx)
	if err != nil {
		return err
	}
	now, err := d.agent.Grant(ctx, d.cred.Grant)
	if err != nil {
		return err
	}
	if err := demoMust(len(again.Matches) == 1 && again.Matches[0].Repeat && now.Version == old.Version,
		"the second report was not taken as a repetition"); err != nil {
		return err
	}
	n.say("a second report: grant %s, %s, repeat %t, still version %d", again.Matches[0].Grant, again.Matches[0].State, again.Matches[0].Repeat, now.Version)
	return d.revokedOnce(ctx, n)
}

// revokedOnce counts the revocations of the grant in the ledger.
func (d *demo) revokedOnce(ctx context.Context, n *demoNotes) error {
	count := 0
	err := demoWait(ctx, 5*time.Second, "the record of the second report", func() (bool, error) {
		reports, err := d.operator.Records(ctx, sallyport.RecordQuery{Grant: d.cred.Grant, Type: "grant.reported"})
		if err != nil || len(reports.Items) == 0 {
			return false, err
		}
		revoked, err := d.operator.Records(ctx, sallyport.RecordQuery{Grant: d.cred.Grant, Type: "grant.revoked"})
		count = len(revoked.Items)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	n.say("the ledger has %d revocation of this grant", count)
	return demoMust(count == 1, "the grant was revoked %d times", count)
}
