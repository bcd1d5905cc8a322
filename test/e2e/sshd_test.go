package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// host is a real sshd on loopback that trusts a server's SSH CA for the user who
// runs the test, under the principal deploy, and what it fetches of that server.
type host struct {
	w     *world
	dir   string
	port  string
	login string
	log   said
}

// said collects what sshd writes while the test reads it.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const hostConfig = `ListenAddress 127.0.0.1
Port %[1]s
HostKey %[2]s/host
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile none
TrustedUserCAKeys %[2]s/ca.pub
AuthorizedPrincipalsFile %[2]s/principals
RevokedKeys %[2]s/krl
LogLevel VERBOSE
`

// newHost makes a host and starts its sshd.
func newHost(t *testing.T, w *world) *host {
	t.Helper()
	daemon, err := exec.LookPath("sshd")
	if err != nil {
		daemon, err = exec.LookPath("/usr/sbin/sshd")
	}
	need(t, err == nil, "openssh-server")
	me, err := user.Current()
	must(t, err)
	h := &host{w: w, dir: t.TempDir(), login: me.Username}
	if os.Geteuid() == 0 { // where sshd separates its privileges
		must(t, os.MkdirAll("/run/sshd", 0o755))
	}
	_, h.port, err = net.SplitHostPort(freeAddress(t))
	must(t, err)
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", h.at("host")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ca, err := w.admin.SSHAuthority(t.Context())
	must(t, err)
	public, err := os.ReadFile(h.at("host.pub"))
	must(t, err)
	for name, text := range map[string]string{
		"ca.pub": ca, "principals": "deploy\n", "config": fmt.Sprintf(hostConfig, h.port, h.dir), "known": "[127.0.0.1]:" + h.port + " " + string(public),
	} {
		must(t, os.WriteFile(h.at(name), []byte(text), 0o600))
	}
	h.fetch(t)
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, daemon, "-D", "-e", "-f", h.at("config"))
	cmd.Stderr = &h.log
	must(t, cmd.Start())
	t.Cleanup(func() { stop(); _ = cmd.Wait() })
	must(t, Eventually(10*time.Second, func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+h.port)
		if err == nil {
			err = c.Close()
		}
		return err
	}))
	return h
}

func (h *host) at(name string) string { return filepath.Join(h.dir, name) }

// fetch replaces the list of revocations as a whole.
func (h *host) fetch(t *testing.T) {
	t.Helper()
	krl, err := h.w.admin.SSHRevocations(t.Context())
	must(t, err)
	must(t, os.WriteFile(h.at("krl.new"), krl, 0o600))
	must(t, os.Rename(h.at("krl.new"), h.at("krl")))
}

// enters logs in with a credential, from an address, and gives what sshd said if
// it refused.
func (h *host) enters(t *testing.T, c sallyport.Credential, from string) (refusal string) {
	t.Helper()
	must(t, os.WriteFile(h.at("id"), []byte(c.PrivateKey.Reveal()), 0o600))
	must(t, os.WriteFile(h.at("id-cert.pub"), []byte(c.Value.Reveal()+"\n"), 0o600))
	before := len(h.log.String())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ssh", "-F", "none", "-i", h.at("id"),
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "PreferredAuthentications=publickey",
		"-o", "UserKnownHostsFile="+h.at("known"), "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
		"-o", "BindAddress="+from, "-p", h.port, h.login+"@127.0.0.1", "echo in").CombinedOutput()
	switch {
	case err == nil && strings.TrimSpace(string(out)) == "in":
		return ""
	case err == nil || !strings.Contains(string(out), "Permission denied"):
		t.Fatalf("ssh: %v: %s; sshd:\n%s", err, out, h.log.String())
	}
	return h.log.String()[before:]
}

// TestSSHD_BelievesWhatIsVended shows certificates of the built server, made by the
// plugin, to a real sshd: while they live, and for what they were granted.
func TestSSHD_BelievesWhatIsVended(t *testing.T) {
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	h := newHost(t, w)
	vend := func(principal string, ttl time.Duration) sallyport.Credential {
		c, err := agent.client.Vend(t.Context(), sallyport.VendRequest{Kind: "ssh-user-cert", TTL: ttl, Params: map[string]any{
			"principals": []any{principal}, "source_addresses": []any{"127.0.0.1/32"},
		}})
		must(t, err)
		return c
	}
	good, neighbour := vend("deploy", 10*time.Minute), vend("deploy", 10*time.Minute)
	for what, c := range map[string]struct {
		credential sallyport.Credential
		from, says string
	}{
		"as granted":               {good, "127.0.0.1", ""},
		"from another address":     {good, "127.0.0.2", "not from a permitted source address"},
		"another principal":        {vend("rollback", time.Minute), "127.0.0.1", "does not contain an authorized principal"},
		"a life of twenty seconds": {vend("deploy", 20*time.Second), "127.0.0.1", ""},
	} {
		if got := h.enters(t, c.credential, c.from); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: sshd says %q, want %q", what, got, c.says)
		}
	}

	// Its end comes by the clock of sshd alone: nobody tells it.
	short := vend("deploy", time.Second)
	time.Sleep(time.Until(short.ExpiresAt) + 1100*time.Millisecond) // sshd counts whole seconds
	if got := h.enters(t, short, "127.0.0.1"); !strings.Contains(got, "expired") {
		t.Errorf("after its end sshd says %q", got)
	}

	// Revoked, it ends with the next list, and its neighbour does not.
	m, err := agent.client.RevokeGrant(t.Context(), good.Grant, "test")
	must(t, err)
	if m.State != "revoked" {
		t.Fatalf("the grant is %+v", m)
	}
	h.fetch(t)
	if got := h.enters(t, good, "127.0.0.1"); !strings.Contains(got, "revoked by file") {
		t.Errorf("after its revocation sshd says %q", got)
	}
	if got := h.enters(t, neighbour, "127.0.0.1"); got != "" {
		t.Errorf("the neighbour is refused: %s", got)
	}
}
