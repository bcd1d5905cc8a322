package sshca_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/keys/sshca"
)

// server is a real sshd on loopback that trusts one CA for the user that runs
// the test, under the principal "deploy".
type server struct {
	dir   string
	port  int
	login string
	log   lockedBuffer
}

// lockedBuffer collects what sshd says while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startServer(t *testing.T, i *sshca.Issuer) *server {
	t.Helper()
	daemon, keygen := tool(t, "sshd"), tool(t, "ssh-keygen")
	tool(t, "ssh")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: t.TempDir(), login: me.Username}
	if os.Geteuid() == 0 { // where sshd separates its privileges
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), keygen, "-q", "-t", "ed25519", "-N", "", "-f", s.at("host")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.write(t, "ca.pub", i.Public()+"\n")
	s.write(t, "principals", "deploy\n")
	s.revoke(t, i)
	for range 5 { // the free port may be taken before sshd has it
		if s.start(t, daemon) {
			return s
		}
	}
	t.Fatalf("sshd does not start: %s", s.log.String())
	return nil
}

func (s *server) at(name string) string { return filepath.Join(s.dir, name) }

func (s *server) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(s.at(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// revoke replaces the server's list.
func (s *server) revoke(t *testing.T, i *sshca.Issuer, serials ...uint64) {
	t.Helper()
	list := marshal(t, sshca.KRL{
		Version: uint64(len(serials)), Generated: time.Now(),
		Revoked: []sshca.Revoked{{CA: i.Public(), Serials: serials}},
	})
	s.write(t, "krl.new", string(list))
	if err := os.Rename(s.at("krl.new"), s.at("krl")); err != nil {
		t.Fatal(err)
	}
}

func (s *server) start(t *testing.T, daemon string) bool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.write(t, "config", fmt.Sprintf(`Port %d
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
`, s.port, s.at("host"), s.at("ca.pub"), s.at("principals"), s.at("krl")))
	host, err := os.ReadFile(s.at("host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "known", fmt.Sprintf("[127.0.0.1]:%d %s", s.port, host))
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, daemon, "-D", "-e", "-f", s.at("config"))
	cmd.Stderr = &s.log
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed at the end of the test
	}()
	t.Cleanup(func() { stop(); <-ended })
	for {
		if c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))); err == nil {
			_ = c.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// try logs in with a certificate and gives what the command printed.
func (s *server) try(t *testing.T, private, certificate, from string) (string, error) {
	t.Helper()
	s.write(t, "id", private)
	if certificate != "" {
		s.write(t, "id-cert.pub", certificate+"\n")
	} else if err := os.Remove(s.at("id-cert.pub")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", "-F", "none", "-i", s.at("id"),
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "PreferredAuthentications=publickey",
		"-o", "UserKnownHostsFile="+s.at("known"), "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
		"-o", "BindAddress="+from, "-o", "ConnectTimeout=10", "-p", strconv.Itoa(s.port), s.login+"@127.0.0.1", "echo in")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// TestIssuer_Sign_acceptedAndRefusedBySSHD shows certificates to a real server.
func TestIssuer_Sign_acceptedAndRefusedBySSHD(t *testing.T) {
	i := newIssuer(t)
	s := startServer(t, i)
	holder, private, err := sshca.FreshPair("holder")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	granted := sshca.Decision{
		PublicKey: holder, Principals: []string{"deploy"}, ValidAfter: now.Add(-sshca.Backdate), ValidBefore: now.Add(time.Hour),
		Extensions: []string{"permit-pty"}, Serial: 1, KeyID: "grant",
	}
	sign := func(t *testing.T, i *sshca.Issuer, d sshca.Decision) string {
		t.Helper()
		line, err := i.Sign(toBeSigned(compose(t, i, d)), d)
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	accepted := func(t *testing.T, certificate, from, want string) {
		t.Helper()
		if out, err := s.try(t, string(private.Reveal()), certificate, from); err != nil || out != want {
			t.Fatalf("got %q, %v; sshd:\n%s", out, err, s.log.String())
		}
	}
	refused := func(t *testing.T, certificate, from, why string) {
		t.Helper()
		before := len(s.log.String())
		_, err := s.try(t, string(private.Reveal()), certificate, from)
		if err == nil || !strings.Contains(err.Error(), "Permission denied") {
			t.Fatalf("got %v; sshd:\n%s", err, s.log.String())
		}
		if said := s.log.String()[before:]; !strings.Contains(said, why) {
			t.Errorf("sshd does not say %q:\n%s", why, said)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*sshca.Decision)
		from   string
		prints string // what the session prints; empty: refused
		why    string
	}{
		{"as granted is accepted", func(*sshca.Decision) {}, "127.0.0.1", "in", ""},
		{"the forced command replaces the asked one", func(d *sshca.Decision) { d.ForceCommand = "echo forced" }, "127.0.0.1", "forced", ""},
		{"from an allowed source is accepted", func(d *sshca.Decision) { d.SourceAddresses = []string{"127.0.0.2"} }, "127.0.0.2", "in", ""},
		{"from another source is refused", func(d *sshca.Decision) { d.SourceAddresses = []string{"127.0.0.2"} }, "127.0.0.1", "", "not from a permitted source address"},
		{"another principal is refused", func(d *sshca.Decision) { d.Principals = []string{"backup"} }, "127.0.0.1", "", "does not contain an authorized principal"},
		{"an expired one is refused", func(d *sshca.Decision) {
			d.ValidAfter, d.ValidBefore = now.Add(-2*time.Hour), now.Add(-time.Hour)
		}, "127.0.0.1", "", "expired"},
		{"one of tomorrow is refused", func(d *sshca.Decision) {
			d.ValidAfter, d.ValidBefore = now.Add(24*time.Hour), now.Add(25*time.Hour)
		}, "127.0.0.1", "", "not yet valid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := granted
			c.change(&d)
			if c.prints != "" {
				accepted(t, sign(t, i, d), c.from, c.prints)
				return
			}
			refused(t, sign(t, i, d), c.from, c.why)
		})
	}
	t.Run("of another CA is refused", func(t *testing.T) {
		refused(t, sign(t, newIssuer(t), granted), "127.0.0.1", "Failed publickey")
	})
	t.Run("the key without a certificate is refused", func(t *testing.T) {
		refused(t, "", "127.0.0.1", "Failed publickey")
	})
	t.Run("revoked by its serial is refused, its neighbour is not", func(t *testing.T) {
		d, neighbour := granted, granted
		d.Serial, neighbour.Serial = 41, 42
		certificate := sign(t, i, d)
		accepted(t, certificate, "127.0.0.1", "in")
		s.revoke(t, i, 41)
		refused(t, certificate, "127.0.0.1", "revoked")
		accepted(t, sign(t, i, neighbour), "127.0.0.1", "in")
	})
	t.Run("a short one works and then ends", func(t *testing.T) {
		d := granted
		d.ValidBefore = time.Now().Truncate(time.Second).Add(6 * time.Second)
		certificate := sign(t, i, d)
		accepted(t, certificate, "127.0.0.1", "in")
		time.Sleep(time.Until(d.ValidBefore) + 50*time.Millisecond) // a real server's clock
		refused(t, certificate, "127.0.0.1", "expired")
	})
}
