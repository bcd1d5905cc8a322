package rest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func TestAgent_EnrolsAndVends(t *testing.T) {
	h := newHouse(t, nil)
	c, who := h.newcomer(t, subject.Agent)
	if who.Subject.Name != "agent-1" || who.Serial == "" || who.NotAfter.Before(time.Now()) {
		t.Errorf("enrolment: %+v", who)
	}
	got, err := c.Vend(t.Context(), sallyport.VendRequest{Kind: "ssh-user-cert", Params: map[string]any{"principals": []string{"deploy"}}, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if got.Value.Reveal() != "ssh-cert-value" || got.Plugin.Name != "sshcert" || got.Replayed || got.Anomalies[0].Level != "warn" {
		t.Errorf("credential: %+v", got)
	}
	asked, ok := h.gate.last.(flow.VendRequest)
	if !ok || asked.TTL != time.Minute {
		t.Errorf("the gate was asked for %+v", h.gate.last)
	}
	caller, err := c.Whoami(t.Context())
	if err != nil || caller.Subject.ID != who.Subject.ID || caller.Session == nil {
		t.Errorf("whoami: %+v, %v", caller, err)
	}
	if n := h.gate.count("OpenSession"); n != 1 {
		t.Errorf("%d sessions were opened for two calls", n)
	}
}

func TestAgent_OpensANewSessionWhenTheOldOneIsGone(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.newcomer(t, subject.Agent)
	first, err := c.Whoami(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.gate.revoke(first.Session.ID)
	second, err := c.Whoami(t.Context())
	if err != nil || second.Session.ID == first.Session.ID {
		t.Errorf("after a revocation: %+v, %v", second.Session, err)
	}
	if err := c.EndSession(t.Context(), "current", "done"); err != nil {
		t.Fatal(err)
	}
	if h.gate.last != second.Session.ID+" done" {
		t.Errorf("ended %v", h.gate.last)
	}
	if _, err := c.RefreshSession(t.Context()); err != nil {
		t.Errorf("refresh: %v", err)
	}
}

func TestOperator_ActsWithTheCertificateAlone(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.newcomer(t, subject.Operator)
	caller, err := c.Whoami(t.Context())
	if err != nil || caller.Session != nil || h.gate.count("OpenSession") != 0 {
		t.Errorf("%+v, %v", caller, err)
	}
}

// A lost answer must not become a second credential.
func TestVend_RepeatsUnderOneKey(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.newcomer(t, subject.Agent)
	h.gate.lose = 1
	got, err := c.Vend(t.Context(), sallyport.VendRequest{Kind: "ssh-user-cert", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Replayed || h.gate.vends != 1 || h.gate.count("Vend") != 2 {
		t.Errorf("replayed %v, %d credentials, %d calls", got.Replayed, h.gate.vends, h.gate.count("Vend"))
	}
}

func TestDelegate_ActsWithItsOwnKey(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"Ed25519": ed, "P-256": ec} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			c, who := h.newcomer(t, subject.Agent)
			thumb, err := sallyport.Thumbprint(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if want, err := token.Thumbprint(key.Public()); err != nil || want != thumb {
				t.Errorf("thumbprint %s, the server computes %s (%v)", thumb, want, err)
			}
			s, err := c.Delegate(t.Context(), sallyport.DelegateRequest{Scopes: []string{"release:ssh-user-cert"}, KeyThumbprint: thumb, TTL: time.Minute})
			if err != nil || s.TokenType != "DPoP" || !s.Session.Delegated {
				t.Fatalf("%+v, %v", s, err)
			}
			d, err := sallyport.New(sallyport.Config{URL: who.URL, Roots: who.Roots(), Token: s.Token, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for range 2 { // each with a proof of its own
				got, err := d.Vend(t.Context(), sallyport.VendRequest{Kind: "ssh-user-cert", TTL: time.Minute})
				if err != nil || got.Value.Reveal() != "\xff\x00\x01" {
					t.Fatalf("%q, %v", got.Value.Reveal(), err)
				}
			}
			if _, err := d.Grants(t.Context(), sallyport.GrantQuery{Limit: 3}); err != nil {
				t.Errorf("a proof for a URL with a query: %v", err)
			}
			stolen, err := sallyport.New(sallyport.Config{URL: who.URL, Roots: who.Roots(), Token: s.Token})
			if err != nil {
				t.Fatal(err)
			}
			defer stolen.Close()
			if _, err := stolen.Whoami(t.Context()); !sallyport.Is(err, sallyport.Unauthenticated) {
				t.Errorf("the token without its key: %v", err)
			}
		})
	}
}

func TestRenew_GivesAFreshKey(t *testing.T) {
	h := newHouse(t, nil)
	c, who := h.newcomer(t, subject.Agent)
	next, err := c.Renew(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if next.Serial == who.Serial || next.KeyPEM.Reveal() == who.KeyPEM.Reveal() || next.KeyPEM.Reveal() == "" {
		t.Error("nothing was renewed")
	}
	renewed, err := sallyport.New(sallyport.Config{URL: who.URL, RootHash: h.gate.authority.KeyHash(), Certificate: &next.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	defer renewed.Close()
	if _, err := renewed.Whoami(t.Context()); err != nil {
		t.Errorf("the renewed certificate, with a pinned root: %v", err)
	}
}

// The secret of a join token must never reach a server that is not the one the
// token names.
func TestEnrol_SendsNoSecretToAnotherServer(t *testing.T) {
	h, other := newHouse(t, nil), newHouse(t, nil)
	honest, err := ca.ParseJoinToken(secret.FromString(h.invite(t, subject.Agent)))
	if err != nil {
		t.Fatal(err)
	}
	honest.Address = other.server.Listener.Addr().String()
	text, err := honest.Text()
	if err != nil {
		t.Fatal(err)
	}
	_, err = sallyport.Enrol(t.Context(), string(text.Reveal()), "agent-1")
	if !sallyport.Is(err, sallyport.Unauthenticated) || !strings.Contains(err.Error(), "authority") {
		t.Errorf("another server: %v", err)
	}
	if other.gate.count("Enrol") != 0 {
		t.Error("the other server was asked")
	}
	pinned, err := sallyport.New(sallyport.Config{URL: other.server.URL, RootHash: h.gate.authority.KeyHash()})
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	if _, err := pinned.LedgerKey(t.Context()); !sallyport.Is(err, sallyport.Unauthenticated) {
		t.Errorf("a pinned client: %v", err)
	}
	foreign, err := sallyport.New(sallyport.Config{URL: other.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	if _, err := foreign.LedgerKey(t.Context()); !sallyport.Is(err, sallyport.Unauthenticated) {
		t.Errorf("a client that trusts the system's roots: %v", err)
	}
}

func TestEnrol_UsesATokenOnce(t *testing.T) {
	h := newHouse(t, nil)
	text := h.invite(t, subject.Agent)
	if _, err := sallyport.Enrol(t.Context(), text, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := sallyport.Enrol(t.Context(), text, "b"); !sallyport.Is(err, sallyport.Unauthenticated) {
		t.Errorf("the second time: %v", err)
	}
}

func TestJoinToken_ReadsTheSameOnBothSides(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, address := range []string{"127.0.0.1:8443", "[2001:db8::1]:443", "sally.example.com:1", strings.Repeat("a", 60) + ".example:65535"} {
		server, err := ca.NewJoinToken(rand.Reader, address, [32]byte{1, 2, 3}, "deployer-x", at)
		if err != nil {
			t.Fatal(err)
		}
		text, err := server.Text()
		if err != nil {
			t.Fatal(err)
		}
		client, err := sallyport.ParseJoinToken(string(text.Reveal()))
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		if client.Address != server.Address || client.RootHash != server.KeyHash || client.Role != server.Role || !client.Expires.Equal(at) ||
			client.Secret.Reveal() != encodeSecret(server.Secret.Reveal()) {
			t.Errorf("server %v, client %+v", server, client)
		}
		for i := range text.Len() { // what one side refuses the other does too
			damaged := []byte(string(text.Reveal()))
			damaged[i] ^= 1
			_, err1 := ca.ParseJoinToken(secret.New(damaged))
			_, err2 := sallyport.ParseJoinToken(string(damaged))
			if (err1 == nil) != (err2 == nil) || err2 == nil {
				t.Fatalf("byte %d changed: server %v, client %v", i, err1, err2)
			}
		}
	}
}

func TestErrors_KeepTheirKind(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.newcomer(t, subject.Operator)
	for _, k := range []fault.Kind{
		fault.Invalid, fault.Unauthenticated, fault.Denied, fault.NotFound, fault.Conflict, fault.Exhausted, fault.Unavailable, fault.Internal,
	} {
		t.Run(k.String(), func(t *testing.T) {
			h.gate.fail = fault.New(k, "what to do next").Because(errors.New("CANARY")).After(1500 * time.Millisecond)
			_, err := c.RevokeCertificate(t.Context(), "01", "why")
			e, ok := errors.AsType[*sallyport.Error](err)
			if !ok || string(e.Kind) != k.String() || e.RequestID == "" || e.Status != StatusOf(k) {
				t.Fatalf("%+v", err)
			}
			wanted := "what to do next"
			if k == fault.Internal {
				wanted = fault.Public(errors.New("x"))
			}
			if e.Detail != wanted || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("detail %q", e.Detail)
			}
			after := time.Duration(0)
			if k == fault.Exhausted || k == fault.Unavailable {
				after = 2 * time.Second
			}
			if e.RetryAfter != after {
				t.Errorf("retry after %v", e.RetryAfter)
			}
		})
	}
}

// Every method of the client finds its operation and reads its answer.
func TestClient_SpeaksEveryOperation(t *testing.T) {
	h := newHouse(t, nil)
	c, who := h.newcomer(t, subject.Operator)
	ctx := t.Context()
	public, err := os.ReadFile(writeKey(t))
	if err != nil {
		t.Fatal(err)
	}
	record := recordID(t, h)
	steps := map[string]func() (bool, error){
		"Invite": func() (bool, error) {
			in, err := c.Invite(ctx, sallyport.InviteRequest{Kind: "agent", Role: "deployer", TTL: time.Minute})
			t2, err2 := sallyport.ParseJoinToken(in.Token.Reveal())
			return err2 == nil && t2.Secret == in.Secret && len(in.CAHash) == 64, err
		},
		"Subjects": func() (bool, error) {
			p, err := c.Subjects(ctx, sallyport.SubjectQuery{Kind: "operator", State: "registered", Limit: 1})
			return len(p.Items) == 1 && p.Next == who.Subject.ID, err
		},
		"Subject": func() (bool, error) {
			s, err := c.Subject(ctx, who.Subject.ID)
			return s.Subject.ID == who.Subject.ID && len(s.Certificates) == 1 && len(s.Sessions) == 1 && s.Live[0].ID == "G" && s.Grants["revoked"] == 4, err
		},
		"ChangeSubject": func() (bool, error) {
			_, err := c.ChangeSubject(ctx, "x", sallyport.SubjectChange{Act: "approve", Reason: "fine"})
			return h.gate.last == flow.SubjectChange{Act: "registered", Reason: "fine"}, err
		},
		"ChangeSubject with credentials": func() (bool, error) {
			x, err := c.ChangeSubject(ctx, "x", sallyport.SubjectChange{Act: "revoke", Credentials: "revoke"})
			return h.gate.last == flow.SubjectChange{Act: "revoked", Credentials: flow.Revoke} && x.ID != "" && *x.Recalled == sallyport.Recalled{Revoked: 3, Manual: 1}, err
		},
		"RevokeCertificate": func() (bool, error) {
			out, err := c.RevokeCertificate(ctx, "0a", "lost")
			return h.gate.last == "0a lost" && out.Certificate.Fingerprint == "ff" && out.Sessions == 2 && !out.Seen, err
		},
		"Grants": func() (bool, error) {
			p, err := c.Grants(ctx, sallyport.GrantQuery{Subject: "all", State: "active", Limit: 2})
			f, _ := h.gate.last.(grant.Filter)
			return len(p.Items) == 2 && p.Next == p.Items[1].ID && f.Subject == "" && f.State == grant.Active, err
		},
		"Grants of oneself": func() (bool, error) {
			_, err := c.Grants(ctx, sallyport.GrantQuery{})
			f, _ := h.gate.last.(grant.Filter)
			return f.Subject == who.Subject.ID && f.Limit == 100, err
		},
		"Grant": func() (bool, error) {
			g, err := c.Grant(ctx, "x")
			return g.State == "active" && g.TTLSeconds == 60, err
		},
		"RevokeGrant": func() (bool, error) { m, err := c.RevokeGrant(ctx, "x", "r"); return m.State == "revoked", err },
		"ReportLeak": func() (bool, error) {
			r, err := c.ReportLeak(ctx, sallyport.Leak{Value: sallyport.NewSecret("leaked\n"), Source: "scanner"})
			return h.gate.last == "leaked\n" && len(r.Matches) == 1 && r.Record == "R", err
		},
		"Policies": func() (bool, error) { p, err := c.Policies(ctx); return p.Items[0].State == "active", err },
		"Policy": func() (bool, error) {
			p, err := c.Policy(ctx, "base", 0)
			return p.Source == "new" && len(p.Versions) == 2, err
		},
		"Policy 1": func() (bool, error) { p, err := c.Policy(ctx, "base", 1); return p.Source == "old", err },
		"SetPolicy": func() (bool, error) {
			p, err := c.SetPolicy(ctx, "base", "sallyport", strings.Repeat("# x\n", 60000))
			return p.Version == 3, err
		},
		"RemovePolicy": func() (bool, error) { return true, c.RemovePolicy(ctx, "base") },
		"ExplainPolicy": func() (bool, error) {
			e, err := c.ExplainPolicy(ctx, "release", map[string]any{"action": "vend"})
			return e.Decision.Allow && e.Decision.Bounds["max_ttl_seconds"] == 60.0 && e.Documents[0].Rules[0].Line == 3, err
		},
		"Resources": func() (bool, error) { p, err := c.Resources(ctx, "a/", "", 0); return p.Items[0].Path == "a/b/c", err },
		"PutResource": func() (bool, error) {
			r, err := c.PutResource(ctx, "a", "b", "c", []byte{0, 255})
			return r.Path == "a/b/c" && h.gate.last == "\x00\xff", err
		},
		"DeleteResource": func() (bool, error) {
			return true, c.DeleteResource(ctx, "a", "b", "c", false)
		},
		"DeleteResource for good": func() (bool, error) { return true, c.DeleteResource(ctx, "a", "b", "c", true) },
		"ReadResource": func() (bool, error) {
			v, err := c.ReadResource(ctx, "a", "b", "c", 2)
			return v.Path == "a/b/c" && v.Version == 2 && v.Value.Reveal() == "\x00\xff", err
		},
		"ResourceVersions": func() (bool, error) {
			p, err := c.ResourceVersions(ctx, "a", "b", "c", "", 0)
			return p.Items[0].State == "deletion" && p.Items[1].State == "kept" && p.Items[2].State == "gone", err
		},
		"Publishers": func() (bool, error) { p, err := c.Publishers(ctx); return p.Items[0].Keys[0].State == "active", err },
		"TrustPublisher": func() (bool, error) {
			p, err := c.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: "p", PublicKey: string(public), Expires: time.Unix(4e9, 0)})
			return p.PublicKey == string(public) && p.Expires.Equal(time.Unix(4e9, 0)), err
		},
		"RetirePublisherKey": func() (bool, error) { return true, c.RetirePublisherKey(ctx, "k") },
		"RevokePublisherKey": func() (bool, error) {
			return true, c.RevokePublisherKey(ctx, "k", "stolen")
		},
		"SetPublisherThreshold": func() (bool, error) { return true, c.SetPublisherThreshold(ctx, "p", 2) },
		"RotatePublisher": func() (bool, error) {
			r, err := c.RotatePublisher(ctx, []byte("statement"))
			return r.Serial == 4 && h.gate.last == "statement", err
		},
		"PluginFloors": func() (bool, error) { p, err := c.PluginFloors(ctx); return p.Items[0].Lowest == "1.0.0", err },
		"SetPluginFloor": func() (bool, error) {
			f, err := c.SetPluginFloor(ctx, "sshcert", "1.2.0", true)
			return f.Lowest == "1.2.0" && h.gate.last == true, err
		},
		"InstallBarePlugin": func() (bool, error) {
			p, err := c.InstallBarePlugin(ctx, strings.NewReader("x"), sallyport.BarePlugin{
				Name: "old", Publisher: "p", Signature: make([]byte, 64), Roles: []string{"a", "b"}, Network: []string{"h:1"},
			}, sallyport.InstallRequest{})
			return p.Name == "old" && len(p.Offer.Roles) == 2 && p.Accepted[0] == "h:1", err
		},
		"DistrustPublisher": func() (bool, error) { return true, c.DistrustPublisher(ctx, "k") },
		"Plugins": func() (bool, error) {
			p, err := c.Plugins(ctx)
			return p.Items[0].Version == "1.0.0" && p.Status[0].State == "ready", err
		},
		"InstallPlugin": func() (bool, error) {
			p, err := c.InstallPlugin(ctx, strings.NewReader(strings.Repeat("x", 3<<20)), sallyport.InstallRequest{Digest: "d", AllowDowngrade: true})
			return h.gate.last == int64(3<<20) && p.Digest == "d", err
		},
		"PurgePlugin":  func() (bool, error) { return true, c.PurgePlugin(ctx, "sshcert") },
		"RemovePlugin": func() (bool, error) { return true, c.RemovePlugin(ctx, "sshcert") },
		"Status": func() (bool, error) {
			s, err := c.Status(ctx)
			return s.Ledger.Size == 600 && s.Ready && s.Plugins != nil, err
		},
		"LedgerKey":    func() (bool, error) { k, err := c.LedgerKey(ctx); return k.Origin == "o", err },
		"SSHAuthority": func() (bool, error) { s, err := c.SSHAuthority(ctx); return s == "ssh-ed25519 AAAA\n", err },
		"SSHRevocations": func() (bool, error) {
			s, err := c.SSHRevocations(ctx)
			return string(s) == "SSHKRL\n\x00", err
		},
		"Authority": func() (bool, error) { s, err := c.Authority(ctx); return s == h.gate.authority.Bundle(), err },
		"OpenAPI":   func() (bool, error) { s, err := c.OpenAPI(ctx); return len(s) > 1000, err },
		"Keys": func() (bool, error) {
			list, err := c.Keys(ctx)
			if err != nil || len(list.Items) != 4 {
				return false, err
			}
			does := ""
			for _, k := range list.Items {
				does += k.Does + " "
			}
			return does == "announced signs verifies nothing " && list.Items[3].NotAfter.IsZero(), nil
		},
		"RotateKey": func() (bool, error) {
			turn, err := c.RotateKey(ctx, "token")
			return turn.Key.ID == "K1" && turn.Key.Does == "signs" && len(turn.Changed) == 1 && turn.Changed[0].Does == "verifies" && turn.Under != nil, err
		},
		"RetireKey": func() (bool, error) {
			k, err := c.RetireKey(ctx, "K0", true)
			return k.State == "retired" && h.gate.last == true, err
		},
		"RecordProof": func() (bool, error) {
			raw, err := c.RecordProof(ctx, record)
			if err != nil {
				return false, err
			}
			p, err := audit.ParseProof(raw)
			if err != nil {
				return false, err
			}
			r, _, err := audit.VerifyProof(p, h.gate.records.(*ledger).keys)
			return r.ID == record, err
		},
	}
	maps.Copy(steps, referenceCalls(ctx, h, c))
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			if ok, err := step(); err != nil || !ok {
				t.Errorf("not as expected; error %v, the gate saw %v", err, h.gate.last)
			}
		})
	}
}

func TestRecords_PageBothWays(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.newcomer(t, subject.Operator)
	for _, newest := range []bool{false, true} {
		seen, next := 0, ""
		for pages := 0; pages < 10; pages++ {
			p, err := c.Records(t.Context(), sallyport.RecordQuery{From: next, Limit: 250, Newest: newest})
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range p.Items {
				want := uint64(seen + i)
				if newest {
					want = 599 - want
				}
				if _, err := audit.ParseLeaf(r.Record); err != nil || r.Position != want {
					t.Fatalf("position %d, want %d, %v", r.Position, want, err)
				}
			}
			seen += len(p.Items)
			if next = p.Next; next == "" {
				break
			}
		}
		if seen != 600 {
			t.Errorf("newest %v: %d records", newest, seen)
		}
	}
}
