package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// canary must never come back, and never stand in the log.
const canary = "CANARY-b1rdS0ng-7f3a"

// request is a plain one with a session token.
func (w *world) request(method, path, token string) *http.Request {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "https://"+w.Main+path, nil)
	must(w.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req
}

// quiet demands that no secret stands in a text.
func quiet(t *testing.T, where, text string) {
	t.Helper()
	if i := strings.Index(text, canary); i >= 0 {
		t.Errorf("%s repeats what it must not: ...%s...", where, text[max(0, i-200):min(len(text), i+80)])
	}
}

// TestDoors_RefuseHostileBodies sends what no parser should take to every
// operation with a body, as an administrator, so that nothing stops it earlier.
func TestDoors_RefuseHostileBodies(t *testing.T) {
	s := newStage(t)
	w := s.world
	deep := strings.Repeat(`{"params":`, 5000) + "1" + strings.Repeat("}", 5000)
	bodies := map[string]string{
		"no JSON":          canary,
		"cut off":          `{"kind":"` + canary,
		"trailing":         `{"kind":"ssh-user-cert"} ` + canary,
		"duplicate":        `{"kind":"ssh-user-cert","kind":"` + canary + `","ttl_seconds":1}`,
		"duplicate inside": `{"kind":"ssh-user-cert","params":{"` + canary + `":1,"` + canary + `":2},"ttl_seconds":1}`,
		"unknown member":   `{"` + canary + `":"` + canary + `"}`,
		"another case":     `{"KIND":"ssh-user-cert","Ttl_Seconds":60}`,
		"deep":             deep,
		"a list":           `["` + canary + `"]`,
		"null":             "null",
		"wrong types":      `{"kind":["` + canary + `"],"secret":{"a":"` + canary + `"},"source":1,"value":2,"csr":3,"publisher":4,"verb":5,"reason":6,"scopes":7}`,
		"bad UTF-8":        "{\"kind\":\"\xff\xfe" + canary + "\"}",
		"a huge number":    `{"kind":"ssh-user-cert","ttl_seconds":1e999}`,
		"a broken escape":  `{"kind":"\ud800` + canary + `"}`,
		"too long":         `{"kind":"` + strings.Repeat("a", 400<<10) + canary + `"}`,
	}
	agent, err := s.agent.client.OpenSession(t.Context(), nil)
	must(t, err)
	operations := []shown{
		{method: "POST", path: "/v1/enrol"},
		{method: "POST", path: "/v1/renew"},
		{method: "POST", path: "/v1/sessions"},
		{method: "POST", path: "/v1/invitations"},
		{method: "POST", path: "/v1/subjects/" + s.victim.Subject.ID + "/lock"},
		{method: "POST", path: "/v1/certificates/" + s.victim.Serial + "/revoke"},
		{method: "POST", path: "/v1/credentials", certificate: &s.agent.Certificate, token: agent.Token.Reveal()},
		{method: "POST", path: "/v1/sessions/delegate", certificate: &s.agent.Certificate, token: agent.Token.Reveal()},
		{method: "POST", path: "/v1/credentials/" + s.victimGrant + "/revoke"},
		{method: "POST", path: "/v1/leaks"},
		{method: "PUT", path: "/v1/policies/base"},
		{method: "POST", path: "/v1/policies/explain"},
		{method: "POST", path: "/v1/publishers"},
		{method: "POST", path: "/kbs/v0/auth"},
		{method: "POST", path: "/kbs/v0/attest"},
		{method: "POST", path: "/kbs/v0/resource-policy"},
		{method: "POST", path: "/kbs/v0/attestation-policy"},
	}
	for _, o := range operations {
		if o.certificate == nil {
			o.certificate = &w.House.Operator
		}
		for name, body := range bodies {
			o.body = body
			if strings.HasSuffix(o.path, "/enrol") && name > "d" {
				continue // the address has a limit there
			}
			got, err := w.try(o)
			if err != nil {
				t.Errorf("%s %s, %s: %v", o.method, o.path, name, err)
				continue
			}
			if got.status < 400 || got.status >= 500 {
				t.Errorf("%s %s, %s: answered with %d: %.300s", o.method, o.path, name, got.status, got.body)
			}
			if strings.HasSuffix(o.path, "-policy") && name == "unknown member" {
				continue // that door names the member to its operator
			}
			quiet(t, o.method+" "+o.path+", "+name, got.body)
		}
	}
	quiet(t, "the log", w.Log())
	if strings.Contains(w.Log(), "panic") {
		t.Errorf("something panicked: %s", w.LastLog())
	}
	detail, err := w.admin.Subject(t.Context(), s.victim.Subject.ID)
	must(t, err)
	if detail.Subject.State != "registered" || !detail.Certificates[0].RevokedAt.IsZero() {
		t.Errorf("something was done nevertheless: %+v", detail)
	}
}

// TestDoors_KeepSecrets sends real secrets through every door that takes one,
// and looks for them in answers, log, ledger, and what a restart prints.
func TestDoors_KeepSecrets(t *testing.T) {
	w := equipped(t, Options{Config: map[string]any{"log": map[string]any{"level": "debug"}}})
	agent := w.enrol("agent", "deployer", "build-7")
	got := w.vend(agent, time.Minute)
	session, err := agent.client.OpenSession(t.Context(), nil)
	must(t, err)
	invited, err := w.admin.Invite(t.Context(), queryInvite)
	must(t, err)
	_, err = w.admin.PutResource(t.Context(), "default", "key", "canary", []byte(canary))
	must(t, err)
	for name, r := range map[string]shown{
		"leak":           {method: "POST", path: "/v1/leaks", body: object("value", canary, "source", "test"), certificate: &w.House.Operator},
		"token":          {method: "GET", path: "/v1/whoami", token: canary, certificate: &agent.Certificate},
		"query":          {method: "GET", path: "/v1/subjects?limit=" + canary, certificate: &w.House.Operator},
		"unknown query":  {method: "GET", path: "/v1/subjects?" + canary + "=1", certificate: &w.House.Operator},
		"kbs cookie":     {method: "POST", path: "/kbs/v0/attest", body: "{}", header: map[string]string{"Cookie": "kbs-session-id=" + canary}},
		"kbs token":      {method: "GET", path: "/kbs/v0/resource/default/key/canary", header: map[string]string{"Authorization": "Bearer " + canary}},
		"kbs value":      {method: "POST", path: "/kbs/v0/resource/a/b", body: canary, certificate: &w.House.Operator},
		"wrong password": {method: "POST", path: "/v1/enrol", body: object("secret", canary, "csr", canary)},
		"key":            {method: "POST", path: "/v1/credentials", body: "{}", certificate: &agent.Certificate, token: session.Token.Reveal(), header: map[string]string{"Idempotency-Key": canary + strings.Repeat("x", 200)}},
		"params":         {method: "POST", path: "/v1/credentials", body: object("kind", "ssh-user-cert", "ttl_seconds", 60, "params", map[string]any{"principals": canary}), certificate: &agent.Certificate, token: session.Token.Reveal()},
	} {
		quiet(t, name, w.send(r).body)
	}
	text := w.Log()
	quiet(t, "the log at level debug", text)
	for name, value := range map[string]string{
		"session token": session.Token.Reveal(), "join token": invited.Token.Reveal(), "join secret": invited.Secret.Reveal(),
		"private key": strings.Split(strings.TrimSpace(got.PrivateKey.Reveal()), "\n")[1], "certificate": strings.Fields(got.Value.Reveal())[1],
	} {
		if strings.Contains(text, value) {
			t.Errorf("the %s stands in the log", name)
		}
	}
	list, err := w.Records(t.Context(), "")
	must(t, err)
	ledger, err := json.Marshal(list)
	must(t, err)
	quiet(t, "the ledger", string(ledger))
	must(t, w.Stop())
	must(t, filepath.WalkDir(w.House.DataDir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "reserve" {
			data, failed := os.ReadFile(path)
			must(t, failed)
			quiet(t, path, string(data))
		}
		return err
	}))
}

// TestDoors_BoundRequests sends heads and bodies that are too large, too slow,
// or not HTTP, to every listener.
func TestDoors_BoundRequests(t *testing.T) {
	h := found(t, Options{
		Further: []any{map[string]any{"name": "guests", "address": "127.0.0.1:0", "doors": []string{"kbs"}, "plain": true}},
		Config:  map[string]any{"verifiers": map[string]any{"sample": map[string]any{"insecure": true}}},
	})
	w := start(t, h)
	plain := w.Bound["guests"]
	doors := map[string]func() net.Conn{
		"main":       func() net.Conn { return w.dial(&w.House.Operator).conn },
		"kbs":        func() net.Conn { return dialPlain(t, plain) },
		"operations": func() net.Conn { return dialPlain(t, w.Operations) },
	}
	t.Run("slow", func(t *testing.T) {
		quick(t)
		for name, dial := range doors {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				conn, begin := dial(), time.Now()
				_, err := io.WriteString(conn, "GET /v1/whoami HTTP/1.1\r\nHost: x\r\n")
				must(t, err)
				for i := 0; ; i++ { // a header a second, for ever
					must(t, conn.SetReadDeadline(time.Now().Add(time.Second)))
					if _, err := conn.Read(make([]byte, 4096)); err == nil || !isTimeout(err) {
						break // an answer, or the end
					}
					if time.Since(begin) > 15*time.Second {
						t.Fatal("a slow head is waited for without end")
					}
					_, _ = fmt.Fprintf(conn, "X-Slow-%d: x\r\n", i)
				}
				if took := time.Since(begin); took < 3*time.Second || took > 9*time.Second {
					t.Errorf("the connection ended after %s", took)
				}
			})
		}
	})
	t.Run("broken", func(t *testing.T) {
		for name, dial := range doors {
			for what, text := range brokenHeads() {
				t.Run(name+" "+what, func(t *testing.T) { t.Parallel(); refusesHead(t, dial(), text) })
			}
		}
	})
	large := strings.NewReader(strings.Repeat("a", 9<<20))
	res, err := http.Post("http://"+plain+"/kbs/v0/auth", "application/json", large)
	if err == nil {
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("a huge body for KBS is answered %d", res.StatusCode)
		}
	}
	if _, err := w.admin.Whoami(t.Context()); err != nil {
		t.Errorf("the server suffers: %v", err)
	}
}

func brokenHeads() map[string]string {
	return map[string]string{
		"a huge header":   "GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + strings.Repeat("a", 300<<10) + "\r\n\r\n",
		"many headers":    "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-Many: "+strings.Repeat("b", 80)+"\r\n", 4000) + "\r\n",
		"a huge target":   "GET /" + strings.Repeat("a", 300<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"two lengths":     "POST /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
		"length and more": "POST /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: xchunked\r\n\r\n{}",
		"no HTTP":         "\x16\x03\x01\x02\x00" + canary + "\r\n\r\n",
	}
}

// refusesHead demands an answer that refuses, or the end of the connection.
func refusesHead(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.WriteString(conn, text) }() // the server may close early
	must(t, conn.SetReadDeadline(time.Now().Add(8*time.Second)))
	answer, err := io.ReadAll(io.LimitReader(conn, 64<<10))
	if isTimeout(err) {
		t.Error("the server waits")
	}
	if len(answer) > 0 && !refusal.Match(answer) {
		t.Errorf("answered with %.60s", answer)
	}
	quiet(t, "the answer", string(answer))
}

var refusal = regexp.MustCompile(`^HTTP/1\.[01] (4\d\d|501)`)

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// free is an address of loopback that nobody listened on just now: the ready
// file names no further listeners.
func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func dialPlain(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
