package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

const (
	demoAgentName = "build-7"
	demoPolicy    = "deployers"
	demoPrincipal = "deploy" // one that the example policy allows
	demoMostTTL   = 15 * time.Minute
)

// vendStep admits an agent and lets it ask for what it may have, and for what
// it may not.
func (d *demo) vendStep(ctx context.Context, n *demoNotes) error {
	_, err := d.operator.Invite(ctx, sallyport.InviteRequest{Kind: "agent", Role: "deployer"})
	why, err := demoRefused(err, "a role that no policy knows", fault.Denied, fault.Invalid)
	if err != nil {
		return err
	}
	n.say("the operator invites an agent with the role deployer: %s", why)
	set, err := d.operator.SetPolicy(ctx, demoPolicy, "sallyport", policy.ExampleSSH())
	if err != nil {
		return err
	}
	n.say("the operator sets the example policy %s, version %d: deployers may log in as deploy or rollback, for 15 minutes", set.Name, set.Version)
	if d.agent, err = d.enrol(ctx, n, demoAgentName, "deployer"); err != nil {
		return err
	}
	who, err := d.agent.Whoami(ctx)
	if err != nil {
		return err
	}
	if err := demoMust(who.Session != nil, "the agent acts without a session"); err != nil {
		return err
	}
	n.say("it opens a session, bound to its certificate, until %s", when(who.Session.ExpiresAt))
	if err := d.vend(ctx, n); err != nil {
		return err
	}
	if err := d.showCertificate(ctx, n); err != nil {
		return err
	}
	return d.tooMuch(ctx, n)
}

// enrol invites an agent, and enrols as the agent, which keeps its identity as
// a context.
func (d *demo) enrol(ctx context.Context, n *demoNotes, name, role string) (*sallyport.Client, error) {
	invited, err := d.operator.Invite(ctx, sallyport.InviteRequest{Kind: "agent", Role: role, Name: name})
	if err != nil {
		return nil, err
	}
	who, err := sallyport.Enrol(ctx, invited.Token.Reveal(), name)
	if err != nil {
		return nil, err
	}
	n.say("%s enrols as %s with a one-time join token, trusting no CA key but %s", who.Subject.Name, who.Subject.Role, invited.CAHash)
	c := identity{Name: name, URL: who.URL, Subject: who.Subject.ID, Kind: who.Subject.Kind}
	if err := d.me.keep(d.home, c, []byte(who.CertificatePEM), []byte(who.KeyPEM.Reveal()), []byte(who.RootPEM)); err != nil {
		return nil, err
	}
	return sallyport.New(sallyport.Config{URL: who.URL, Roots: who.Roots(), Certificate: &who.Certificate})
}

// vend gets the certificate for a key that never leaves the agent.
func (d *demo) vend(ctx context.Context, n *demoNotes) error {
	var err error
	if d.public, err = d.newKey(); err != nil {
		return err
	}
	n.say("it makes a key, and asks for an ssh-user-cert: principals [%s], from 127.0.0.1, for one hour", demoPrincipal)
	d.cred, err = d.agent.Vend(ctx, sallyport.VendRequest{Kind: "ssh-user-cert", TTL: time.Hour, Params: map[string]any{
		"public_key": d.public, "principals": []string{demoPrincipal}, "source_addresses": []string{"127.0.0.1"},
	}})
	if err != nil {
		return err
	}
	life := d.cred.ExpiresAt.Sub(d.cred.IssuedAt)
	if err := demoMust(life > 0 && life <= demoMostTTL, "the certificate lives %s, longer than policy allows", life); err != nil {
		return err
	}
	params, err := json.Marshal(d.cred.Params)
	if err != nil {
		return fault.Wrap(err, "encode parameters")
	}
	n.say("granted by %s %s: %s, for %s", d.cred.Plugin.Name, d.cred.Plugin.Version, params, life.Round(time.Second))
	n.say("grant %s", d.cred.Grant)
	return create(d.idFile+"-cert.pub", []byte(strings.TrimSpace(d.cred.Value.Reveal())+"\n"), 0o600)
}

// newKey makes the agent's SSH key, in a form that ssh reads, and gives the
// public one as a line of authorized_keys (RFC 5656, 3.1).
func (d *demo) newKey() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fault.Wrap(err, "make key")
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", fault.Wrap(err, "encode key")
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return "", fault.Wrap(err, "encode public key")
	}
	folder := d.at("agent")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return "", fileFault(folder, err)
	}
	d.idFile = filepath.Join(folder, "id")
	var blob []byte
	for _, part := range [][]byte{[]byte("ecdsa-sha2-nistp256"), []byte("nistp256"), point} {
		blob = binary.BigEndian.AppendUint32(blob, uint32(len(part))) //nolint:gosec // a few bytes
		blob = append(blob, part...)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return "ecdsa-sha2-nistp256 " + base64.StdEncoding.EncodeToString(blob), create(d.idFile, text, 0o600)
}

// showCertificate lets OpenSSH itself say what was vended.
func (d *demo) showCertificate(ctx context.Context, n *demoNotes) error {
	keygen, err := demoTool("ssh-keygen", "openssh-client")
	if err != nil {
		n.say("(ssh-keygen is not here to show the certificate)")
		return nil //nolint:nilerr // the steps that cannot do without it say so
	}
	out, said, err := d.command(ctx, keygen, "-L", "-f", d.idFile+"-cert.pub")
	if err != nil {
		return fault.Unavailablef("ssh-keygen -L: %s", strings.TrimSpace(said)).Because(err)
	}
	n.say("$ ssh-keygen -L -f id-cert.pub")
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	for _, line := range lines[1:] { // the first names the file
		n.say("%s", line)
	}
	return demoMust(strings.Contains(out, "user certificate") && strings.Contains(out, demoPrincipal), "ssh-keygen shows another certificate")
}

// tooMuch asks for an account that policy does not allow.
func (d *demo) tooMuch(ctx context.Context, n *demoNotes) error {
	begun := time.Now()
	_, err := d.agent.Vend(ctx, sallyport.VendRequest{
		Kind: "ssh-user-cert", TTL: time.Minute, Params: map[string]any{"principals": []string{"root"}},
	})
	why, err := demoRefused(err, "a certificate for root", fault.Denied)
	if err != nil {
		return err
	}
	n.say("it asks for principals [root]: %s", why)
	return demoWait(ctx, 5*time.Second, "the record of this refusal", func() (bool, error) {
		page, err := d.operator.Records(ctx, sallyport.RecordQuery{Newest: true, Limit: 20})
		if err != nil {
			return false, err
		}
		for _, r := range page.Items {
			var rec struct {
				ID, Type, Outcome string
				At                time.Time
				Actor             struct{ Kind string }
				Reasons           []string
			}
			if err := json.Unmarshal(r.Record, &rec); err != nil {
				return false, fault.Wrap(err, "read record")
			}
			if rec.Outcome == "denied" && rec.Actor.Kind == "agent" && rec.At.After(begun.Add(-time.Second)) {
				n.say("recorded: %s", demoShort(fmt.Sprintf("position %d, %s %s, %s", r.Position, rec.Type, rec.Outcome, strings.Join(rec.Reasons, "; "))))
				return true, nil
			}
		}
		return false, nil
	})
}

// demoShort cuts a line that is too long to read.
func demoShort(line string) string {
	if len(line) <= 160 {
		return line
	}
	return line[:157] + "..."
}
