// Package tpmtest runs a real TPM 2.0 in software (swtpm) for tests, and drives
// it with tpm2-tools, which are nobody's code of this house: what they make has
// to be accepted here, and what is made here has to be accepted by them.
package tpmtest

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TPM is a running TPM with a folder for the files of tpm2-tools.
type TPM struct {
	t       testing.TB
	dir     string
	schemes map[string]string // of attestation keys
}

// New makes a TPM with endorsement keys, certificates for them, and banks of
// SHA-1, SHA-256 and SHA-384, and starts it. The test is skipped where swtpm or
// tpm2-tools are absent, and fails in CI.
func New(t testing.TB) *TPM {
	t.Helper()
	for _, program := range []string{"swtpm", "swtpm_setup", "tpm2_quote"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("swtpm and tpm2-tools are needed in CI: %v", err)
			}
			t.Skip("needs swtpm swtpm-tools tpm2-tools")
		}
	}
	dir, err := os.MkdirTemp("", "tpm") // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &TPM{t, dir, map[string]string{}}
	for name, text := range map[string]string{
		"localca.conf":    "statedir = %[1]s/ca\nsigningkey = %[1]s/ca/signkey.pem\nissuercert = %[1]s/ca/issuer.pem\ncertserial = %[1]s/ca/serial\n",
		"localca.options": "--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n",
		"setup.conf":      "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = %[1]s/localca.conf\ncreate_certs_tool_options = %[1]s/localca.options\n",
	} {
		if strings.Contains(text, "%") {
			text = fmt.Sprintf(text, dir)
		}
		p.Write(name, []byte(text))
	}
	for _, d := range []string{"state", "ca"} {
		if err := os.Mkdir(p.Path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p.run("swtpm_setup", "--tpm2", "--tpmstate", p.Path("state"), "--create-ek-cert", "--pcr-banks", "sha1,sha256,sha384", "--config", p.Path("setup.conf"))
	p.start()
	return p
}

func (p *TPM) start() {
	p.t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(p.t.Context()), "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+p.Path("state"), "--server", "type=unixio,path="+p.Path("s"),
		"--ctrl", "type=unixio,path="+p.Path("s.ctrl"), "--flags", "not-need-init,startup-clear")
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 1000 {
		if _, err := os.Stat(p.Path("s.ctrl")); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Fatal("swtpm did not start")
}

// Path is a file in the TPM's folder.
func (p *TPM) Path(name string) string { return filepath.Join(p.dir, name) }

// Read reads a file of the folder.
func (p *TPM) Read(name string) []byte {
	p.t.Helper()
	data, err := os.ReadFile(p.Path(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return data
}

// Write writes one.
func (p *TPM) Write(name string, data []byte) {
	p.t.Helper()
	if err := os.WriteFile(p.Path(name), data, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// Try runs a program in the folder; tpm2-tools talk to this TPM.
func (p *TPM) Try(program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(context.WithoutCancel(p.t.Context()), program, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+p.Path("s"), "TSS2_LOG=all+NONE")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("%s %v: %w: %s", program, args, err, out)
	}
	return out, nil
}

func (p *TPM) run(program string, args ...string) {
	p.t.Helper()
	if _, err := p.Try(program, args...); err != nil {
		p.t.Fatal(err)
	}
}

// Tool runs one of tpm2-tools and frees what it left in the TPM.
func (p *TPM) Tool(name string, args ...string) {
	p.t.Helper()
	p.run("tpm2_"+name, args...)
	p.run("tpm2_flushcontext", "-t")
}

// EK makes the endorsement key of a kind, rsa or ecc, in the file KIND.ek, with
// its public area in KIND.ek.pub.
func (p *TPM) EK(kind string) (public []byte) {
	p.t.Helper()
	p.Tool("createek", "-G", kind, "-c", kind+".ek", "-u", kind+".ek.pub")
	return p.Read(kind + ".ek.pub")[2:] // a TPM2B_PUBLIC
}

// AK makes an attestation key below an endorsement key: its public area and its
// name. Afterwards NAME is its context.
func (p *TPM) AK(ek, name, algorithm, hash, scheme string) (public, objectName []byte) {
	p.t.Helper()
	p.Tool("createak", "-C", ek+".ek", "-c", name, "-G", algorithm, "-g", hash, "-s", scheme, "-u", name+".pub", "-n", name+".name")
	p.schemes[name] = scheme
	return p.Read(name + ".pub")[2:], p.Read(name + ".name")
}

// Activate gives out the secret of a credential; an error is the TPM's refusal.
func (p *TPM) Activate(ek, ak string, blob, secret []byte) ([]byte, error) {
	p.t.Helper()
	p.Write("credential", append([]byte{0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1}, append(append([]byte{}, blob...), secret...)...))
	p.run("tpm2_startauthsession", "--policy-session", "-S", "session")
	p.run("tpm2_policysecret", "-S", "session", "-c", "e")
	_, err := p.Try("tpm2_activatecredential", "-c", ak, "-C", ek+".ek", "-i", "credential", "-o", "secret", "-P", "session:session")
	p.run("tpm2_flushcontext", "-t")
	p.run("tpm2_flushcontext", "-l")
	if err != nil {
		return nil, err
	}
	return p.Read("secret"), nil
}

// Extend extends registers; each of the texts is REGISTER:BANK=HEX[,BANK=HEX].
func (p *TPM) Extend(texts ...string) {
	p.t.Helper()
	for len(texts) > 0 {
		n := min(len(texts), 20)
		p.run("tpm2_pcrextend", texts[:n]...)
		texts = texts[n:]
	}
}

// Quote quotes all registers of a bank with a nonce: the quote, its signature,
// and the values of the registers.
func (p *TPM) Quote(ak, bank, hash string, nonce []byte) (message, signature []byte, registers [][]byte) {
	p.t.Helper()
	p.Tool("quote", "-c", ak, "-l", bank+":all", "-q", hex.EncodeToString(nonce), "-m", "message", "-s", "signature", "-g", hash, "--scheme", p.schemes[ak])
	p.Tool("pcrread", bank, "-o", "registers")
	all := p.Read("registers")
	for size := len(all) / 24; len(all) > 0; all = all[size:] {
		registers = append(registers, all[:size])
	}
	return p.Read("message"), p.Read("signature"), registers
}

// Evidence quotes the SHA-256 bank and writes it as a guest of kind tpm sends
// it. log may be nil.
func (p *TPM) Evidence(ak, hash string, nonce, log []byte) json.RawMessage {
	p.t.Helper()
	message, signature, registers := p.Quote(ak, "sha256", hash, nonce)
	p.Tool("readpublic", "-c", ak, "-f", "der", "-o", "ak.der")
	if _, err := x509.ParsePKIXPublicKey(p.Read("ak.der")); err != nil {
		p.t.Fatal(err)
	}
	pcrs := make([]string, len(registers))
	for i, v := range registers {
		pcrs[i] = hex.EncodeToString(v)
	}
	b64 := base64.StdEncoding.EncodeToString
	out := map[string]any{
		"ak_public": b64(p.Read("ak.der")),
		"tpm_quote": map[string]any{"message": b64(message), "signature": b64(signature), "pcrs": pcrs},
	}
	if log != nil {
		out["event_log"] = b64(log)
	}
	body, err := json.Marshal(out)
	if err != nil {
		p.t.Fatal(err)
	}
	return body
}
