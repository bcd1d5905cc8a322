package app

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
)

const trusteeTOML = `
session_storage_type = "Redis"

[http_server]
sockets = ["0.0.0.0:8080", "[::]:8081"]
private_key = "/etc/kbs/key.pem"
certificate = "/etc/kbs/cert.pem"
payload_request_size = 10
worker_count = 4
tls_profile = "custom"
tls_min_version = "TLSv1.2"
tls_groups = ["X25519MLKEM768", "X25519"]
new_member = true

[attestation_token]
trusted_certs_paths = ["/etc/kbs/as.pem"]
trusted_jwk_sets = ["file:///etc/kbs/jwks.json", "https://as.example.org/jwks"]
extra_teekey_paths = ["/x/y"]

[attestation_service]
type = "coco_as_builtin"
timeout = 10

[attestation_service.attestation_token_broker]
duration_min = 10
issuer_name = "as.example.org"
policy_dir = "/opt/policies"
[attestation_service.attestation_token_broker.signer]
key_path = "/etc/as/key.pem"
cert_path = "/etc/as/chain.pem"

[attestation_service.rvps_config]
type = "BuiltIn"

[storage_backend]
storage_type = "Postgres"
[storage_backend.backends.postgres]
password = "hunter2"

[admin]
authorization_mode = "AuthenticatedAuthorization"
[[admin.authentication.bearer_jwt.identity_providers]]
issuer = "issuer"
audience = "kbs"
public_key_uri = "file:///etc/kbs/admin.pub"
[[admin.authentication.bearer_jwt.identity_providers]]
jwk_set_uri = "https://id.example.org"
[[admin.authorization.regex_acl.acls]]
role = "admin"
allowed_endpoints = ["^/kbs/.+$"]

[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
[[plugins]]
name = "pkcs11"
module = "/usr/lib/x.so"
`

// Every member ends either in our configuration, which is right, or in a note.
func TestImportTrustee_CarriesThePresentKeys(t *testing.T) {
	got, err := ImportTrustee([]byte(trusteeTOML), "alice")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got.Config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(text, "/srv")
	if err != nil {
		t.Fatalf("what was imported is not right: %v\n%s", err, text)
	}
	guests := c.Listen.Further[1]
	if guests.Address != "[::]:8081" || guests.Plain || guests.Key != "/etc/kbs/key.pem" || guests.TLS.Profile != "custom" || guests.TLS.MinVersion != "1.2" || len(guests.TLS.Groups) != 2 {
		t.Errorf("the listener is %+v", guests)
	}
	wantToken := AttestationToken{
		TrustedCertificates: []string{"/etc/kbs/as.pem"}, TrustedKeySets: []string{"/etc/kbs/jwks.json", "https://as.example.org/jwks"}, TEEKeyPointers: []string{"/x/y"},
	}
	if d := cmp.Diff(wantToken, c.KBS.AttestationToken); d != "" {
		t.Error(d)
	}
	wantResults := AttestationResults{Issuer: "as.example.org", Life: "10m", Certificate: true}
	if d := cmp.Diff(wantResults, c.KBS.AttestationResults); d != "" {
		t.Error(d)
	}
	wantAdmin := KBSAdmin{
		Mode: "bearer_jwt", As: "alice",
		IdentityProviders: []IdentityProvider{{Issuer: "issuer", Audience: "kbs", PublicKey: "/etc/kbs/admin.pub"}, {KeySet: "https://id.example.org"}},
		Access:            []KBSAccess{{"admin", []string{"^/kbs/.+$"}}},
	}
	if d := cmp.Diff(wantAdmin, c.KBS.Admin); d != "" {
		t.Error(d)
	}
	notes := strings.Join(got.Notes, "\n")
	for _, about := range []string{
		"http_server.new_member: this member is not known", "payload_request_size", "attestation_service.timeout", "attestation_token_broker.signer: ", "lie in /opt/policies", "rvps_config",
		"PostgreSQL", "session_storage_type", "plugins.pkcs11", "kbs.admin.as", "verifiers.enabled",
	} {
		if !strings.Contains(notes, about) {
			t.Errorf("no note is about %s:\n%s", about, notes)
		}
	}
	if strings.Contains(notes+string(text), "hunter2") {
		t.Error("a password is repeated")
	}
}

func TestImportTrustee_CarriesOlderKeys(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		mode  string
		plain bool
		note  string
	}{
		"local files":       {"[storage_backend]\nstorage_type = \"LocalFs\"\n[storage_backend.backends.local_fs]\ndir_path = \"/srv/kbs\"\n", "operators", false, "/srv/kbs/repository"},
		"flat TOML":         {"sockets = [\"127.0.0.1:8080\"]\nauth_public_key = \"/etc/kbs/admin.pub\"\ninsecure_http = true\n\n[repository_config]\ntype = \"LocalFs\"\ndir_path = \"/srv/secrets\"\n", "bearer_jwt", true, "/srv/secrets"},
		"simple":            {"[http_server]\ninsecure_http = true\n[admin]\ntype = \"Simple\"\nauth_public_key = \"/etc/kbs/admin.pub\"\n", "bearer_jwt", true, "role = admin"},
		"personas":          {"[http_server]\ninsecure_http = true\n[admin]\ntype = \"Simple\"\n[[admin.personas]]\nid = \"admin\"\npublic_key_path = \"/etc/kbs/public.pub\"\n", "bearer_jwt", true, `"public_key":"/etc/kbs/public.pub"`},
		"no keys":           {"[http_server]\ninsecure_http = true\n[admin]\ntype = \"Simple\"\n", "operators", true, "names no public key"},
		"resources":         {"[[plugins]]\nname = \"resource\"\nbackend = \"kvstorage\"\ntype = \"LocalFs\"\ndir_path = \"/srv/secrets\"\n", "operators", false, "lie in /srv/secrets"},
		"life of tokens":    {"[attestation_service]\nattestation_token_broker = \"Simple\"\n[attestation_service.attestation_token_config]\nduration_min = 7\n", "operators", false, `"life":"7m"`},
		"insecure_api":      {"[admin]\ninsecure_api = true\nauth_public_key = \"x\"\n[attestation_token]\ninsecure_key = true\n", "insecure_allow_all", false, "insecure_header_jwk"},
		"YAML":              {"http_server:\n  sockets: [127.0.0.1:8080]\n  insecure_http: true\nadmin:\n  authorization_mode: DenyAll\n", "deny_all", true, "verifiers.enabled"},
		"JSON":              {`{"http_server":{"insecure_http":true},"admin":{"authorization_mode":"InsecureAllowAll"}}`, "insecure_allow_all", true, "everybody"},
		"nobody said":       {"[http_server]\ninsecure_http = true\n", "operators", true, "everybody administers Trustee"},
		"remote service":    {"[attestation_service]\ntype = \"coco_as_grpc\"\nas_addr = \"http://as:50004\"\n", "operators", false, "passport mode"},
		"external backends": {"[[plugins]]\nname = \"external\"\nbackends = [{name = \"ai\", endpoint = \"https://p:50051\", ca_cert_path = \"/etc/kbs/ca.pem\", timeout_ms = 3000, tls_mode = \"tls\"}]\n", "operators", false, `"timeout_ms":3000`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ImportTrustee([]byte(c.text), "alice")
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(got.Config)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := Parse(text, "/srv")
			if err != nil {
				t.Fatalf("what was imported is not right: %v\n%s", err, text)
			}
			if ours.KBS.Admin.Mode != c.mode || ours.Listen.Further[0].Plain != c.plain {
				t.Errorf("imported as\n%s", text)
			}
			if strings.Contains(strings.Join(got.Notes, "\n"), "is not known") {
				t.Errorf("something was not known: %q", got.Notes)
			}
			if all := strings.Join(got.Notes, "\n"); !strings.Contains(all, c.note) && !strings.Contains(string(text), c.note) {
				t.Errorf("nothing is about %q:\n%s", c.note, all)
			}
		})
	}
	for _, bad := range []string{"[http_server\n", "a = ", "{", "- x\n- y", "sockets = 1\nsockets = 2\n"} {
		if _, err := ImportTrustee([]byte(bad), "alice"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What is closed by its present key stays closed, whatever older keys say beside it.
func TestImportTrustee_OpensNothing(t *testing.T) {
	for text, want := range map[string]any{
		`{"admin":{"authorization_mode":"AuthenticatedAuthorization","insecure_api":true}}`:          adminJWT,
		`{"insecure_api":true,"admin":{"authorization_mode":"DenyAll"}}`:                             adminNobody,
		`{"admin":{"authorization_mode":"AuthenticatedAuthorization","type":"InsecureAllowAll"}}`:    adminJWT,
		`{"admin":{"authorization_mode":"Other","insecure_api":true,"auth_public_key":"file:///x"}}`: nil,
		`{"insecure_api":true,"admin":{"type":"Simple","auth_public_key":"file:///x"}}`:              adminJWT,
		`{"insecure_api":true}`: adminAnybody,
	} {
		got, err := ImportTrustee([]byte(text), "alice")
		if err != nil {
			t.Fatal(err)
		}
		kbs, _ := got.Config["kbs"].(map[string]any)
		admin, _ := kbs["admin"].(map[string]any)
		if admin["mode"] != want {
			t.Errorf("%s: mode %v, want %v", text, admin["mode"], want)
		}
	}
}

// A section that is no section is named, and not dropped.
func TestImportTrustee_NamesWhatHasAnotherForm(t *testing.T) {
	for _, at := range []string{
		"http_server", "attestation_token", "attestation_service", "storage_backend", "policy_engine", "admin", "plugins", "repository_config",
		"attestation_service.rvps_config", "admin.authentication", "admin.authorization", "admin.authentication.bearer_jwt",
	} {
		for _, value := range []any{"x", []any{"x", 1.0}, true} {
			doc, last := map[string]any{}, at
			if from, to, nested := strings.Cut(at, "."); nested {
				inner := map[string]any{}
				if from == "admin" {
					inner["authorization_mode"] = "AuthenticatedAuthorization"
				}
				doc[from], last = inner, to
				if a, b, deeper := strings.Cut(to, "."); deeper {
					inner[a], last = map[string]any{b: value}, b
				} else {
					inner[to] = value
				}
			} else {
				doc[at] = value
			}
			text, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ImportTrustee(text, "alice")
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if !strings.Contains(strings.Join(got.Notes, "\n"), last+": this member is not known") {
				t.Errorf("%s is dropped: %q", text, got.Notes)
			}
		}
	}
}

func FuzzImportTrustee(f *testing.F) {
	f.Add([]byte(trusteeTOML))
	f.Add([]byte(`{"admin":{"type":"Simple"}}`))
	f.Add([]byte("plugins:\n- name: external\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := ImportTrustee(text, "alice")
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		if _, err := json.Marshal(got.Config); err != nil {
			t.Fatal(err)
		}
	})
}
