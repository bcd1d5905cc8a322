package sshca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/sshca"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// tool finds a program that a test needs; without it the test is skipped, in CI
// it fails.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs %s (apt package openssh-server)", name)
		}
		t.Skipf("skipped: needs %s (apt package openssh-server)", name)
	}
	return path
}

func newIssuer(t testing.TB) *sshca.Issuer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i, err := sshca.New(private)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func public(t testing.TB, line string) ssh.PublicKey {
	t.Helper()
	k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newDecision is one with every restriction.
func newDecision(t testing.TB) sshca.Decision {
	t.Helper()
	holder, _, err := sshca.FreshPair("holder")
	if err != nil {
		t.Fatal(err)
	}
	return sshca.Decision{
		PublicKey: holder, Principals: []string{"deploy", "backup"},
		ValidAfter: start, ValidBefore: start.Add(time.Hour),
		SourceAddresses: []string{"192.0.2.0/24", "2001:db8::/32"}, ForceCommand: "uptime",
		Extensions: []string{"permit-pty", "permit-port-forwarding"}, Serial: 7, KeyID: "grant 01JD",
	}
}

// compose does the plugin's part: a certificate exactly as granted.
func compose(t testing.TB, i *sshca.Issuer, d sshca.Decision) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{
		Nonce: make([]byte, 32), Key: public(t, d.PublicKey), Serial: d.Serial, CertType: ssh.UserCert, KeyId: d.KeyID,
		ValidPrincipals: d.Principals, ValidAfter: uint64(d.ValidAfter.Unix()), ValidBefore: uint64(d.ValidBefore.Unix()),
		SignatureKey: public(t, i.Public()),
	}
	if _, err := rand.Read(c.Nonce); err != nil {
		t.Fatal(err)
	}
	c.CriticalOptions, c.Extensions = map[string]string{}, map[string]string{}
	if d.ForceCommand != "" {
		c.CriticalOptions["force-command"] = d.ForceCommand
	}
	if d.SourceAddresses != nil {
		c.CriticalOptions["source-address"] = strings.Join(d.SourceAddresses, ",")
	}
	for _, e := range d.Extensions {
		c.Extensions[e] = ""
	}
	return c
}

func toBeSigned(c *ssh.Certificate) []byte {
	b := c.Marshal()
	return b[:len(b)-4]
}

func TestIssuer_Sign_asGranted(t *testing.T) {
	i, d := newIssuer(t), newDecision(t)
	for name, narrow := range map[string]func(*ssh.Certificate){
		"exactly":                func(*ssh.Certificate) {},
		"fewer principals":       func(c *ssh.Certificate) { c.ValidPrincipals = []string{"backup"} },
		"shorter":                func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = c.ValidAfter+5, c.ValidBefore-5 },
		"fewer source addresses": func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "192.0.2.128/25,192.0.2.1" },
		"fewer extensions":       func(c *ssh.Certificate) { delete(c.Extensions, "permit-pty") },
		"no extensions":          func(c *ssh.Certificate) { c.Extensions = nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := compose(t, i, d)
			narrow(c)
			tbs := toBeSigned(c)
			line, err := i.Sign(tbs, d)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := public(t, line).(*ssh.Certificate)
			if !ok {
				t.Fatalf("not a certificate: %s", line)
			}
			if !bytes.Equal(toBeSigned(&ssh.Certificate{Nonce: got.Nonce, Key: got.Key, Serial: got.Serial, CertType: got.CertType, KeyId: got.KeyId, ValidPrincipals: got.ValidPrincipals, ValidAfter: got.ValidAfter, ValidBefore: got.ValidBefore, Permissions: got.Permissions, SignatureKey: got.SignatureKey}), tbs) {
				t.Error("other bytes were signed")
			}
			checker := &ssh.CertChecker{
				SupportedCriticalOptions: []string{"force-command", "source-address"},
				Clock:                    func() time.Time { return start.Add(time.Minute) },
			}
			if err := checker.CheckCert("backup", got); err != nil {
				t.Errorf("the library refuses it: %v", err)
			}
		})
	}
	t.Run("an open source may be narrowed", func(t *testing.T) {
		d := d
		d.SourceAddresses = nil
		c := compose(t, i, d)
		c.CriticalOptions["source-address"] = "198.51.100.0/24"
		if _, err := i.Sign(toBeSigned(c), d); err != nil {
			t.Fatal(err)
		}
	})
}

func TestIssuer_Sign_refusesDeviations(t *testing.T) {
	i, d := newIssuer(t), newDecision(t)
	stranger, other := newDecision(t), newIssuer(t)
	critical := func(name, value string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.CriticalOptions[name] = value }
	}
	for name, c := range map[string]struct {
		change func(*ssh.Certificate)
		says   string
	}{
		"a principal more":           {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"deploy", "root"} }, `"root" was not granted`},
		"no principals":              {func(c *ssh.Certificate) { c.ValidPrincipals = nil }, "everybody"},
		"an empty principal":         {func(c *ssh.Certificate) { c.ValidPrincipals = []string{""} }, "principals"},
		"a principal twice":          {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"deploy", "deploy"} }, "twice"},
		"a later end":                {func(c *ssh.Certificate) { c.ValidBefore++ }, "host.valid_before"},
		"an earlier beginning":       {func(c *ssh.Certificate) { c.ValidAfter-- }, "host.valid_after"},
		"the beginning of time":      {func(c *ssh.Certificate) { c.ValidAfter = 0 }, "host.valid_after"},
		"no end":                     {func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }, "no end"},
		"an end beyond int64":        {func(c *ssh.Certificate) { c.ValidBefore = 1 << 63 }, "no end"},
		"an end before the start":    {func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter }, "ends before"},
		"another holder's key":       {func(c *ssh.Certificate) { c.Key = public(t, stranger.PublicKey) }, "host.public_key"},
		"the CA's own key":           {func(c *ssh.Certificate) { c.Key = c.SignatureKey }, "host.public_key"},
		"another CA":                 {func(c *ssh.Certificate) { c.SignatureKey = public(t, other.Public()) }, "host.ca_public_key"},
		"a host certificate":         {func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, "type"},
		"a certificate of type 0":    {func(c *ssh.Certificate) { c.CertType = 0 }, "type"},
		"another serial":             {func(c *ssh.Certificate) { c.Serial++ }, "host.serial"},
		"serial zero":                {func(c *ssh.Certificate) { c.Serial = 0 }, "host.serial"},
		"another key id":             {func(c *ssh.Certificate) { c.KeyId = "root" }, "host.key_id"},
		"no nonce":                   {func(c *ssh.Certificate) { c.Nonce = nil }, "nonce"},
		"a short nonce":              {func(c *ssh.Certificate) { c.Nonce = c.Nonce[:15] }, "nonce"},
		"a nonce of zeros":           {func(c *ssh.Certificate) { c.Nonce = make([]byte, 32) }, "nonce"},
		"a huge nonce":               {func(c *ssh.Certificate) { c.Nonce = make([]byte, 4096) }, "nonce"},
		"a reserved field":           {func(c *ssh.Certificate) { c.Reserved = []byte{1} }, "reserved"},
		"an unknown critical option": {critical("verify-required", ""), `"verify-required" is not known`},
		"another command":            {critical("force-command", "bash"), "force-command"},
		"an empty command":           {critical("force-command", ""), "force-command"},
		"no command":                 {func(c *ssh.Certificate) { delete(c.CriticalOptions, "force-command") }, "force-command"},
		"no source address":          {func(c *ssh.Certificate) { delete(c.CriticalOptions, "source-address") }, "source-address is not as granted: it is missing"},
		"an empty source address":    {critical("source-address", ""), "source-address"},
		"a wider source address":     {critical("source-address", "192.0.0.0/16"), "192.0.0.0/16 was not granted"},
		"a source one bit wider":     {critical("source-address", "192.0.2.0/23"), "192.0.2.0/23 was not granted"},
		"another source address":     {critical("source-address", "192.0.2.0/24,198.51.100.1"), "198.51.100.1/32 was not granted"},
		"every source address":       {critical("source-address", "0.0.0.0/0"), "was not granted"},
		"a negated source address":   {critical("source-address", "!192.0.2.1"), "source-address"},
		"a source with a wildcard":   {critical("source-address", "192.0.2.*"), "source-address"},
		"a source with host bits":    {critical("source-address", "192.0.2.1/24"), "beyond its prefix"},
		"a mapped source":            {critical("source-address", "::ffff:192.0.2.1"), "maps IPv4"},
		"an extension more":          {func(c *ssh.Certificate) { c.Extensions["permit-agent-forwarding"] = "" }, "permit-agent-forwarding"},
		"an unknown extension":       {func(c *ssh.Certificate) { c.Extensions["no-touch-required"] = "" }, "no-touch-required"},
		"an extension with a value":  {func(c *ssh.Certificate) { c.Extensions["permit-pty"] = "x" }, "no value"},
	} {
		t.Run(name, func(t *testing.T) {
			cert := compose(t, i, d)
			c.change(cert)
			line, err := i.Sign(toBeSigned(cert), d)
			if !fault.Is(err, fault.Denied) || line != "" {
				t.Fatalf("got %q, %v", line, err)
			}
			if !strings.Contains(fault.Public(err), c.says) {
				t.Errorf("the text %q does not name %q", fault.Public(err), c.says)
			}
		})
	}
	t.Run("a command that was not granted", func(t *testing.T) {
		d := d
		d.ForceCommand = ""
		c := compose(t, i, d)
		c.CriticalOptions["force-command"] = "uptime"
		if _, err := i.Sign(toBeSigned(c), d); !fault.Is(err, fault.Denied) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestIssuer_Sign_refusesOtherBytes(t *testing.T) {
	i, d := newIssuer(t), newDecision(t)
	tbs := toBeSigned(compose(t, i, d))
	signed, err := i.Sign(tbs, d)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"a public key":          public(t, d.PublicKey).Marshal(),
		"a whole certificate":   public(t, signed).Marshal(),
		"a byte more":           append(bytes.Clone(tbs), 0),
		"an empty signature":    append(bytes.Clone(tbs), 0, 0, 0, 0),
		"too much":              make([]byte, sshca.MaxToBeSigned+1),
		"the text of a request": []byte("SSHSIG\x00\x00\x00\x06session"),
	} {
		if _, err := i.Sign(b, d); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for n := range len(tbs) {
		if _, err := i.Sign(tbs[:n], d); err == nil {
			t.Fatalf("signed the first %d bytes", n)
		}
	}
	t.Run("an option in the long form of nothing", func(t *testing.T) {
		// permit-pty with a value that is a string of no length: the library
		// reads it as empty, the bytes are not canonical.
		name := append(binary.BigEndian.AppendUint32(nil, 10), "permit-pty"...)
		at := bytes.Index(tbs, name)
		if at < 0 {
			t.Fatal("no permit-pty")
		}
		loose := append(bytes.Clone(tbs[:at+len(name)]), 0, 0, 0, 4, 0, 0, 0, 0)
		loose = append(loose, tbs[at+len(name)+4:]...)
		// The length of all extensions stands before the first of them.
		first := bytes.Index(tbs, append(binary.BigEndian.AppendUint32(nil, 22), "permit-port-forwarding"...))
		size := binary.BigEndian.Uint32(loose[first-4:])
		binary.BigEndian.PutUint32(loose[first-4:], size+4)
		if _, err := i.Sign(loose, d); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "canonical") {
			t.Fatalf("got %v", err)
		}
	})
}

// TestIssuer_Sign_neverWidens flips bits: what is still signed must lie within
// the decision, which only the nonce leaves room for.
func TestIssuer_Sign_neverWidens(t *testing.T) {
	i, d := newIssuer(t), newDecision(t)
	c := compose(t, i, d)
	tbs := toBeSigned(c)
	rapid.Check(t, func(t *rapid.T) {
		mutant := bytes.Clone(tbs)
		for range rapid.IntRange(1, 4).Draw(t, "flips") {
			mutant[rapid.IntRange(0, len(mutant)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		}
		line, err := i.Sign(mutant, d)
		if err != nil {
			return
		}
		k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		got := k.(*ssh.Certificate)
		if got.Serial != d.Serial || got.CertType != ssh.UserCert || !bytes.Equal(got.Key.Marshal(), c.Key.Marshal()) ||
			got.ValidBefore > c.ValidBefore || got.ValidAfter < c.ValidAfter || len(got.ValidPrincipals) != 2 ||
			got.CriticalOptions["force-command"] != "uptime" || !maps.Equal(got.Extensions, c.Extensions) {
			t.Fatalf("signed %+v", got)
		}
	})
}

func TestDecision_Validate_refuses(t *testing.T) {
	for name, change := range map[string]func(*sshca.Decision){
		"no key":                 func(d *sshca.Decision) { d.PublicKey = "" },
		"a key with options":     func(d *sshca.Decision) { d.PublicKey = "no-pty " + d.PublicKey },
		"no principals":          func(d *sshca.Decision) { d.Principals = nil },
		"a principal with comma": func(d *sshca.Decision) { d.Principals = []string{"a,root"} },
		"a principal with space": func(d *sshca.Decision) { d.Principals = []string{"a root"} },
		"a principal with line":  func(d *sshca.Decision) { d.Principals = []string{"a\nroot"} },
		"no serial":              func(d *sshca.Decision) { d.Serial = 0 },
		"no key id":              func(d *sshca.Decision) { d.KeyID = "" },
		"a key id with a line":   func(d *sshca.Decision) { d.KeyID = "a\nAccepted" },
		"no beginning":           func(d *sshca.Decision) { d.ValidAfter = time.Time{} },
		"no time":                func(d *sshca.Decision) { d.ValidBefore = d.ValidAfter },
		"two years":              func(d *sshca.Decision) { d.ValidBefore = d.ValidAfter.Add(2 * sshca.MaxLife) },
		"an empty source list":   func(d *sshca.Decision) { d.SourceAddresses = []string{} },
		"a source with a zone":   func(d *sshca.Decision) { d.SourceAddresses = []string{"fe80::1%eth0"} },
		"an unknown extension":   func(d *sshca.Decision) { d.Extensions = []string{"no-touch-required"} },
		"a command of two lines": func(d *sshca.Decision) { d.ForceCommand = "a\nb" },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecision(t)
			change(&d)
			if err := d.Validate(); !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestParsePublicKey(t *testing.T) {
	line := func(k any) string {
		t.Helper()
		p, err := ssh.NewPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(ssh.MarshalAuthorizedKey(p))
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i, d := newIssuer(t), newDecision(t)
	certificate, err := i.Sign(toBeSigned(compose(t, i, d)), d)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		good bool
	}{
		"ed25519":         {d.PublicKey, true},
		"with comment":    {d.PublicKey + " me@host\n", true},
		"rsa 2048":        {line(&large.PublicKey), true},
		"ecdsa":           {line(&curve.PublicKey), true},
		"rsa 1024":        {line(&small.PublicKey), false},
		"a certificate":   {certificate, false},
		"with options":    {`command="x" ` + d.PublicKey, false},
		"two lines":       {d.PublicKey + "\n" + d.PublicKey, false},
		"a comment first": {"# x\n" + d.PublicKey, false},
		"nothing":         {"", false},
		"too long":        {d.PublicKey + " " + strings.Repeat("x", sshca.MaxPublicKey), false},
	} {
		got, err := sshca.ParsePublicKey(c.text)
		if (err == nil) != c.good || (c.good && !strings.HasPrefix(strings.TrimSpace(c.text), got)) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestLoad_opensTheRowsKey(t *testing.T) {
	ctx := t.Context()
	v, k := newKey(t)
	i, err := sshca.Load(ctx, v, k)
	if err != nil {
		t.Fatal(err)
	}
	if i.Public() != k.Public || !strings.HasPrefix(k.Public, "ssh-ed25519 ") {
		t.Errorf("public %q and %q", i.Public(), k.Public)
	}
	_, other := newKey(t)
	swapped := k
	swapped.Public = other.Public
	if _, err := sshca.Load(ctx, v, swapped); !fault.Is(err, fault.Internal) {
		t.Errorf("a swapped public part: %v", err)
	}
	retiring, err := v.Advance(ctx, k, keys.Retiring, start)
	if err != nil {
		t.Fatal(err)
	}
	if i, err := sshca.Load(ctx, v, retiring); err != nil || i.Public() != k.Public {
		t.Errorf("a retiring key finishes nothing: %v", err)
	}
	retired, err := v.Advance(ctx, retiring, keys.Retired, start)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sshca.Load(ctx, v, retired); !fault.Is(err, fault.Internal) {
		t.Errorf("a retired key signs: %v", err)
	}
}

func TestIssuer_Params(t *testing.T) {
	i, d := newIssuer(t), newDecision(t)
	d.Serial = 1<<64 - 1
	want := map[string]string{
		"host.serial": "18446744073709551615", "host.key_id": "grant 01JD", "host.public_key": d.PublicKey,
		"host.ca_public_key": i.Public(), "host.valid_after": "1772366400", "host.valid_before": "1772370000",
	}
	if got := i.Params(d); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestIssuer_Sign_readableByOpenSSH shows the certificate to ssh-keygen.
func TestIssuer_Sign_readableByOpenSSH(t *testing.T) {
	keygen := tool(t, "ssh-keygen")
	i, d := newIssuer(t), newDecision(t)
	line, err := i.Sign(toBeSigned(compose(t, i, d)), d)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "id-cert.pub")
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), keygen, "-L", "-f", path)
	cmd.Env = append(os.Environ(), "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{
		"user certificate", "Signing CA: ED25519 " + ssh.FingerprintSHA256(public(t, i.Public())), `Key ID: "grant 01JD"`, "Serial: 7",
		"from 2026-03-01T12:00:00 to 2026-03-01T13:00:00", "deploy", "backup", "force-command uptime",
		"source-address 192.0.2.0/24,2001:db8::/32", "permit-pty", "permit-port-forwarding",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("ssh-keygen does not show %q:\n%s", want, out)
		}
	}
}

func FuzzIssuer_Sign(f *testing.F) {
	i, d := newIssuer(f), newDecision(f)
	f.Add(toBeSigned(compose(f, i, d)))
	open := d
	open.ForceCommand, open.SourceAddresses, open.Extensions = "", nil, nil
	f.Add(toBeSigned(compose(f, i, open)))
	f.Add([]byte("\x00\x00\x00\x20ssh-ed25519-cert-v01@openssh.com"))
	f.Fuzz(func(t *testing.T, tbs []byte) {
		line, err := i.Sign(tbs, d)
		if err != nil {
			if kind := fault.KindOf(err); kind != fault.Invalid && kind != fault.Denied {
				t.Fatal(err)
			}
			return
		}
		c, ok := public(t, line).(*ssh.Certificate)
		if !ok || c.Serial != d.Serial || c.KeyId != d.KeyID {
			t.Fatalf("signed %q", line)
		}
	})
}
