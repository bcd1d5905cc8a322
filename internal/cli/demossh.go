package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// demoSSHD is a real sshd on loopback. It trusts Sallyport's SSH CA for the user
// who runs the demo, under the principal deploy, and nothing else.
type demoSSHD struct {
	child *demoChild
	ssh   string
	port  int
	login string
}

// loginStep logs in to it with the vended certificate.
func (d *demo) loginStep(ctx context.Context, n *demoNotes) error {
	daemon, err := demoTool("sshd", "openssh-server")
	if err != nil {
		return err
	}
	ssh, err := demoTool("ssh", "openssh-client")
	if err != nil {
		return err
	}
	keygen, err := demoTool("ssh-keygen", "openssh-client")
	if err != nil {
		return err
	}
	if err := d.sshdFiles(ctx, n, keygen); err != nil {
		return err
	}
	d.sshd = &demoSSHD{ssh: ssh}
	me, err := user.Current()
	if err != nil {
		return fault.Wrap(err, "find out who runs the demo")
	}
	d.sshd.login = me.Username
	for range 5 { // the free port may be taken before sshd has it
		if err = d.startSSHD(ctx, daemon); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	n.say("sshd at 127.0.0.1:%d, with TrustedUserCAKeys and RevokedKeys as fetched; no authorized_keys, no password", d.sshd.port)

	before := len(d.sshd.child.said())
	out, err := d.login(ctx, d.idFile, "-o", "CertificateFile="+d.idFile+"-cert.pub")
	if err != nil {
		return err
	}
	n.say("$ ssh -i id -p %d %s@127.0.0.1 'echo logged in as $(id -un)'", d.sshd.port, d.sshd.login)
	n.say("%s", out)
	d.sshdSaid(n, before, "Accepted")
	return demoMust(out == "logged in as "+me.Username, "the session printed %q", out)
}

// sshdFiles makes a host key and fetches CA and revocations as a host would.
func (d *demo) sshdFiles(ctx context.Context, n *demoNotes, keygen string) error {
	if err := os.Mkdir(d.at("sshd"), 0o700); err != nil {
		return fileFault(d.at("sshd"), err)
	}
	if _, said, err := d.command(ctx, keygen, "-q", "-t", "ed25519", "-N", "", "-f", d.at("sshd", "host")); err != nil {
		return fault.Unavailablef("ssh-keygen: %s", strings.TrimSpace(said)).Because(err)
	}
	ca, err := d.operator.SSHAuthority(ctx)
	if err != nil {
		return err
	}
	if err := create(d.at("sshd", "ca.pub"), []byte(ca), 0o644); err != nil {
		return err
	}
	if err := create(d.at("sshd", "principals"), []byte(demoPrincipal+"\n"), 0o644); err != nil {
		return err
	}
	n.say("a host fetches the SSH CA and the list of revocations, which need no login: /v1/ssh/ca and /v1/ssh/krl")
	return d.fetchKRL(ctx)
}

// fetchKRL replaces sshd's list of revoked keys as a whole.
func (d *demo) fetchKRL(ctx context.Context) error {
	krl, err := d.operator.SSHRevocations(ctx)
	if err != nil {
		return err
	}
	return replace(d.at("sshd", "krl"), krl, 0o644)
}

const demoSSHDConfig = `Port %d
ListenAddress 127.0.0.1
HostKey %s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile none
TrustedUserCAKeys %s
AuthorizedPrincipalsFile %s
RevokedKeys %s
LogLevel VERBOSE
`

func (d *demo) startSSHD(ctx context.Context, daemon string) error {
	if os.Geteuid() == 0 { // where sshd separates its privileges
		if err := os.Mkdir("/run/sshd", 0o755); err == nil { //nolint:gosec // as the service makes it
			d.undo = append(d.undo, func() { _ = os.Remove("/run/sshd") })
		}
	}
	free, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fault.Unavailablef("no port is free on loopback").Because(err)
	}
	_, port, err := net.SplitHostPort(free.Addr().String())
	if err = errors.Join(err, free.Close()); err != nil {
		return fault.Wrap(err, "find free port")
	}
	if d.sshd.port, err = strconv.Atoi(port); err != nil {
		return fault.Wrap(err, "read port")
	}
	config := fmt.Sprintf(demoSSHDConfig, d.sshd.port,
		d.at("sshd", "host"), d.at("sshd", "ca.pub"), d.at("sshd", "principals"), d.at("sshd", "krl"))
	if err := replace(d.at("sshd", "config"), []byte(config), 0o600); err != nil {
		return err
	}
	host, err := os.ReadFile(d.at("sshd", "host.pub"))
	if err != nil {
		return fileFault("host.pub", err)
	}
	if err := replace(d.at("sshd", "known"), fmt.Appendf(nil, "[127.0.0.1]:%d %s", d.sshd.port, host), 0o600); err != nil {
		return err
	}
	if d.sshd.child, err = d.start(d.at("sshd", "log"), daemon, "-D", "-e", "-f", d.at("sshd", "config")); err != nil {
		return err
	}
	return demoWait(ctx, 10*time.Second, "the start of sshd", func() (bool, error) {
		if d.sshd.child.gone() {
			return false, fault.Unavailablef("sshd ended: %s", strings.TrimSpace(d.sshd.child.said()))
		}
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil, nil
	})
}

// login runs a command on the server by ssh; a refusal is Denied.
func (d *demo) login(ctx context.Context, key string, options ...string) (string, error) {
	args := append([]string{
		"-F", "none", "-i", key,
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "PreferredAuthentications=publickey",
		"-o", "UserKnownHostsFile=" + d.at("sshd", "known"), "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
		"-o", "ConnectTimeout=10", "-p", strconv.Itoa(d.sshd.port),
	}, options...)
	out, said, err := d.command(ctx, d.sshd.ssh, append(args, d.sshd.login+"@127.0.0.1", "echo logged in as $(id -un)")...)
	said = strings.Join(strings.Fields(said), " ")
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(said, "Permission denied") {
		return "", fault.Deniedf("%s", said).Because(err)
	}
	if err != nil {
		return "", fault.Unavailablef("ssh: %s", said).Because(err)
	}
	return strings.TrimSpace(out), nil
}

// sshdSaid shows the first line of sshd's log after a place that has a word,
// and reports whether there is one.
func (d *demo) sshdSaid(n *demoNotes, from int, word string) bool {
	said := d.sshd.child.said()
	for _, line := range strings.Split(said[min(from, len(said)):], "\n") {
		if strings.Contains(line, word) {
			n.say("sshd: %s", strings.TrimSpace(line))
			return true
		}
	}
	return false
}
