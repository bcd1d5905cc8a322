package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

type object = map[string]any

func words(s ...string) []any {
	out := []any{}
	for _, w := range s {
		out = append(out, w)
	}
	return out
}

func line(t testing.TB, pub any) string {
	t.Helper()
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

// authority is a certificate authority as the host has it.
type authority struct {
	signer ssh.Signer
	host   map[string]string
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	caPub, caKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	userPub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(caKey)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	return authority{signer, map[string]string{
		hostSerial: "18446744073709551615", hostKeyID: "grant 1", hostPublicKey: line(t, userPub), hostCAPublicKey: line(t, caPub),
		hostValidAfter: strconv.FormatInt(now.Add(-time.Minute).Unix(), 10), hostValidBefore: strconv.FormatInt(now.Add(5*time.Minute).Unix(), 10),
	}}
}

// sign makes the certificate as the host does: TBS and the signature over it.
func (a authority) sign(t testing.TB, tbs []byte) *ssh.Certificate {
	t.Helper()
	sig, err := a.signer.Sign(rand.Reader, tbs)
	if err != nil {
		t.Fatal(err)
	}
	blob := ssh.Marshal(sig)
	out := binary.BigEndian.AppendUint32(bytes.Clone(tbs), uint32(len(blob)))
	key, err := ssh.ParsePublicKey(append(out, blob...))
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ssh.Certificate)
}

func issue(ctx context.Context, r plugin.Request) (plugin.Issued, error) {
	return new(issuer).issue(ctx, r)
}

func request(host map[string]string, p object, bounds object) plugin.Request {
	return plugin.Request{
		Scope:  plugin.Scope{Kind: kind, Params: p, TTL: 5 * time.Minute},
		Bounds: plugin.Bounds{Kind: kind, MaxParams: bounds, MaxTTL: time.Hour},
		Host:   host,
	}
}

func TestIssue_MakesWhatOpenSSHReads(t *testing.T) {
	a := newAuthority(t)
	out, err := issue(t.Context(), request(a.host, object{
		"principals": words("alice", "deploy"), "source_addresses": words("10.1.2.3/8", "2001:db8::1"),
		"extensions": words("permit-pty", "permit-port-forwarding"),
	}, object{
		"principals": words("alice", "bob"), "extensions": words("permit-pty"), "source_addresses": words("10.20.0.0/16", "2001:db8::/32"),
		"force_command": "uptime",
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := a.sign(t, out.Value)
	checker := ssh.CertChecker{
		IsUserAuthority: func(k ssh.PublicKey) bool {
			return bytes.Equal(k.Marshal(), a.signer.PublicKey().Marshal())
		},
		SupportedCriticalOptions: []string{"source-address", "force-command"},
	}
	if err := checker.CheckCert("alice", c); err != nil {
		t.Fatal(err)
	}
	if err := checker.CheckCert("deploy", c); err == nil {
		t.Fatal("valid for a principal that policy does not allow")
	}
	if c.Serial != 1<<64-1 || c.KeyId != "grant 1" || c.CertType != ssh.UserCert {
		t.Fatalf("%+v", c)
	}
	if got := c.CriticalOptions["source-address"]; got != "10.20.0.0/16,2001:db8::1/128" {
		t.Fatalf("source-address %q", got)
	}
	if c.CriticalOptions["force-command"] != "uptime" || len(c.Extensions) != 1 {
		t.Fatalf("%+v", c.Permissions)
	}
	if out.Scope.TTL != 5*time.Minute || out.ExpiresAt.Unix() != int64(c.ValidBefore) {
		t.Fatalf("%+v", out.Scope)
	}
	if got := out.Scope.Params["principals"].([]string); !slices.Equal(got, []string{"alice"}) {
		t.Fatalf("granted %v", got)
	}
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("skipped: needs ssh-keygen")
	}
	file := filepath.Join(t.TempDir(), "id-cert.pub")
	if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(c), 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := exec.Command(keygen, "-L", "-f", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, seen)
	}
	for _, want := range []string{"user certificate", `Key ID: "grant 1"`, "alice", "source-address 10.20.0.0/16,2001:db8::1/128", "force-command uptime", "permit-pty"} {
		if !strings.Contains(string(seen), want) {
			t.Errorf("ssh-keygen does not show %q:\n%s", want, seen)
		}
	}
}

func TestIssue_WithoutRestrictions(t *testing.T) {
	a := newAuthority(t)
	out, err := issue(t.Context(), request(a.host, object{"principals": words("root")}, nil))
	if err != nil {
		t.Fatal(err)
	}
	c := a.sign(t, out.Value)
	if len(c.CriticalOptions) != 0 || len(c.Extensions) != 0 {
		t.Fatalf("%+v", c.Permissions)
	}
	if len(out.Anomalies) != 1 || out.Anomalies[0].Code != "principal-root" {
		t.Fatalf("%+v", out.Anomalies)
	}
	again, err := issue(t.Context(), request(a.host, object{"principals": words("root")}, nil))
	if err != nil || bytes.Equal(out.Value, again.Value) {
		t.Fatalf("the nonce repeats: %v", err)
	}
}

// What the request does not name, policy's bounds fill in.
func TestIssue_TakesTheBoundsForWhatIsNotAsked(t *testing.T) {
	a := newAuthority(t)
	out, err := issue(t.Context(), request(a.host, object{"principals": words("alice"), "public_key": a.host[hostPublicKey]}, object{
		"source_addresses": words("127.0.0.0/8", "10.0.0.0/8"), "extensions": words("permit-pty"),
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := a.sign(t, out.Value)
	if _, pty := c.Extensions["permit-pty"]; !pty || len(c.Extensions) != 1 || c.CriticalOptions["source-address"] != "127.0.0.0/8,10.0.0.0/8" {
		t.Fatalf("%+v", c.Permissions)
	}
	if out.Scope.Params["public_key"] != a.host[hostPublicKey] {
		t.Fatalf("the key is missing in %v", out.Scope.Params)
	}
}

func TestIssue_TakesAKeyThatPolicyLists(t *testing.T) {
	a := newAuthority(t)
	key := a.host[hostPublicKey]
	for _, bound := range []any{key, words("ssh-ed25519 AAAA", key)} {
		p := object{"principals": words("alice"), "public_key": key}
		if _, err := issue(t.Context(), request(a.host, p, object{"public_key": bound})); err != nil {
			t.Errorf("%v: %v", bound, err)
		}
	}
	p := object{"principals": words("alice"), "public_key": key}
	if _, err := issue(t.Context(), request(a.host, p, object{"public_key": words("ssh-ed25519 AAAA")})); err == nil {
		t.Error("a key that policy does not list was not refused")
	}
}

func TestIssue_Refuses(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 2000)
	for name, c := range map[string]struct {
		params, bounds object
		host           map[string]string
		ttl            time.Duration
	}{
		"no principal":                              {params: object{}},
		"empty principals":                          {params: object{"principals": words()}},
		"principal with comma":                      {params: object{"principals": words("a,b")}},
		"principal wildcard":                        {params: object{"principals": words("*")}},
		"principal with space":                      {params: object{"principals": words("a b")}},
		"long principal":                            {params: object{"principals": words(long)}},
		"principals as text":                        {params: object{"principals": "alice"}},
		"principal as number":                       {params: object{"principals": []any{1.0}}},
		"unknown parameter":                         {params: object{"principals": words("a"), "root": true}},
		"no address":                                {params: object{"principals": words("a"), "source_addresses": words()}},
		"bad address":                               {params: object{"principals": words("a"), "source_addresses": words("10.0.0.0/33")}},
		"address with zone":                         {params: object{"principals": words("a"), "source_addresses": words("fe80::1%eth0")}},
		"mapped address":                            {params: object{"principals": words("a"), "source_addresses": words("::ffff:10.0.0.1")}},
		"unknown extension":                         {params: object{"principals": words("a"), "extensions": words("permit-everything")}},
		"command of two lines":                      {params: object{"principals": words("a"), "force_command": "a\nb"}},
		"empty command":                             {params: object{"principals": words("a"), "force_command": ""}},
		"no principal allowed":                      {params: object{"principals": words("a")}, bounds: object{"principals": words("b")}},
		"no extension allowed":                      {params: object{"principals": words("a"), "extensions": words("permit-pty")}, bounds: object{"extensions": words()}},
		"no address allowed":                        {params: object{"principals": words("a"), "source_addresses": words("10.0.0.0/8")}, bounds: object{"source_addresses": words("192.0.2.0/24")}},
		"another command":                           {params: object{"principals": words("a"), "force_command": "sh"}, bounds: object{"force_command": "uptime"}},
		"malformed bounds":                          {params: object{"principals": words("a")}, bounds: object{"principals": "a"}},
		"another key":                               {params: object{"principals": words("a"), "public_key": newAuthority(t).host[hostPublicKey]}},
		"no extension asked, and policy lists some": {params: object{"principals": words("a"), "extensions": words()}, bounds: object{"extensions": words("permit-pty")}},
		"policy lists keys, and none is brought":    {params: object{"principals": words("a")}, bounds: object{"public_key": words(newAuthority(t).host[hostPublicKey])}},
		"policy bounds what is not there":           {params: object{"principals": words("a")}, bounds: object{"region": "eu"}},
		"no serial":                                 {params: object{"principals": words("a")}, host: with(hostSerial, "")},
		"serial zero":                               {params: object{"principals": words("a")}, host: with(hostSerial, "0")},
		"no key":                                    {params: object{"principals": words("a")}, host: with(hostPublicKey, "")},
		"weak key":                                  {params: object{"principals": words("a")}, host: with(hostPublicKey, line(t, &weak.PublicKey))},
		"key with options":                          {params: object{"principals": words("a")}, host: with(hostPublicKey, `command="x" `+newAuthority(t).host[hostPublicKey])},
		"no authority":                              {params: object{"principals": words("a")}, host: with(hostCAPublicKey, "x")},
		"no key id":                                 {params: object{"principals": words("a")}, host: with(hostKeyID, "")},
		"key id of two lines":                       {params: object{"principals": words("a")}, host: with(hostKeyID, "a\nb")},
		"end before begin":                          {params: object{"principals": words("a")}, host: with(hostValidBefore, "5")},
		"longer than the scope":                     {params: object{"principals": words("a")}, ttl: time.Minute},
		"no time to live":                           {params: object{"principals": words("a")}, ttl: -1},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			for k, v := range c.host {
				a.host[k] = v
			}
			r := request(a.host, c.params, c.bounds)
			if c.ttl != 0 {
				r.Scope.TTL = c.ttl
			}
			out, err := issue(t.Context(), r)
			if err == nil || len(out.Value) != 0 {
				t.Fatalf("issued %+v", out)
			}
		})
	}
}

func with(k, v string) map[string]string { return map[string]string{k: v} }

func TestIssue_RefusesACertificateAsKey(t *testing.T) {
	a := newAuthority(t)
	out, err := issue(t.Context(), request(a.host, object{"principals": words("a")}, nil))
	if err != nil {
		t.Fatal(err)
	}
	a.host[hostPublicKey] = string(ssh.MarshalAuthorizedKey(a.sign(t, out.Value)))
	if _, err := issue(context.Background(), request(a.host, object{"principals": words("a")}, nil)); err == nil {
		t.Fatal("a certificate was certified")
	}
}

// FuzzParseScope: what is accepted makes a certificate with the same meaning.
func FuzzParseScope(f *testing.F) {
	f.Add("alice", "10.0.0.0/8", "permit-pty", "uptime")
	f.Add("", "::/0", "", "\x00")
	a := newAuthority(f)
	f.Fuzz(func(t *testing.T, principal, address, extension, cmd string) {
		p := object{"principals": words(principal), "source_addresses": words(address), "extensions": words(extension), "force_command": cmd}
		out, err := issue(t.Context(), request(a.host, p, nil))
		if err != nil {
			return
		}
		c := a.sign(t, out.Value)
		_, extended := c.Extensions[extension]
		if !slices.Equal(c.ValidPrincipals, []string{principal}) || c.CriticalOptions["force-command"] != cmd || !extended {
			t.Fatalf("%+v", c)
		}
	})
}
