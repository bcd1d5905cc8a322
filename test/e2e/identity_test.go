package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// forged is a certificate of another authority with the very name of a subject.
func forged(t *testing.T, like tls.Certificate) tls.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(like.Certificate[0])
	must(t, err)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "another authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	copied := &x509.Certificate{
		SerialNumber: leaf.SerialNumber, Subject: leaf.Subject, URIs: []*url.URL{leaf.URIs[0]}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, copied, root, public, private)
	must(t, err)
	top, err := x509.CreateCertificate(rand.Reader, root, root, public, private)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der, top}, PrivateKey: private}
}

func TestIdentity_RefusesWhatProvesNothing(t *testing.T) {
	w := equipped(t, Options{})
	one, other := w.enrol("agent", "deployer", "one"), w.enrol("agent", "deployer", "other")
	session, err := one.client.OpenSession(t.Context(), nil)
	must(t, err)
	token := session.Token.Reveal()
	whoami := func(c *tls.Certificate, token string, header map[string]string) (reply, error) {
		return w.try(shown{method: "GET", path: "/v1/whoami", certificate: c, token: token, header: header})
	}
	if got, err := whoami(&one.Certificate, token, nil); err != nil || got.status != 200 {
		t.Fatalf("the session itself is refused: %v %+v", err, got)
	}
	fake := forged(t, w.House.Operator)
	if got, err := whoami(&fake, "", nil); err == nil && got.status != 401 {
		t.Errorf("a certificate of another authority is answered %d", got.status)
	}
	parts := strings.Split(token, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	raised := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(claims), one.Subject.ID, w.operatorID(), 1)))
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	for name, c := range map[string]struct {
		certificate *tls.Certificate
		token       string
		header      map[string]string
	}{
		"token without its certificate":      {nil, token, nil},
		"token of another":                   {&other.Certificate, token, nil},
		"token with an operator's":           {&w.House.Operator, token, nil},
		"claims changed":                     {&one.Certificate, parts[0] + "." + raised + "." + parts[2], nil},
		"no signature":                       {&one.Certificate, none + "." + parts[1] + ".", nil},
		"half a token":                       {&one.Certificate, token[:len(token)/2], nil},
		"no token at all":                    {&one.Certificate, "x", nil},
		"token as DPoP, no certificate":      {nil, "", map[string]string{"Authorization": "DPoP " + token, "DPoP": "x.y.z"}},
		"basic authentication":               {&one.Certificate, "", map[string]string{"Authorization": "Basic YTpi"}},
		"a proxy's certificate header":       {nil, "", map[string]string{"X-Forwarded-Client-Cert": "By=x;Subject=operator", "X-SSL-Client-Verify": "SUCCESS"}},
		"a user agent that is health's":      {nil, "", map[string]string{"User-Agent": "kube-probe/1.30"}},
		"a browser's page of another origin": {&other.Certificate, "bad", map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}},
	} {
		if got, err := whoami(c.certificate, c.token, c.header); err != nil || got.status != 401 {
			t.Errorf("%s: got %d, %v, want 401: %s", name, got.status, err, got.body)
		}
	}
	// Refusals of strangers are counted, and recorded from time to time and at the
	// end: no request gets around that.
	after := w.restart()
	must(t, Eventually(5*time.Second, func() error {
		list, err := after.Records(t.Context(), "stranger.refused")
		if err == nil && (len(list) == 0 || list[0].Outcome != audit.Denied) {
			err = fmt.Errorf("the refusals are not recorded: %+v", list)
		}
		return err
	}))
}

// operatorID is the subject of the first operator.
func (w *world) operatorID() string {
	w.t.Helper()
	me, err := w.admin.Whoami(w.t.Context())
	must(w.t, err)
	return me.Subject.ID
}

// TestIdentity_ExpiresDelegatedTokens waits for a token's end: the shortest that
// there is, a delegated one.
func TestIdentity_ExpiresDelegatedTokens(t *testing.T) {
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "parent")
	_, err := agent.client.OpenSession(t.Context(), nil)
	must(t, err)
	public, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	thumb, err := sallyport.Thumbprint(public)
	must(t, err)
	wide := sallyport.DelegateRequest{Scopes: []string{"release:ssh-user-cert"}, KeyThumbprint: thumb, TTL: 2 * time.Second}
	child, err := agent.client.Delegate(t.Context(), wide)
	must(t, err)
	delegate := func(key ed25519.PrivateKey) *sallyport.Client {
		c, err := sallyport.New(sallyport.Config{URL: "https://" + w.Main, Roots: w.House.Roots(), Token: child.Token, Key: key})
		must(t, err)
		t.Cleanup(c.Close)
		return c
	}
	d := delegate(key)
	if me, err := d.Whoami(t.Context()); err != nil || me.Subject.ID != agent.Subject.ID || !me.Session.Delegated {
		t.Fatalf("the delegate is %+v, %v", me, err)
	}
	if _, err := d.Vend(t.Context(), SSH(time.Minute)); err != nil {
		t.Errorf("the delegate may not do what was delegated: %v", err)
	}
	_, wrong, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	_, err = delegate(wrong).Whoami(t.Context())
	refused(t, "a proof by another key", err, sallyport.Unauthenticated)
	_, err = d.Delegate(t.Context(), wide)
	refused(t, "a delegate that delegates", err, sallyport.Denied, sallyport.Unauthenticated)
	_, err = d.OpenSession(t.Context(), nil)
	refused(t, "a delegate that opens a session", err, sallyport.Unauthenticated)
	_, err = d.Grants(t.Context(), sallyport.GrantQuery{})
	refused(t, "a delegate beyond its scopes", err, sallyport.Denied)
	time.Sleep(time.Until(child.ExpiresAt) + 100*time.Millisecond)
	_, err = d.Whoami(t.Context())
	refused(t, "an expired token", err, sallyport.Unauthenticated)
}

func TestTLS_RefusesOldVersions(t *testing.T) {
	w := start(t, found(t, Options{}))
	for version, name := range map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS11: "1.1"} {
		conn, err := tls.Dial("tcp", w.Main, &tls.Config{RootCAs: w.House.Roots(), MinVersion: tls.VersionTLS10, MaxVersion: version})
		if err == nil {
			_ = conn.Close()
			t.Errorf("TLS %s is accepted", name)
		}
	}
	if _, err := tls.Dial("tcp", w.Main, &tls.Config{MinVersion: tls.VersionTLS13}); err == nil {
		t.Error("the authority is one of the system's")
	}
}

// TestRevocation_ActsOnTheNextRequest takes away a session, a certificate and a
// subject, each from somebody with a warm connection, and starts the server
// anew.
func TestRevocation_ActsOnTheNextRequest(t *testing.T) {
	w := equipped(t, Options{})
	ctx := t.Context()
	bySession, byCertificate, bySubject, locked := w.enrol("agent", "deployer", "a"), w.enrol("agent", "deployer", "b"),
		w.enrol("agent", "deployer", "c"), w.enrol("agent", "deployer", "d")
	type held struct {
		person
		token string
		ask   func(*world) (int, int) // with token, with certificate alone
	}
	hold := func(p person) held {
		s, err := p.client.OpenSession(ctx, nil)
		must(t, err)
		client := w.HTTP(&p.Certificate)
		h := held{p, s.Token.Reveal(), nil}
		h.ask = func(at *world) (int, int) {
			t.Helper()
			if at != w {
				client = at.HTTP(&p.Certificate)
			}
			var status [2]int
			for i, token := range []string{h.token, ""} {
				req := at.request("GET", "/v1/whoami", token)
				got, err := exchange(client, req)
				must(t, err)
				status[i] = got.status
			}
			return status[0], status[1]
		}
		return h
	}
	all := []held{hold(bySession), hold(byCertificate), hold(bySubject), hold(locked)}
	for _, h := range all {
		if a, b := h.ask(w); a != 200 || b != 200 {
			t.Fatalf("before: %d %d", a, b)
		}
	}
	detail, err := w.admin.Subject(ctx, bySession.Subject.ID)
	must(t, err)
	for _, s := range detail.Sessions {
		must(t, w.admin.EndSession(ctx, s.ID, "test"))
	}
	must(t, done(w.admin.RevokeCertificate(ctx, byCertificate.Serial, "test")))
	_, err = w.admin.ChangeSubject(ctx, bySubject.Subject.ID, sallyport.SubjectChange{Act: "revoke", Reason: "test"})
	must(t, err)
	_, err = w.admin.ChangeSubject(ctx, locked.Subject.ID, sallyport.SubjectChange{Act: "lock", Reason: "test"})
	must(t, err)
	check := func(at *world, when string) {
		t.Helper()
		for i, want := range [][2]int{{401, 200}, {401, 401}, {401, 401}, {401, 401}} {
			if a, b := all[i].ask(at); a != want[0] || b != want[1] {
				t.Errorf("%s: holder %d is answered %d with the token and %d without, want %v", when, i, a, b, want)
			}
		}
	}
	check(w, "at once")
	again := w.restart()
	check(again, "after a restart")
	_, err = again.admin.ChangeSubject(ctx, locked.Subject.ID, sallyport.SubjectChange{Act: "unlock"})
	must(t, err)
	if a, b := all[3].ask(again); a != 200 || b != 200 {
		t.Errorf("unlocked: %d %d", a, b)
	}
	if _, err := again.admin.ChangeSubject(ctx, bySubject.Subject.ID, sallyport.SubjectChange{Act: "unlock"}); err == nil {
		t.Error("a revoked subject came back")
	}
	if _, err := again.Enrol(ctx, "agent", "deployer", "c"); err != nil {
		t.Errorf("the name of a revoked agent is not free: %v", err)
	}
}

// TestEnrol_TakesAJoinTokenOnce races many newcomers for one invitation.
func TestEnrol_TakesAJoinTokenOnce(t *testing.T) {
	w := start(t, found(t, Options{}))
	invited, err := w.admin.Invite(t.Context(), sallyport.InviteRequest{Kind: "agent", Role: "reporter"})
	must(t, err)
	results := make(chan error, 8)
	for i := range cap(results) {
		go func() {
			_, err := sallyport.Enrol(t.Context(), invited.Token.Reveal(), fmt.Sprintf("racer-%d", i))
			results <- err
		}()
	}
	in := 0
	for range cap(results) {
		if err := <-results; err == nil {
			in++
		} else {
			refused(t, "a racer", err, sallyport.Unauthenticated)
		}
	}
	if in != 1 {
		t.Errorf("%d newcomers got in with one join token", in)
	}
	_, err = w.admin.Invite(t.Context(), sallyport.InviteRequest{Kind: "agent", Role: "nobody-knows"})
	refused(t, "an unknown role", err, sallyport.Invalid)
	must(t, Eventually(5*time.Second, func() error {
		list, err := w.Records(t.Context(), "subject.enrolled")
		if err == nil && len(list) != 1 {
			err = fmt.Errorf("%d records of an enrolment", len(list))
		}
		return err
	}))
}
