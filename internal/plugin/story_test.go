package plugin

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

// The first-party plugin from source to a to-be-signed certificate, with the
// functions that the command line calls: keygen, build, sign, verify, install.
func TestStory_FirstPartyPlugin(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "sshcert")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", binary, "../../plugins/sshcert")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	spec, err := os.ReadFile("../../plugins/sshcert/plugin.json")
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "sshcert.plugin")
	if _, err := Build(Spec{Manifest: m, Binaries: []Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: binary}}}, file); err != nil {
		t.Fatal(err)
	}
	pair, err := Keygen(filepath.Join(dir, "publisher"))
	if err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(pair.Private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	row, err := NewKey(public(key), m.Publisher, []string{"ssh*"}, "operator", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	trust := Trust{Keys: []Key{row}}
	if _, err := Verify(file, trust); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("an unsigned package: %v", err)
	}
	if _, err := Sign(file, key); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(file, trust); err != nil || r.Verified[0] != pair.ID {
		t.Fatalf("%+v, %v", r, err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	store := newStore(t)
	tampered := bytes.Clone(data)
	tampered[len(tampered)/2] ^= 1
	if _, err := store.Install(bytes.NewReader(tampered), trust); ReasonOf(err) != ReasonDigest {
		t.Fatalf("a tampered copy: %v", err)
	}
	e, err := store.Install(bytes.NewReader(data), trust)
	if err != nil {
		t.Fatal(err)
	}
	installed, err := NewInstalled(e, nil, "operator", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if err := h.Sync(t.Context(), []Installed{installed}, trust); err != nil {
		t.Fatal(err)
	}
	p, err := h.Provider("ssh-user-cert")
	if err != nil {
		t.Fatal(err)
	}
	const ed25519Line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7f5mZ3v0wK2xvS1l0m9K1m3bq2rVnY0o6m2yq0m3Xa"
	q := grant.Scope{Kind: "ssh-user-cert", TTL: 5 * time.Minute, Params: map[string]any{
		"principals": []any{"alice", "root"}, "extensions": []any{"permit-pty"},
	}}
	if err := p.Vet(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	bounds := grant.Bounds{Kind: q.Kind, MaxTTL: time.Minute, MaxParams: map[string]any{
		"principals": []any{"alice"}, "source_addresses": []any{"127.0.0.0/8"},
	}}
	for name, v := range map[string]string{
		"serial": "42", "key_id": "grant", "public_key": ed25519Line, "ca_public_key": ed25519Line,
		"valid_after": "1000", "valid_before": "1060",
	} {
		q.Params["host."+name] = v
	}
	q.Params["public_key"] = ed25519Line // as the host does, so that it is part of the grant
	out, err := p.Issue(t.Context(), q, bounds)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(out.Value.Reveal()[4:]), "ssh-ed25519-cert-v01@openssh.com") {
		t.Fatalf("no certificate: %q", out.Value.Reveal())
	}
	if got := jsonOf(t, out.Scope.Params); got != `{"extensions":["permit-pty"],"principals":["alice"],"public_key":"`+ed25519Line+`","source_addresses":["127.0.0.0/8"]}` {
		t.Fatalf("granted %s", got)
	}
	if err := grant.Within(out.Scope, q, bounds); err != nil {
		t.Fatalf("the caller's own check: %v", err)
	}
	if out.Scope.TTL != time.Minute {
		t.Fatalf("granted for %v", out.Scope.TTL)
	}
	bounds.MaxParams["principals"] = []any{"bob"}
	if _, err := p.Issue(t.Context(), q, bounds); !fault.Is(err, fault.Denied) {
		t.Fatalf("no principal is allowed: %v", err)
	}
}

// The hello world of docs/plugins/writing.md, at most 40 lines.
func TestStory_HelloWorld(t *testing.T) {
	const source = "../../sdk/plugin/testdata/hello"
	code, err := os.ReadFile(source + "/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(code, []byte("\n")); n > 40 {
		t.Fatalf("%d lines", n)
	}
	guide, err := os.ReadFile("../../docs/plugins/writing.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(code), "package main\n")
	spec, err := os.ReadFile(source + "/plugin.json")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(guide), program) || !strings.Contains(string(guide), string(spec)) {
		t.Fatal("docs/plugins/writing.md shows another program or manifest than the one that is tested")
	}
	binary := filepath.Join(t.TempDir(), "hello")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m, err := ReadSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	m.Publisher = "tester"
	r := newRig(t, nil)
	row := r.install(t, r.cfg.Store, r.pack(t, m, binary), 1)
	if err := r.Sync(t.Context(), []Installed{row}, r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	p := r.provider(t, "greeting")
	out, err := p.Issue(t.Context(), ask("greeting", map[string]any{"name": "world"}), limits("greeting"))
	if err != nil || string(out.Value.Reveal()) != "hello, world" {
		t.Fatalf("%+v, %v", out, err)
	}
	if err := p.Vet(t.Context(), ask("greeting", nil)); !fault.Is(err, fault.Invalid) {
		t.Fatalf("got %v", err)
	}
}
