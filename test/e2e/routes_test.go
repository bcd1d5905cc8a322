package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
)

// row is one operation with the statuses that it answers to somebody without
// any identity, to an agent with certificate and session, to the same with its
// certificate alone, to an auditor, and to an administrator.
type row struct {
	id, method, path, body                 string
	nobody, agent, bare, auditor, operator int
}

// stage has what the table's paths name.
type stage struct {
	*world
	agent, auditor, victim   person
	victimGrant, victimValue string
	csr                      string
}

func newStage(t *testing.T) *stage {
	_, own := newRepository(t)
	w := equipped(t, Options{Config: map[string]any{"plugins": map[string]any{"repository": own}}})
	s := &stage{world: w}
	s.agent, s.victim = w.enrol("agent", "deployer", "build-7"), w.enrol("agent", "deployer", "victim")
	s.auditor = w.enrol("operator", "auditor", "audrey")
	got := w.vend(s.victim, 10*time.Minute)
	s.victimGrant, s.victimValue = got.Grant, got.Value.Reveal()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	s.csr = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	_, err = w.admin.PutResource(t.Context(), "default", "key", "first", []byte("a secret"))
	must(t, err)
	return s
}

func object(members ...any) string {
	m := map[string]any{}
	for i := 0; i < len(members); i += 2 {
		m[members[i].(string)] = members[i+1]
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// questionInput is a question to the policies as the schema wants it.
var questionInput = map[string]any{
	"action": "enrol", "subject": map[string]any{"kind": "agent", "role": "deployer"},
	"evidence": map[string]any{"kind": "join-token", "verified": true, "role": "deployer"},
	"context":  map[string]any{"time": "2026-01-02T03:04:05Z", "door": "rest"},
}

const (
	freeze    = "package sallyport\nrelease := {\"allow\": false, \"reasons\": [\"freeze\"]} if input.request.kind == \"nothing\"\n"
	wrongJoin = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

func (s *stage) rows() []row {
	thumb := base64.RawURLEncoding.EncodeToString(make([]byte, sha256.Size))
	vend := `{"kind":"ssh-user-cert","params":{"principals":["deploy"],"source_addresses":["127.0.0.1/32"]},"ttl_seconds":60}`
	victim := "/v1/subjects/" + s.victim.Subject.ID
	head := "the record"
	if list, err := s.admin.Records(s.t.Context(), queryOne); err == nil && len(list.Items) == 1 {
		var r struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(list.Items[0].Record, &r) == nil {
			head = r.ID
		}
	}
	key := s.House.PublicKey
	return []row{
		{"enrol", "POST", "/v1/enrol", object("secret", wrongJoin, "csr", s.csr, "name", "x"), 401, 401, 401, 401, 401},
		{"renew", "POST", "/v1/renew", object("csr", s.csr), 401, 201, 201, 201, 201},
		{"whoami", "GET", "/v1/whoami", "", 401, 200, 200, 200, 200},
		{"open-session", "POST", "/v1/sessions", "{}", 401, 401, 201, 201, 201},
		{"refresh-session", "POST", "/v1/sessions/refresh", "{}", 401, 201, 401, 401, 401},
		{"delegate-session", "POST", "/v1/sessions/delegate", object("scopes", []string{"vend:ssh-user-cert"}, "key_thumbprint", thumb), 401, 201, 401, 401, 401},
		{"end-session", "DELETE", "/v1/sessions/current", "", 401, 204, 400, 400, 400},
		{"invite", "POST", "/v1/invitations", object("kind", "agent", "role", "deployer"), 401, 403, 403, 403, 201},
		{"list-subjects", "GET", "/v1/subjects", "", 401, 403, 403, 403, 200},
		{"read-subject", "GET", victim, "", 401, 403, 403, 403, 200},
		{"vend", "POST", "/v1/credentials", vend, 401, 201, 401, 403, 403},
		{"list-credentials", "GET", "/v1/credentials", "", 401, 200, 200, 200, 200},
		{"list-credentials", "GET", "/v1/credentials?subject=all", "", 401, 403, 403, 403, 200},
		{"list-credentials", "GET", "/v1/credentials?subject=" + s.victim.Subject.ID, "", 401, 403, 403, 403, 200},
		{"read-credential", "GET", "/v1/credentials/" + s.victimGrant, "", 401, 403, 403, 403, 200},
		{"report-leak", "POST", "/v1/leaks", object("value", "nothing of ours", "source", "test"), 401, 403, 403, 403, 200},
		{"report-leak", "POST", "/v1/leaks", object("fingerprint", strings.Repeat("ab", 32)), 401, 403, 403, 403, 403},
		{"list-policies", "GET", "/v1/policies", "", 401, 403, 403, 403, 200},
		{"read-policy", "GET", "/v1/policies/base", "", 401, 403, 403, 403, 200},
		{"set-policy", "PUT", "/v1/policies/other", object("kind", "sallyport", "source", freeze), 401, 403, 403, 403, 200},
		{"explain-policy", "POST", "/v1/policies/explain", object("verb", "admit", "input", questionInput), 401, 403, 403, 403, 200},
		{"remove-policy", "DELETE", "/v1/policies/other", "", 401, 403, 403, 403, 204},
		{"list-resources", "GET", "/v1/resources", "", 401, 403, 403, 403, 200},
		{"put-resource", "PUT", "/v1/resources/default/key/second", "value", 401, 403, 403, 403, 200},
		{"read-resource", "GET", "/v1/resources/default/key/first", "", 401, 403, 403, 403, 403}, // until a policy allows it
		{"list-resource-versions", "GET", "/v1/resources/default/key/second/versions", "", 401, 403, 403, 403, 200},
		{"delete-resource", "DELETE", "/v1/resources/default/key/second", "", 401, 403, 403, 403, 204},
		{"list-endorsements", "GET", "/v1/reference/endorsements", "", 401, 403, 403, 403, 200},
		{"import-endorsements", "POST", "/v1/reference/endorsements", object("files", []any{map[string]string{"name": "x", "data": "eA=="}}), 401, 403, 403, 403, 400},
		{"read-endorsement", "GET", "/v1/reference/endorsements/snp-crl%2FGenoa", "", 401, 403, 403, 403, 404},
		{"remove-endorsement", "DELETE", "/v1/reference/endorsements/snp-crl%2FGenoa", "", 401, 403, 403, 403, 404},
		{"list-reference-values", "GET", "/v1/reference/values", "", 401, 403, 403, 403, 200},
		{"set-reference-values", "PUT", "/v1/reference/values", referenceValues, 401, 403, 403, 403, 200},
		{"read-reference-value", "GET", "/v1/reference/values/svn", "", 401, 403, 403, 403, 200},
		{"remove-reference-value", "DELETE", "/v1/reference/values/svn", "", 401, 403, 403, 403, 204},
		{"read-recorded-claims", "GET", "/v1/reference/claims/nothing", "", 401, 403, 403, 403, 404},
		{"list-repositories", "GET", "/v1/repositories", "", 401, 403, 403, 403, 200},
		{"add-repository", "POST", "/v1/repositories", object("name", "some", "url", "https://plugins.example", "root", "e30="), 401, 403, 403, 403, 400},
		{"remove-repository", "DELETE", "/v1/repositories/nothing", "", 401, 403, 403, 403, 404},
		{"deliver-bundle", "POST", "/v1/repositories/nothing/bundles", "no bundle", 401, 403, 403, 403, 400},
		{"list-installations", "GET", "/v1/installations", "", 401, 403, 403, 403, 200},
		{"rollback-plugin", "POST", "/v1/plugins/nothing/rollback", "{}", 401, 403, 403, 403, 404},
		{"upload-package", "POST", "/plugins/upload", "", 401, 400, 400, 400, 400},
		{"read-repository", "GET", "/plugins/repository/metadata/timestamp.json", "", 200, 200, 200, 200, 200},
		{"create-upload-token", "POST", "/v1/upload-tokens", object("publisher", s.House.Publisher, "names", []string{"ssh*"}, "ttl_seconds", 60), 401, 403, 403, 403, 201},
		{"list-upload-tokens", "GET", "/v1/upload-tokens", "", 401, 403, 403, 403, 200},
		{"revoke-upload-token", "DELETE", "/v1/upload-tokens/nothing", "", 401, 403, 403, 403, 404},
		{"list-publishers", "GET", "/v1/publishers", "", 401, 403, 403, 403, 200},
		{"trust-publisher", "POST", "/v1/publishers", object("publisher", "someone", "public_key", key), 401, 403, 403, 403, 409},
		{"distrust-publisher", "DELETE", "/v1/publishers/nothing", "", 401, 403, 403, 403, 404},
		{"retire-publisher-key", "POST", "/v1/publishers/nothing/retire", "{}", 401, 403, 403, 403, 404},
		{"revoke-publisher-key", "POST", "/v1/publishers/nothing/revoke", "{}", 401, 403, 403, 403, 404},
		{"set-publisher-threshold", "PUT", "/v1/publishers/nothing/threshold", object("threshold", 2), 401, 403, 403, 403, 404},
		{"rotate-publisher", "POST", "/v1/publishers/rotations", object("statement", rotationOfNobody(s.t)), 401, 403, 403, 403, 404},
		{"list-plugin-floors", "GET", "/v1/plugins/floors", "", 401, 403, 403, 403, 200},
		{"set-plugin-floor", "PUT", "/v1/plugins/nothing/floor", object("lowest", "1.0.0"), 401, 403, 403, 403, 200},
		{"purge-plugin", "DELETE", "/v1/plugins/nothing/data", "", 401, 403, 403, 403, 404},
		{"install-agentkms-plugin", "POST", "/v1/plugins/agentkms?signature=" + strings.Repeat("A", 86) + "%3D%3D", "no program", 401, 403, 403, 403, 400},
		{"list-plugins", "GET", "/v1/plugins", "", 401, 403, 403, 403, 200},
		{"install-plugin", "POST", "/v1/plugins", "no package", 401, 403, 403, 403, 400},
		{"remove-plugin", "DELETE", "/v1/plugins/nothing", "", 401, 403, 403, 403, 404},
		{"list-keys", "GET", "/v1/keys", "", 401, 403, 403, 403, 200},
		{"rotate-key", "POST", "/v1/keys/cookie/rotate", "", 401, 403, 403, 403, 201},
		{"retire-key", "POST", "/v1/keys/nothing/retire", "{}", 401, 403, 403, 403, 404},
		{"list-records", "GET", "/v1/records", "", 401, 403, 403, 200, 200},
		{"prove-record", "GET", "/v1/records/" + head + "/proof", "", 401, 403, 403, 200, 200},
		{"read-checkpoint", "GET", "/v1/ledger/checkpoint", "", 401, 403, 403, 200, 200},
		{"read-tile", "GET", "/v1/ledger/tile/0/000.p/3", "", 401, 403, 403, 200, 200},
		{"read-entries", "GET", "/v1/ledger/tile/entries/000.p/3", "", 401, 403, 403, 200, 200},
		{"read-ledger-keys", "GET", "/v1/ledger/key", "", 200, 200, 200, 200, 200},
		{"read-status", "GET", "/v1/status", "", 401, 403, 403, 200, 200},
		{"read-ca", "GET", "/v1/ca", "", 200, 200, 200, 200, 200},
		{"read-ssh-ca", "GET", "/v1/ssh/ca", "", 200, 200, 200, 200, 200},
		{"read-ssh-krl", "GET", "/v1/ssh/krl", "", 200, 200, 200, 200, 200},
		{"read-openapi", "GET", "/openapi.json", "", 200, 200, 200, 200, 200},
		{"change-subject", "POST", victim + "/lock", "{}", 401, 403, 403, 403, 200},
		{"change-subject", "POST", victim + "/change", object("role", "reporter"), 401, 403, 403, 403, 200},
		{"change-subject", "POST", victim + "/exalt", "{}", 401, 404, 404, 404, 404},
		{"revoke-certificate", "POST", "/v1/certificates/" + s.victim.Serial + "/revoke", "{}", 401, 403, 403, 403, 200},
		{"revoke-credential", "POST", "/v1/credentials/" + s.victimGrant + "/revoke", "{}", 401, 403, 403, 403, 200},
		{"", "GET", "/v1/nothing", "", 404, 404, 404, 404, 404},
		{"", "PATCH", "/v1/policies/base", "", 405, 405, 405, 405, 405},
		{"", "GET", "/metrics", "", 404, 404, 404, 404, 404},
		{"", "GET", "/", "", 404, 404, 404, 404, 404},

		{"", "POST", "/kbs/v0/auth", `{"version":"0.4.0","tee":"sample","extra-params":{}}`, 401, 401, 401, 401, 401},
		{"", "POST", "/kbs/v0/attest", "{}", 401, 401, 401, 401, 401},
		{"", "GET", "/kbs/v0/resource/default/key/first", "", 401, 401, 401, 401, 401},
		{"", "POST", "/kbs/v0/resource/default/key/kbs", "value", 401, 401, 401, 401, 200},
		{"", "DELETE", "/kbs/v0/resource/default/key/kbs", "", 401, 401, 401, 401, 200},
		{"", "POST", "/kbs/v0/resource-policy", object("policy", base64.RawURLEncoding.EncodeToString([]byte("package policy\nallow := false\n"))), 401, 401, 401, 401, 200},
		{"", "GET", "/kbs/v0/resource-policy", "", 401, 401, 401, 401, 200},
		{"", "POST", "/kbs/v0/attestation-policy", object("policy_id", "x", "policy", ""), 401, 401, 401, 401, 401},
		{"", "GET", "/kbs/v0/other", "", 404, 404, 404, 404, 404},
		{"", "GET", "/kbs/v0/external/plugin/path", "", 404, 404, 404, 404, 404},
	}
}

// TestRoutes_AnswerWhoAsks asks every operation as everybody. Nothing
// administrative is open to an agent, whatever it sends (agentkms.md 10 A3, A6).
func TestRoutes_AnswerWhoAsks(t *testing.T) {
	s := newStage(t)
	rows := s.rows()
	s.complete(rows)
	callers := []struct {
		name string
		want func(row) int
		as   func(*shown)
	}{
		{"nobody", func(r row) int { return r.nobody }, func(*shown) {}},
		{"agent", func(r row) int { return r.agent }, func(r *shown) {
			session, err := s.agent.client.OpenSession(t.Context(), nil) // the table ends some
			must(t, err)
			r.certificate, r.token = &s.agent.Certificate, session.Token.Reveal()
		}},
		{"agent without session", func(r row) int { return r.bare }, func(r *shown) { r.certificate = &s.agent.Certificate }},
		{"auditor", func(r row) int { return r.auditor }, func(r *shown) { r.certificate = &s.auditor.Certificate }},
		{"administrator", func(r row) int { return r.operator }, func(r *shown) { r.certificate = &s.House.Operator }},
	}
	var records []string
	for _, c := range callers {
		for _, r := range rows {
			q := shown{method: r.method, path: r.path, body: r.body}
			if r.id == "put-resource" || r.id == "install-plugin" || r.id == "install-agentkms-plugin" {
				q.kind = "application/octet-stream"
			}
			c.as(&q)
			got := s.send(q)
			if got.status != c.want(r) {
				t.Errorf("%s: %s %s answers %d, want %d: %s", c.name, r.method, r.path, got.status, c.want(r), got.body)
			}
			s.wellFormed(r, got)
			if got.status == http.StatusForbidden || strings.Contains(got.body, "AdminAuthAccess") && q.certificate != nil {
				named := recordName.FindStringSubmatch(got.body)
				if named == nil {
					t.Errorf("%s: %s %s is refused without a record: %s", c.name, r.method, r.path, got.body)
					continue
				}
				records = append(records, named[1])
			}
		}
	}
	s.recorded(records)
}

// recordName is how a refusal names its record.
var recordName = regexp.MustCompile(`\(record ([0-9A-Z]{26})\)`)

// complete demands that the table has every operation of the served document.
func (s *stage) complete(rows []row) {
	var document struct {
		Paths map[string]map[string]struct {
			ID string `json:"operationId"`
		} `json:"paths"`
	}
	got := s.send(shown{method: "GET", path: "/openapi.json"})
	must(s.t, json.Unmarshal([]byte(got.body), &document))
	known := map[string]bool{}
	for _, r := range rows {
		known[r.id] = true
	}
	n := 0
	for path, methods := range document.Paths {
		for method, operation := range methods {
			if n++; !known[operation.ID] {
				s.t.Errorf("%s %s (%s) is not in the table", method, path, operation.ID)
			}
		}
	}
	if n < 40 {
		s.t.Errorf("the document has %d operations", n)
	}
}

// wellFormed demands the door's own form of an error.
func (s *stage) wellFormed(r row, got reply) {
	s.t.Helper()
	kbs := strings.HasPrefix(r.path, "/kbs/")
	if got.header.Get("X-Content-Type-Options") != "nosniff" {
		s.t.Errorf("%s %s lets browsers guess", r.method, r.path)
	}
	if got.status < 400 {
		return
	}
	var p struct {
		Type, Title, Detail, Kind string
		Status                    int
		RequestID                 string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(got.body), &p); err != nil {
		s.t.Errorf("%s %s: the error is no JSON: %s", r.method, r.path, got.body)
		return
	}
	if kbs && (!strings.HasPrefix(p.Type, "https://github.com/confidential-containers/kbs/errors/") || p.Detail == "") {
		s.t.Errorf("%s %s: the error is not the protocol's: %s", r.method, r.path, got.body)
	}
	if !kbs && (p.Type != "about:blank" || p.Status != got.status || p.Kind == "" || p.RequestID == "" || p.Detail == "" ||
		got.header.Get("Content-Type") != "application/problem+json") {
		s.t.Errorf("%s %s: the error is no problem document: %s", r.method, r.path, got.body)
	}
}

// recorded demands that every denial of somebody authenticated is in the ledger
// (decisions.md 3): no header and no path gets around it.
func (s *stage) recorded(names []string) {
	s.t.Helper()
	if len(names) < 80 {
		s.t.Errorf("only %d refusals name a record", len(names))
	}
	must(s.t, Eventually(5*time.Second, func() error {
		list, err := s.Records(s.t.Context(), "")
		if err != nil {
			return err
		}
		denied := map[string]bool{}
		for _, r := range list {
			denied[r.ID] = r.Outcome == audit.Denied
		}
		for _, n := range names {
			if !denied[n] {
				return fmt.Errorf("record %s of a refusal is not in the ledger", n)
			}
		}
		return nil
	}))
}

// TestOpenRoutes_LimitAnAddress floods a route that needs no identity.
func TestOpenRoutes_LimitAnAddress(t *testing.T) {
	w := start(t, found(t, Options{}))
	client := w.HTTP(nil)
	limited := 0
	for range 120 {
		res, err := client.Get("https://" + w.Main + "/v1/ca")
		must(t, err)
		_ = res.Body.Close()
		if res.StatusCode == http.StatusTooManyRequests {
			if limited++; res.Header.Get("Retry-After") == "" {
				t.Fatal("the refusal does not say when to come back")
			}
		}
	}
	if limited == 0 || limited > 80 {
		t.Errorf("%d of 120 requests were limited", limited)
	}
	if _, err := w.admin.Whoami(t.Context()); err != nil {
		t.Errorf("an operator is kept out by it: %v", err)
	}
	if _, err := os.Stat(w.log); err != nil {
		t.Error(err)
	}
}

// referenceValues is the body that sets one value.
const referenceValues = `{"values":[{"name":"svn","value":["1"]}]}`
