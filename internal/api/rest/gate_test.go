package rest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
)

// gate is a small gate in memory: it recognises callers as the real one does,
// by certificates, tokens and proofs, and remembers what it was asked.
type gate struct {
	t         testing.TB
	authority *ca.Authority
	verifier  *ca.Verifier
	sessions  *token.Sessions
	records   flow.Records

	mu       sync.Mutex
	subjects map[string]subject.Subject
	revoked  map[string]bool // sessions
	proofs   map[string]bool
	invited  map[string]subject.Invitation // by secret
	vended   map[string]flow.Vended        // by key
	calls    []string
	uploads  []error // what the next uploads answer
	vends    int
	fail     error // of every call but Authenticate
	lose     int   // so many vends are done and answered Unavailable
	last     any   // argument of the last call
}

func (g *gate) called(name string, arg any) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, name)
	g.last = arg
	return g.fail
}

func (g *gate) count(name string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, c := range g.calls {
		if c == name {
			n++
		}
	}
	return n
}

func (g *gate) Authenticate(_ context.Context, p flow.Presented) (flow.Caller, error) {
	c := flow.Caller{Via: p.Via, Address: p.Address, Method: p.Method, Certificate: p.Certificate, Key: p.Key}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.Certificate == nil && p.Token == "" {
		return c, fault.Unauthenticatedf("present a client certificate")
	}
	if p.Certificate != nil {
		who, err := g.verifier.Verify([]*x509.Certificate{p.Certificate}, time.Now())
		if err != nil {
			return c, err
		}
		c.Subject = g.subjects[who.SubjectID]
	}
	if p.Token != "" {
		s, err := g.sessions.Verify(p.Token, token.Presentation{Certificate: p.Certificate, Proof: p.Proof, Method: p.Method, URL: p.URL})
		if err != nil {
			return c, err
		}
		if g.revoked[s.ID] || g.revoked[s.Parent] || g.proofs[s.Proof.Use] {
			return c, fault.Unauthenticatedf("the session was revoked, or the proof was used")
		}
		if s.Proof.Use != "" {
			g.proofs[s.Proof.Use] = true
		}
		c.Session, c.Subject = s, g.subjects[s.Subject]
	}
	return c, nil
}

func (g *gate) Enrol(_ context.Context, r flow.EnrolRequest) (flow.Enrolled, error) {
	if err := g.called("Enrol", r.Name); err != nil {
		return flow.Enrolled{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	invited, ok := g.invited[string(r.Secret.Reveal())]
	if !ok {
		return flow.Enrolled{}, fault.Unauthenticatedf("the join token is not valid")
	}
	delete(g.invited, string(r.Secret.Reveal()))
	s := subject.Subject{ID: id.New(), Version: 1, Kind: invited.Kind, State: subject.Registered, Role: invited.Role, Name: r.Name, Created: time.Now(), Changed: time.Now()}
	g.subjects[s.ID] = s
	leaf, err := g.issue(r.CSR, s)
	return flow.Enrolled{Subject: s, Leaf: leaf}, err
}

func (g *gate) issue(csr []byte, s subject.Subject) (flow.Leaf, error) {
	leaf, err := g.authority.Issue(ca.Request{CSR: csr, Subject: s.ID, Kind: string(s.Kind)})
	return flow.Leaf{PEM: leaf.PEM, Root: g.authority.Bundle(), Serial: leaf.Serial, Fingerprint: leaf.Fingerprint, NotAfter: leaf.NotAfter}, err
}

func (g *gate) Renew(_ context.Context, c flow.Caller, csr []byte) (flow.Leaf, error) {
	if err := g.called("Renew", nil); err != nil {
		return flow.Leaf{}, err
	}
	return g.issue(csr, c.Subject)
}

func (g *gate) OpenSession(_ context.Context, c flow.Caller, scopes token.Scopes) (flow.Opened, error) {
	if err := g.called("OpenSession", scopes); err != nil {
		return flow.Opened{}, err
	}
	if c.Session.ID != "" || c.Certificate == nil {
		return flow.Opened{}, fault.Unauthenticatedf("open a session with a client certificate alone")
	}
	if len(scopes) == 0 {
		scopes = token.Scopes{"*:**"}
	}
	o, err := g.sessions.Open(token.Opening{Subject: c.Subject.ID, Certificate: c.Certificate, Scopes: scopes})
	return flow.Opened{Token: o.Token, Session: o.Session}, err
}

func (g *gate) RefreshSession(_ context.Context, c flow.Caller) (flow.Opened, error) {
	if err := g.called("RefreshSession", nil); err != nil {
		return flow.Opened{}, err
	}
	o, err := g.sessions.Refresh(c.Session)
	g.revoke(c.Session.ID)
	return flow.Opened{Token: o.Token, Session: o.Session}, err
}

func (g *gate) revoke(session string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.revoked[session] = true
}

func (g *gate) Delegate(_ context.Context, c flow.Caller, to token.Delegation) (flow.Opened, error) {
	if err := g.called("Delegate", to); err != nil {
		return flow.Opened{}, err
	}
	o, err := g.sessions.Delegate(c.Session, to)
	return flow.Opened{Token: o.Token, Session: o.Session}, err
}

func (g *gate) EndSession(_ context.Context, _ flow.Caller, sessionID, reason string) error {
	g.revoke(sessionID)
	return g.called("EndSession", sessionID+" "+reason)
}

func (g *gate) Vend(_ context.Context, c flow.Caller, r flow.VendRequest) (flow.Vended, error) {
	if err := g.called("Vend", r); err != nil {
		return flow.Vended{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	key := ""
	if c.Key != nil {
		key = c.Key.Text
	}
	if first, ok := g.vended[key]; ok && key != "" {
		c.Key.Replayed = true
		first.Value = secret.FromString("ssh-cert-value") // the first one was wiped by its answer
		return first, nil
	}
	g.vends++
	v := flow.Vended{
		Grant: id.New(), Kind: r.Kind, Value: secret.FromString("ssh-cert-value"), Params: r.Params, IssuedAt: time.Now(),
		ExpiresAt: time.Now().Add(r.TTL), Source: grant.Source{Plugin: "sshcert", Version: "1.0.0", Digest: "sha256:00"},
		Anomalies: []grant.Anomaly{{Level: grant.Warn, Code: "WIDE", Message: "many principals"}},
	}
	if c.Session.Delegated() {
		v.Value = secret.New([]byte{0xff, 0x00, 0x01})
	}
	g.vended[key] = v
	if g.lose > 0 {
		g.lose--
		return flow.Vended{}, fault.Unavailablef("the outcome is unknown")
	}
	return v, nil
}

func (g *gate) Grants(_ context.Context, _ flow.Caller, f grant.Filter) ([]grant.Grant, error) {
	if err := g.called("Grants", f); err != nil {
		return nil, err
	}
	out := []grant.Grant{}
	for range f.Limit {
		out = append(out, sampleGrant())
	}
	return out, nil
}

func sampleGrant() grant.Grant {
	return grant.Grant{
		ID: id.New(), Version: 2, State: grant.Active, Subject: "S", Session: "T", Kind: "ssh-user-cert",
		Scope:  grant.Scope{Kind: "ssh-user-cert", Params: map[string]any{"principals": []any{"deploy"}}, TTL: time.Minute},
		Source: grant.Source{Plugin: "sshcert"}, IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute), Sealed: []byte("CANARY"),
	}
}

func (g *gate) Grant(_ context.Context, _ flow.Caller, id string) (grant.Grant, error) {
	return sampleGrant(), g.called("Grant", id)
}

func (g *gate) RevokeGrant(_ context.Context, _ flow.Caller, id, reason string) (flow.Match, error) {
	return flow.Match{Grant: id, State: grant.Revoked}, g.called("RevokeGrant", reason)
}

func (g *gate) Report(_ context.Context, _ flow.Caller, s signal.Signal) (flow.Reaction, error) {
	err := g.called("Report", string(s.Value.Reveal())+s.Digest)
	return flow.Reaction{Record: "R", Matches: []flow.Match{{Grant: "G", State: grant.Revoked, Tag: flow.TagRevoked}}}, err
}

func (g *gate) Invite(_ context.Context, _ flow.Caller, r flow.InviteRequest) (flow.Invited, error) {
	if err := g.called("Invite", r); err != nil {
		return flow.Invited{}, err
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.invited[string(raw)] = subject.Invitation{Kind: r.Kind, Role: r.Role}
	return flow.Invited{ID: id.New(), Secret: secret.New(raw), Expires: time.Now().Add(time.Hour)}, nil
}

func (g *gate) Subjects(_ context.Context, c flow.Caller, f subject.Filter) ([]subject.Subject, error) {
	return []subject.Subject{c.Subject}, g.called("Subjects", f)
}

func (g *gate) Subject(_ context.Context, c flow.Caller, id string) (flow.Detail, error) {
	return flow.Detail{
		Subject: c.Subject, Certificates: []subject.Certificate{{ID: "ff", Serial: "01"}}, Sessions: []subject.Session{{ID: "T", Subject: id}},
		Live: []grant.Grant{{ID: "G", State: grant.Active}}, Grants: map[grant.State]int{grant.Active: 1, grant.Revoked: 4},
	}, g.called("Subject", id)
}

func (g *gate) ChangeSubject(_ context.Context, c flow.Caller, _ string, change flow.SubjectChange) (flow.Changed, error) {
	return flow.Changed{Subject: c.Subject, Recalled: &flow.Recalled{Revoked: 3, Manual: 1}}, g.called("ChangeSubject", change)
}

func (g *gate) RevokeCertificate(_ context.Context, _ flow.Caller, name, reason string) (flow.RevokedCertificate, error) {
	return flow.RevokedCertificate{Certificate: subject.Certificate{ID: "ff"}, Sessions: 2}, g.called("RevokeCertificate", name+" "+reason)
}

func (g *gate) Policies(context.Context, flow.Caller) ([]policy.Document, error) {
	return []policy.Document{{Name: "base", Version: 1, Kind: policy.Sallyport}}, g.called("Policies", nil)
}

func (g *gate) PolicyVersions(_ context.Context, _ flow.Caller, name string) ([]policy.Document, error) {
	return []policy.Document{
		{Name: name, Version: 1, Kind: policy.Sallyport, Source: "old"}, {Name: name, Version: 2, Kind: policy.Sallyport, Source: "new"},
	}, g.called("PolicyVersions", name)
}

func (g *gate) SetPolicy(_ context.Context, _ flow.Caller, name string, kind policy.Kind, source string) (policy.Document, error) {
	return policy.Document{Name: name, Version: 3, Kind: kind, Source: source}, g.called("SetPolicy", source)
}

func (g *gate) RemovePolicy(_ context.Context, _ flow.Caller, name string) error {
	return g.called("RemovePolicy", name)
}

func (g *gate) ExplainPolicy(_ context.Context, _ flow.Caller, verb string, in map[string]any) (policy.Explanation, error) {
	return policy.Explanation{
		Verb: verb, Decision: policy.Decision{Allow: true, Bounds: policy.Bounds{Kind: "k", MaxTTL: time.Minute}},
		Documents: []policy.DocumentTrace{{Document: "base@1", Vote: policy.Allows, Answer: in, Rules: []policy.RuleTrace{{Rule: "release", Line: 3, Succeeded: true}}}},
	}, g.called("ExplainPolicy", in)
}

func (g *gate) Resources(_ context.Context, _ flow.Caller, prefix, after string, _ int) ([]resource.Resource, error) {
	return []resource.Resource{{ID: "a/b/c", Version: 1, Sealed: []byte("CANARY")}}, g.called("Resources", prefix+after)
}

func (g *gate) PutResource(_ context.Context, _ flow.Caller, segments []string, value secret.Bytes) (resource.Resource, error) {
	path, err := resource.ParsePath(segments)
	if err != nil {
		return resource.Resource{}, err
	}
	return resource.Resource{ID: path, Version: 1}, g.called("PutResource", string(value.Reveal()))
}

func (g *gate) DeleteResource(_ context.Context, _ flow.Caller, segments []string, erasing bool) error {
	return g.called("DeleteResource", append(segments, strconv.FormatBool(erasing)))
}

func (g *gate) ReadResource(_ context.Context, _ flow.Caller, segments []string, number int64) (resource.Version, secret.Bytes, error) {
	path, err := resource.ParsePath(segments)
	if err != nil {
		return resource.Version{}, secret.Bytes{}, err
	}
	return resource.Version{Path: path, Number: number}, secret.New([]byte{0, 255}), g.called("ReadResource", number)
}

func (g *gate) ResourceVersions(_ context.Context, _ flow.Caller, _ []string, before int64, _ int) ([]resource.Version, error) {
	return []resource.Version{{Number: 3, Deleted: true}, {Number: 2, Sealed: []byte("CANARY"), Bytes: 6}, {Number: 1}}, g.called("ResourceVersions", before)
}

func (g *gate) Publishers(context.Context, flow.Caller) ([]flow.Trusted, error) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	key := plugin.Key{ID: "k", Publisher: "p", Public: public, State: plugin.Active}
	return []flow.Trusted{{Publisher: plugin.Publisher{Name: "p", Threshold: 2}, Keys: []plugin.Key{key}}}, g.called("Publishers", nil)
}

func (g *gate) TrustPublisher(_ context.Context, _ flow.Caller, k flow.PublisherKey) (plugin.Key, error) {
	return plugin.Key{
		ID: plugin.KeyID(k.Public), Publisher: k.Publisher, Public: k.Public, Names: k.Names, Expires: k.Expires, State: plugin.Active,
	}, g.called("TrustPublisher", k.Publisher)
}

func (g *gate) RetirePublisherKey(_ context.Context, _ flow.Caller, keyID string) error {
	return g.called("RetirePublisherKey", keyID)
}

func (g *gate) RevokePublisherKey(_ context.Context, _ flow.Caller, keyID, reason string) error {
	return g.called("RevokePublisherKey", keyID+" "+reason)
}

func (g *gate) DemandSignatures(_ context.Context, _ flow.Caller, publisher string, threshold int) (plugin.Publisher, error) {
	return plugin.Publisher{Name: publisher, Threshold: threshold}, g.called("DemandSignatures", threshold)
}

func (g *gate) RotatePublisher(_ context.Context, _ flow.Caller, statement []byte) (plugin.Rotated, error) {
	return plugin.Rotated{Publisher: plugin.Publisher{Name: "p", Threshold: 1, Serial: 4}}, g.called("RotatePublisher", string(statement))
}

func (g *gate) Floors(context.Context, flow.Caller) ([]plugin.Floor, error) {
	return []plugin.Floor{{Name: "sshcert", Lowest: "1.0.0"}}, g.called("Floors", nil)
}

func (g *gate) SetFloor(_ context.Context, _ flow.Caller, name, lowest string, lower bool) (plugin.Floor, error) {
	return plugin.Floor{Name: name, Lowest: lowest}, g.called("SetFloor", lower)
}

func (g *gate) DistrustPublisher(_ context.Context, _ flow.Caller, keyID string) error {
	return g.called("DistrustPublisher", keyID)
}

func (g *gate) Plugins(context.Context, flow.Caller) ([]plugin.Installed, []plugin.Status, error) {
	return []plugin.Installed{{Name: "sshcert", Package: "1.0.0", State: plugin.Active}},
		[]plugin.Status{{Name: "sshcert", State: plugin.Ready}}, g.called("Plugins", nil)
}

func (g *gate) InstallPlugin(_ context.Context, _ flow.Caller, pack io.Reader, r flow.InstallRequest) (plugin.Installed, error) {
	n, err := io.Copy(io.Discard, pack)
	if err != nil {
		return plugin.Installed{}, err
	}
	row := plugin.Installed{Name: "sshcert", Package: "1.0.0", Digest: r.Digest}
	if r.Bare != nil {
		row.Name, row.Offer.Roles, row.Asks = r.Bare.Name, r.Bare.Roles, r.Bare.Network
	}
	return row, g.called("InstallPlugin", n)
}

func (g *gate) PurgePlugin(_ context.Context, _ flow.Caller, name string) error {
	return g.called("PurgePlugin", name)
}

func (g *gate) RemovePlugin(_ context.Context, _ flow.Caller, name string) error {
	return g.called("RemovePlugin", name)
}

func (g *gate) Oversee(_ context.Context, c flow.Caller) error {
	if c.Subject.Kind != subject.Operator || c.Session.Delegated() {
		return fault.Deniedf("the status is for operators")
	}
	return nil
}

func (g *gate) Audit(_ context.Context, _ flow.Caller, action string) (flow.Records, error) {
	return g.records, g.called("Audit", action)
}

func (g *gate) Keys(context.Context, flow.Caller) ([]flow.KeyState, error) {
	at := time.Now().Add(-time.Hour)
	return []flow.KeyState{
		{Key: keys.Key{ID: "K3", Purpose: keys.Token, Algorithm: keys.Ed25519, State: keys.Active, Created: at, SignsFrom: time.Now().Add(time.Hour), Sealed: []byte("private")}},
		{Key: keys.Key{ID: "K2", Purpose: keys.Token, Algorithm: keys.Ed25519, State: keys.Retiring, Created: at, NotAfter: time.Now().Add(time.Hour)}, Signs: true},
		{Key: keys.Key{ID: "K1", Purpose: keys.Token, Algorithm: keys.Ed25519, State: keys.Retiring, Created: at, NotAfter: time.Now().Add(time.Hour)}},
		{Key: keys.Key{ID: "K0", Purpose: keys.Token, Algorithm: keys.Ed25519, State: keys.Retired, Created: at}},
	}, g.called("Keys", nil)
}

func (g *gate) RotateKey(_ context.Context, _ flow.Caller, purpose keys.Purpose) (keys.Rotation, error) {
	return keys.Rotation{
		Fresh:   keys.Key{ID: "K1", Purpose: purpose, Algorithm: keys.Ed25519, State: keys.Active, Created: time.Now()},
		Changed: []keys.Key{{ID: "K0", Purpose: purpose, Algorithm: keys.Ed25519, State: keys.Retiring, Created: time.Now(), NotAfter: time.Now().Add(time.Hour)}},
	}, g.called("RotateKey", purpose)
}

func (g *gate) RetireKey(_ context.Context, _ flow.Caller, id string, force bool) (keys.Key, error) {
	return keys.Key{ID: id, Purpose: keys.Token, Algorithm: keys.Ed25519, State: keys.Retired}, g.called("RetireKey", force)
}

func (g *gate) RollbackPlugin(_ context.Context, _ flow.Caller, name, version string) (plugin.Installed, error) {
	return plugin.Installed{Name: name, Package: version, State: plugin.Active}, g.called("RollbackPlugin", name+"@"+version)
}

func (g *gate) Installations(context.Context, flow.Caller) ([]plugin.Installation, error) {
	return []plugin.Installation{{Name: "sshcert", Package: "1.0.0", Digest: "sha256:00", Repository: "acme"}}, g.called("Installations", nil)
}

func (g *gate) AddRepository(_ context.Context, _ flow.Caller, name, place string, root []byte) (plugin.Repository, error) {
	return plugin.Repository{Name: name, URL: place, Seen: plugin.Seen{Root: root}}, g.called("AddRepository", name)
}

func (g *gate) RemoveRepository(_ context.Context, _ flow.Caller, name string) error {
	return g.called("RemoveRepository", name)
}

func (g *gate) PluginRepositories(context.Context, flow.Caller) ([]plugin.Repository, error) {
	return []plugin.Repository{{Name: "acme", URL: "https://plugins.example", Seen: plugin.Seen{Root: []byte("{}")}}}, g.called("PluginRepositories", nil)
}

func (g *gate) DeliverBundle(_ context.Context, _ flow.Caller, name string, bundle io.Reader, downgrade bool) (flow.Delivery, error) {
	data, err := io.ReadAll(bundle)
	if err != nil {
		return flow.Delivery{}, err
	}
	return flow.Delivery{
		Repository: plugin.Repository{Name: name},
		View:       plugin.View{Versions: map[string]int64{"root": 1}, Releases: []plugin.Release{{Name: "sshcert", Version: "1.0.0"}}},
	}, g.called("DeliverBundle", fmt.Sprint(name, downgrade, string(data)))
}

func (g *gate) UploadPackage(_ context.Context, _ flow.Caller, pack io.Reader) (plugin.Release, error) {
	data, err := io.ReadAll(pack)
	if err != nil {
		return plugin.Release{}, err
	}
	err = g.called("UploadPackage", string(data))
	if len(g.uploads) > 0 {
		err, g.uploads = g.uploads[0], g.uploads[1:]
	}
	return plugin.Release{Name: "sshcert", Version: "1.0.0"}, err
}

func (g *gate) CreateUploadToken(_ context.Context, c flow.Caller, r flow.UploadTokenRequest) (flow.NewUploadToken, error) {
	value := secret.New([]byte(strings.Repeat("u", 32)))
	row, err := plugin.NewUploadToken(value, r.Publisher, r.Names, strings.Repeat("ab", 32), c.Subject.ID, time.Now().Add(r.Life), time.Now())
	if err != nil {
		return flow.NewUploadToken{}, err
	}
	return flow.NewUploadToken{UploadToken: row, Secret: value}, g.called("CreateUploadToken", r)
}

func (g *gate) UploadTokens(context.Context, flow.Caller) ([]plugin.UploadToken, error) {
	return []plugin.UploadToken{{ID: "gone", Publisher: "acme", Names: []string{"acme-*"}, Expires: time.Now()}}, g.called("UploadTokens", nil)
}

func (g *gate) RevokeUploadToken(_ context.Context, _ flow.Caller, id, reason string) error {
	return g.called("RevokeUploadToken", id+" "+reason)
}

func (g *gate) Uploader(_ context.Context, id string, s secret.Bytes, p flow.Presented) (flow.Caller, error) {
	if string(s.Reveal()) != strings.Repeat("u", 32) {
		return flow.Caller{}, fault.Unauthenticatedf("the upload token is not valid")
	}
	return flow.Caller{Via: p.Via, Address: p.Address}, g.called("Uploader", id)
}

func (g *gate) RepositoryFile(name string) (io.ReadCloser, int64, error) {
	if err := g.called("RepositoryFile", name); err != nil {
		return nil, 0, err
	}
	return io.NopCloser(strings.NewReader("file " + name)), int64(5 + len(name)), nil
}
