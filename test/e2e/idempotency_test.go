package e2e

import (
	"crypto/ecdsa"
	"crypto/ed25519"
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
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// keyedRow is one operation that takes an Idempotency-Key, as somebody makes it.
type keyedRow struct {
	id, method, path string
	body             func() string
	status           int // of the first answer
	as               *person
	token            string // of the session it is made in
}

// unkeyed are the operations that change something, or may, and need no key.
var unkeyed = map[string]string{
	"explain-policy":    "a question",
	"revoke-credential": "what was done is found done",
	"deliver-bundle":    "what was seen is found seen, and what is installed installed",
	"upload-package":    "what is in the repository is found there",
}

func always(text string) func() string { return func() string { return text } }

// request makes a certificate request, signed anew each time, as a client does
// that repeats an enrolment.
func request(t testing.TB) func() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return func() string {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		must(t, err)
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	}
}

// keyedRows is every operation that takes a key, in an order in which all of them
// succeed.
func (s *stage) keyedRows() []keyedRow {
	t := s.t
	session := func(p person) string {
		opened, err := p.client.OpenSession(t.Context(), nil)
		must(t, err)
		return opened.Token.Reveal()
	}
	join, err := s.admin.Invite(t.Context(), sallyport.InviteRequest{Kind: "agent", Role: "deployer"})
	must(t, err)
	pack, err := os.ReadFile(s.House.Package)
	must(t, err)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(public)
	must(t, err)
	keyID := fmt.Sprintf("%x", sha256.Sum256(public))
	statement, second := rotation(t, "someone", private)
	bare := s.bareInstallation("no program")
	enrolling, renewing := request(t), request(t)
	thumb := base64.RawURLEncoding.EncodeToString(make([]byte, sha256.Size))
	victim, mine := "/v1/subjects/"+s.victim.Subject.ID, session(s.agent)
	ending, err := s.victim.client.OpenSession(t.Context(), nil)
	must(t, err)
	operator := &person{Enrolment: sallyport.Enrolment{Identity: sallyport.Identity{Certificate: s.House.Operator}}}
	nobody := (*person)(nil)
	signs, _ := s.signing()
	plugins, err := s.admin.Plugins(t.Context())
	must(t, err)
	installed := plugins.Items[0].Version
	bring, err := s.admin.CreateUploadToken(t.Context(), sallyport.UploadTokenRequest{Publisher: s.House.Publisher, Names: []string{"*"}, TTL: time.Hour})
	must(t, err)
	return []keyedRow{
		{"enrol", "POST", "/v1/enrol", func() string {
			return object("secret", join.Secret.Reveal(), "csr", enrolling(), "name", "newcomer")
		}, 201, nobody, ""},
		{"renew", "POST", "/v1/renew", func() string { return object("csr", renewing()) }, 201, &s.agent, ""},
		{"open-session", "POST", "/v1/sessions", always("{}"), 201, &s.agent, ""},
		{"delegate-session", "POST", "/v1/sessions/delegate", always(object("scopes", []string{"vend:ssh-user-cert"}, "key_thumbprint", thumb)), 201, &s.agent, mine},
		{"vend", "POST", "/v1/credentials", always(vendBody), 201, &s.agent, mine},
		{"refresh-session", "POST", "/v1/sessions/refresh", always("{}"), 201, &s.agent, mine},
		{"end-session", "DELETE", "/v1/sessions/" + ending.Session.ID, always(""), 204, operator, ""},
		{"invite", "POST", "/v1/invitations", always(object("kind", "agent", "role", "deployer")), 201, operator, ""},
		{"report-leak", "POST", "/v1/leaks", always(object("value", "nothing of ours", "source", "test")), 200, operator, ""},
		{"set-policy", "PUT", "/v1/policies/other", always(object("kind", "sallyport", "source", freeze)), 200, operator, ""},
		{"remove-policy", "DELETE", "/v1/policies/other", always(""), 204, operator, ""},
		{"put-resource", "PUT", "/v1/resources/default/key/second", always("value"), 200, operator, ""},
		{"delete-resource", "DELETE", "/v1/resources/default/key/second", always(""), 204, operator, ""},
		{"import-endorsements", "POST", "/v1/reference/endorsements", always(object("kind", "tpm-ek-ca", "files",
			[]any{map[string]any{"name": "root.pem", "data": []byte(s.House.Root)}})), 200, operator, ""},
		{"remove-endorsement", "DELETE", "/v1/reference/endorsements/tpm-ek-ca%2Froot.pem", always(""), 204, operator, ""},
		{"set-reference-values", "PUT", "/v1/reference/values", always(referenceValues), 200, operator, ""},
		{"remove-reference-value", "DELETE", "/v1/reference/values/svn", always(""), 204, operator, ""},
		{"trust-publisher", "POST", "/v1/publishers", always(object("publisher", "someone", "public_key",
			string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))), 201, operator, ""},
		{"rotate-publisher", "POST", "/v1/publishers/rotations", always(object("statement", statement)), 200, operator, ""},
		{"set-publisher-threshold", "PUT", "/v1/publishers/someone/threshold", always(object("threshold", 2)), 204, operator, ""},
		{"retire-publisher-key", "POST", "/v1/publishers/" + keyID + "/retire", always("{}"), 204, operator, ""},
		{"revoke-publisher-key", "POST", "/v1/publishers/" + second + "/revoke", always(object("reason", "stolen")), 204, operator, ""},
		{"distrust-publisher", "DELETE", "/v1/publishers/" + keyID, always(""), 204, operator, ""},
		{"set-plugin-floor", "PUT", "/v1/plugins/nothing/floor", always(object("lowest", "1.0.0")), 200, operator, ""},
		{"install-agentkms-plugin", "POST", bare, always("no program"), 201, operator, ""},
		{"add-repository", "POST", "/v1/repositories", always(object("name", "some", "url", "https://plugins.example", "root", repositoryRoot(t))), 201, operator, ""},
		{"remove-repository", "DELETE", "/v1/repositories/some", always(""), 204, operator, ""},
		{"create-upload-token", "POST", "/v1/upload-tokens", always(object("publisher", "someone", "names", []string{"*"}, "ttl_seconds", 3600)), 201, operator, ""},
		{"revoke-upload-token", "DELETE", "/v1/upload-tokens/" + bring.ID, always(""), 204, operator, ""},
		{"remove-plugin", "DELETE", "/v1/plugins/sshcert", always(""), 204, operator, ""},
		{"rollback-plugin", "POST", "/v1/plugins/sshcert/rollback", always(object("version", installed)), 200, operator, ""},
		{"remove-plugin", "DELETE", "/v1/plugins/sshcert", always(""), 204, operator, ""},
		{"purge-plugin", "DELETE", "/v1/plugins/sshcert/data", always(""), 204, operator, ""},
		{"install-plugin", "POST", "/v1/plugins", always(string(pack)), 201, operator, ""},
		{"rotate-key", "POST", "/v1/keys/ssh-ca/rotate", always(""), 201, operator, ""},
		{"retire-key", "POST", "/v1/keys/" + signs["ssh-ca"] + "/retire", always(`{"force":true}`), 200, operator, ""},
		{"change-subject", "POST", victim + "/change", always(object("role", "reporter")), 200, operator, ""},
		{"change-subject", "POST", victim + "/lock", always("{}"), 200, operator, ""},
		{"revoke-certificate", "POST", "/v1/certificates/" + s.victim.Serial + "/revoke", always("{}"), 200, operator, ""},
	}
}

func (r keyedRow) shown(key string) shown {
	q := shown{method: r.method, path: r.path, body: r.body(), token: r.token}
	if key != "" {
		q.header = map[string]string{"Idempotency-Key": key}
	}
	if r.as != nil {
		q.certificate = &r.as.Certificate
	}
	if r.id == "put-resource" || r.id == "install-plugin" || r.id == "install-agentkms-plugin" {
		q.kind = "application/octet-stream"
	}
	return q
}

// TestIdempotencyKeys_CoverEveryChange makes every change of the API, loses the
// answer, and sends the request again: the first answer comes, and the ledger
// says that nothing happened twice.
func TestIdempotencyKeys_CoverEveryChange(t *testing.T) {
	s := newStage(t)
	rows := s.keyedRows()
	s.completeKeys(rows)
	before := map[string]int{}
	for _, r := range s.ledger(0) {
		before[r.Type]++
	}
	for i, r := range rows {
		key := fmt.Sprintf("01KEY%021d", i)
		first := s.send(r.shown(key))
		if first.status != r.status || first.header.Get("Idempotent-Replay") != "" {
			t.Fatalf("%s is answered %d: %s", r.id, first.status, first.body)
		}
		again := s.send(r.shown(key))
		want := r.status
		if want == http.StatusCreated {
			want = http.StatusOK
		}
		if again.status != want || again.header.Get("Idempotent-Replay") != "true" {
			t.Errorf("%s is answered %d the second time, replay %q: %s", r.id, again.status, again.header.Get("Idempotent-Replay"), again.body)
		}
		if got := strings.Replace(again.body, `,"replayed":true`, "", 1); got != first.body {
			t.Errorf("%s: first answered\n%s, then\n%s", r.id, first.body, got)
		}
		before = s.happenedOnce(r.id, before, i+1)
		if got := s.send(r.shown("not a key")); got.status != http.StatusBadRequest {
			t.Errorf("%s takes a malformed key: %d", r.id, got.status)
		}
	}
}

// ledger is all records, once so many of them tell of repetitions: a record has
// its place in the ledger a little after the answer, and those before it too.
func (s *stage) ledger(repetitions int) []audit.Record {
	s.t.Helper()
	var all []audit.Record
	must(s.t, Eventually(10*time.Second, func() (err error) {
		if all, err = s.Records(s.t.Context(), ""); err != nil {
			return err
		}
		n := 0
		for _, r := range all {
			if strings.HasSuffix(r.Type, ".replayed") {
				n++
			}
		}
		if n != repetitions {
			return fmt.Errorf("%d records tell of repetitions, not %d", n, repetitions)
		}
		return nil
	}))
	return all
}

// happenedOnce demands that the last repetition names the record of its change,
// and that there is one such record more than before.
func (s *stage) happenedOnce(id string, before map[string]int, repetitions int) map[string]int {
	s.t.Helper()
	all, now, types := s.ledger(repetitions), map[string]int{}, map[string]string{}
	first := ""
	for _, r := range all {
		now[r.Type]++
		types[r.ID] = r.Type
		if strings.HasSuffix(r.Type, ".replayed") {
			first = r.Data["first"]
		}
	}
	kind := types[first]
	if kind == "" || now[kind] != before[kind]+1 {
		s.t.Errorf("%s left %d records of type %q", id, now[kind]-before[kind], kind)
	}
	return now
}

// completeKeys demands that the served document gives a key to every operation
// that changes something, and that the table has all of them.
func (s *stage) completeKeys(rows []keyedRow) {
	s.t.Helper()
	var document struct {
		Paths map[string]map[string]struct {
			ID         string                      `json:"operationId"`
			Parameters []struct{ Name, In string } `json:"parameters"`
		} `json:"paths"`
	}
	must(s.t, json.Unmarshal([]byte(s.send(shown{method: "GET", path: "/openapi.json"}).body), &document))
	known := map[string]bool{}
	for _, r := range rows {
		known[r.id] = true
	}
	for path, methods := range document.Paths {
		for method, o := range methods {
			keyed := false
			for _, p := range o.Parameters {
				keyed = keyed || p.In == "header" && p.Name == "Idempotency-Key"
			}
			switch _, exempt := unkeyed[o.ID]; {
			case method == "get" && keyed, method != "get" && keyed == exempt:
				s.t.Errorf("%s %s (%s): takes a key: %v", method, path, o.ID, keyed)
			case keyed && !known[o.ID]:
				s.t.Errorf("%s %s (%s) takes a key and is not in the table", method, path, o.ID)
			}
		}
	}
}

// TestIdempotencyKeys_GiveNothingAway are the attacks on kept answers.
func TestIdempotencyKeys_GiveNothingAway(t *testing.T) {
	s := newStage(t)
	const key = "01KEY000000000000000000000"
	header := map[string]string{"Idempotency-Key": key}
	invite := shown{method: "POST", path: "/v1/invitations", body: object("kind", "agent", "role", "deployer"), certificate: &s.House.Operator, header: header}
	first := s.send(invite)
	if first.status != http.StatusCreated {
		t.Fatalf("invited: %d %s", first.status, first.body)
	}
	other := s.enrol("operator", "administrator", "olga")
	thief := invite
	thief.certificate = &other.Certificate
	if got := s.send(thief); got.status != http.StatusCreated || got.body == first.body {
		t.Errorf("another operator got the join token: %d", got.status)
	}
	thief.certificate = &s.auditor.Certificate
	if got := s.send(thief); got.status != http.StatusForbidden {
		t.Errorf("an auditor is answered %d", got.status)
	}
	another := invite
	another.body = object("kind", "agent", "role", "deployer", "name", "x")
	if got := s.send(another); got.status != http.StatusConflict {
		t.Errorf("another request under the key is answered %d: %s", got.status, got.body)
	}
	var join struct{ Token string }
	must(t, json.Unmarshal([]byte(first.body), &join))
	used, err := sallyport.Enrol(t.Context(), join.Token, "newcomer")
	must(t, err)
	if got := s.send(invite); got.status != http.StatusConflict || strings.Contains(got.body, join.Token) {
		t.Errorf("a used join token is answered %d: %s", got.status, got.body)
	}

	// A session that was ended, or whose holder was revoked, is not handed out again.
	open := shown{method: "POST", path: "/v1/sessions", body: "{}", certificate: &used.Certificate, header: header}
	session := s.send(open)
	if session.status != http.StatusCreated {
		t.Fatalf("session: %d %s", session.status, session.body)
	}
	var made sallyport.Session
	must(t, json.Unmarshal([]byte(session.body), &made))
	must(t, s.admin.EndSession(t.Context(), made.Session.ID, "test"))
	if got := s.send(open); got.status != http.StatusConflict {
		t.Errorf("an ended session is answered %d: %s", got.status, got.body)
	}
	_, err = s.admin.ChangeSubject(t.Context(), used.Subject.ID, sallyport.SubjectChange{Act: "revoke"})
	must(t, err)
	if got := s.send(open); got.status != http.StatusUnauthorized {
		t.Errorf("a revoked agent is answered %d: %s", got.status, got.body)
	}
}

// TestSDK_RefreshesOnceWhenTheAnswerIsLost repeats a refresh as the SDK does,
// with the session that the first one ended, across a restart of the server.
func TestSDK_RefreshesOnceWhenTheAnswerIsLost(t *testing.T) {
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	opened, err := agent.client.OpenSession(t.Context(), nil)
	must(t, err)
	refresh := shown{
		method: "POST", path: "/v1/sessions/refresh", body: "{}", certificate: &agent.Certificate, token: opened.Token.Reveal(),
		header: map[string]string{"Idempotency-Key": "01KEY000000000000000000000"},
	}
	first := w.send(refresh)
	w = w.restart()
	if again := w.send(refresh); again.status != http.StatusOK || again.body != first.body {
		t.Errorf("the refresh is answered %d, then %d: %s", first.status, again.status, again.body)
	}
	refresh.header = nil
	if got := w.send(refresh); got.status != http.StatusUnauthorized {
		t.Errorf("an ended session without a key is answered %d", got.status)
	}
	whoami := shown{method: "GET", path: "/v1/whoami", certificate: &agent.Certificate, token: opened.Token.Reveal(), header: map[string]string{"Idempotency-Key": "01KEY000000000000000000000"}}
	if got := w.send(whoami); got.status != http.StatusUnauthorized {
		t.Errorf("an ended session asks who it is and is answered %d", got.status)
	}
}
