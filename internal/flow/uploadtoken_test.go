package flow_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// shelf is a depot that takes every package for the one that it is told of.
type shelf struct {
	id      string
	comes   manifest.Manifest
	during  func() // while the package arrives
	offered []string
}

func (s *shelf) ID() string { return s.id }
func (s *shelf) File(string) (io.ReadCloser, int64, error) {
	return nil, 0, fault.NotFoundf("no file")
}

func (s *shelf) Receive(context.Context, io.Reader, plugin.Trust) (flow.Parcel, error) {
	if s.during != nil {
		s.during()
	}
	return parcel{s}, nil
}

type parcel struct{ *shelf }

func (p parcel) Entry() plugin.Entry { return plugin.Entry{Manifest: p.comes, Digest: "sha256:00"} }
func (p parcel) Close()              {}
func (p parcel) Publish(context.Context) (plugin.Release, error) {
	p.offered = append(p.offered, p.comes.Name)
	p.shelf.offered = p.offered
	return plugin.Release{Name: p.comes.Name, Version: p.comes.Version}, nil
}

// uploadDoor is a house with a depot, a publisher and an upload token.
type uploadDoor struct {
	*house
	shelf *shelf
	token flow.NewUploadToken
}

func newUploadDoor(t *testing.T) *uploadDoor {
	h := newHouse(t)
	d := &uploadDoor{house: h, shelf: &shelf{id: strings.Repeat("ab", 32), comes: manifest.Manifest{Name: "acme-db", Version: "1.0.0", Publisher: "acme"}}}
	h.gate.Depot = d.shelf
	acme, err := plugin.NewPublisher("acme", "root", h.now())
	must(t, err)
	must(t, h.store.Commit(context.Background(), unit.Unit{Writes: []unit.Write{unit.Insert(acme)}, Record: storetest.Record("publisher.trusted")}))
	d.token = d.create(time.Hour)
	return d
}

func (d *uploadDoor) create(life time.Duration) flow.NewUploadToken {
	d.t.Helper()
	out, err := d.gate.CreateUploadToken(context.Background(), d.admin.caller(), flow.UploadTokenRequest{Publisher: "acme", Names: []string{"acme-*"}, Life: life})
	must(d.t, err)
	return out
}

// bring uploads with a token, at a gate.
func (d *uploadDoor) bring(g *flow.Gate, id string, s secret.Bytes) error {
	ctx := context.Background()
	c, err := g.Uploader(ctx, id, s, flow.Presented{Via: "rest", Address: "192.0.2.1", Method: "POST"})
	if err != nil {
		return err
	}
	_, err = g.UploadPackage(ctx, c, strings.NewReader(""))
	return err
}

func TestUploadToken_BringsAPackage(t *testing.T) {
	d := newUploadDoor(t)
	must(t, d.bring(d.gate, d.token.ID, d.token.Secret))
	r := d.records("package.uploaded")
	if len(r) != 1 || r[0].Data["upload_token"] != d.token.ID || r[0].Actor.Subject != d.admin.id || r[0].Data["publisher"] != "acme" {
		t.Errorf("recorded %+v", r)
	}
	if len(d.shelf.offered) != 1 {
		t.Errorf("offered %v", d.shelf.offered)
	}
	if text := d.log.String(); strings.Contains(text, string(d.token.Secret.Reveal())) {
		t.Error("the log has the secret")
	}
	count(t, len(d.records("upload-token.created")), 1, "records of the token")
}

// TestUploadToken_Refusals shows tokens that must let nothing through. In each
// case a token that is right is made wrong in one way.
func TestUploadToken_Refusals(t *testing.T) {
	for name, c := range map[string]struct {
		kind  fault.Kind
		spoil func(*uploadDoor) (id string, s secret.Bytes)
	}{
		"another secret": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			return d.token.ID, secret.FromString(strings.Repeat("x", 32))
		}},
		"a shorter secret": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			return d.token.ID, secret.New(d.token.Secret.Reveal()[:31])
		}},
		"no secret": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) { return d.token.ID, secret.Bytes{} }},
		"the secret of another token": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			return d.token.ID, d.create(time.Hour).Secret
		}},
		"no id":      {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) { return "", d.token.Secret }},
		"another id": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) { return d.admin.id, d.token.Secret }},
		"another repository": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			d.shelf.id = strings.Repeat("cd", 32)
			return d.token.ID, d.token.Secret
		}},
		"expired": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			d.pass(time.Hour)
			return d.token.ID, d.token.Secret
		}},
		"expired while it came": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			d.shelf.during = func() { d.pass(time.Hour) }
			return d.token.ID, d.token.Secret
		}},
		"revoked": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			must(d.t, d.gate.RevokeUploadToken(context.Background(), d.admin.caller(), d.token.ID, "test"))
			return d.token.ID, d.token.Secret
		}},
		"revoked while it came": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			d.shelf.during = func() {
				must(d.t, d.gate.RevokeUploadToken(context.Background(), d.admin.caller(), d.token.ID, "test"))
			}
			return d.token.ID, d.token.Secret
		}},
		"its operator was revoked": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			d.leave()
			return d.token.ID, d.token.Secret
		}},
		"its operator was revoked while it came": {fault.Unauthenticated, func(d *uploadDoor) (string, secret.Bytes) {
			d.shelf.during = d.leave
			return d.token.ID, d.token.Secret
		}},
		"its operator is an auditor now": {fault.Denied, func(d *uploadDoor) (string, secret.Bytes) {
			d.alter(flow.SubjectChange{Act: "changed", Role: "auditor"})
			return d.token.ID, d.token.Secret
		}},
		"a package of another publisher": {fault.Denied, func(d *uploadDoor) (string, secret.Bytes) {
			d.shelf.comes.Publisher = "other"
			return d.token.ID, d.token.Secret
		}},
		"a package of another name": {fault.Denied, func(d *uploadDoor) (string, secret.Bytes) {
			d.shelf.comes.Name = "acmedb"
			return d.token.ID, d.token.Secret
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newUploadDoor(t)
			id, s := c.spoil(d)
			want(t, d.bring(d.newGate(func(f *flow.Config) { f.Depot = d.shelf }), id, s), c.kind)
			if len(d.shelf.offered) != 0 || len(d.records("package.uploaded")) != len(denied(d.house)) {
				t.Errorf("it came through: %v", d.shelf.offered)
			}
			if c.kind == fault.Denied {
				count(t, len(d.records("package.refused"))+len(denied(d.house)), 1, "refusals")
			}
		})
	}
}

// denied are the recorded denials of uploads by policy.
func denied(h *house) (out []string) {
	for _, r := range h.records("package.uploaded") {
		if r.Outcome == audit.Denied {
			out = append(out, r.ID)
		}
	}
	return out
}

// alter changes the token's operator, by another administrator.
func (d *uploadDoor) alter(c flow.SubjectChange) {
	d.t.Helper()
	other := d.stored("operator", "administrator", "second")
	_, err := d.gate.ChangeSubject(context.Background(), other.caller(), d.admin.id, c)
	must(d.t, err)
}

func (d *uploadDoor) leave() { d.alter(flow.SubjectChange{Act: "revoked", Reason: "leaves"}) }

func TestCreateUploadToken_Refuses(t *testing.T) {
	d := newUploadDoor(t)
	ctx := context.Background()
	good := flow.UploadTokenRequest{Publisher: "acme", Names: []string{"acme-*"}, Life: time.Hour}
	for name, c := range map[string]struct {
		kind  fault.Kind
		spoil func(*flow.UploadTokenRequest)
	}{
		"nobody trusts the publisher": {fault.NotFound, func(r *flow.UploadTokenRequest) { r.Publisher = "other" }},
		"no publisher":                {fault.Invalid, func(r *flow.UploadTokenRequest) { r.Publisher = "" }},
		"no names":                    {fault.Invalid, func(r *flow.UploadTokenRequest) { r.Names = nil }},
		"a pattern that is none":      {fault.Invalid, func(r *flow.UploadTokenRequest) { r.Names = []string{"acme-["} }},
		"too short":                   {fault.Invalid, func(r *flow.UploadTokenRequest) { r.Life = time.Second }},
		"too long":                    {fault.Invalid, func(r *flow.UploadTokenRequest) { r.Life = 400 * 24 * time.Hour }},
		"for ever":                    {fault.Invalid, func(r *flow.UploadTokenRequest) { r.Life = 0 }},
	} {
		r := good
		c.spoil(&r)
		_, err := d.gate.CreateUploadToken(ctx, d.admin.caller(), r)
		if !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	auditor := d.stored("operator", "auditor", "audrey")
	for name, act := range map[string]func(flow.Caller) error{
		"create": func(c flow.Caller) error { _, err := d.gate.CreateUploadToken(ctx, c, good); return err },
		"list":   func(c flow.Caller) error { _, err := d.gate.UploadTokens(ctx, c); return err },
		"revoke": func(c flow.Caller) error { return d.gate.RevokeUploadToken(ctx, c, d.token.ID, "") },
	} {
		if err := act(auditor.caller()); !fault.Is(err, fault.Denied) {
			t.Errorf("an auditor may %s: %v", name, err)
		}
	}
	// The bearer of a token makes no other one.
	c, err := d.gate.Uploader(ctx, d.token.ID, d.token.Secret, flow.Presented{})
	must(t, err)
	if c.Session.ID != "" || c.Certificate != nil {
		t.Errorf("a bearer has %+v", c)
	}
	want(t, d.gate.RevokeUploadToken(ctx, d.admin.caller(), "nobody", ""), fault.NotFound)
	must(t, d.gate.RevokeUploadToken(ctx, d.admin.caller(), d.token.ID, "test"))
	want(t, d.gate.RevokeUploadToken(ctx, d.admin.caller(), d.token.ID, "test"), fault.Conflict)
	d.gate.Depot = nil
	_, err = d.gate.CreateUploadToken(ctx, d.admin.caller(), good)
	want(t, err, fault.NotFound)
}

// TestCreateUploadToken_Again asks twice under one key.
func TestCreateUploadToken_Again(t *testing.T) {
	d := newUploadDoor(t)
	ctx := context.Background()
	ask := func() (flow.NewUploadToken, error) {
		c := d.admin.caller()
		c.Key = &flow.Key{Text: "a-key"}
		return d.gate.CreateUploadToken(ctx, c, flow.UploadTokenRequest{Publisher: "acme", Names: []string{"acme-*"}, Life: time.Hour})
	}
	first, err := ask()
	must(t, err)
	again, err := ask()
	must(t, err)
	if first.ID != again.ID || !first.Secret.Equal(again.Secret) || again.Publisher != "acme" {
		t.Errorf("got %+v, then %+v", first.UploadToken, again.UploadToken)
	}
	must(t, d.gate.RevokeUploadToken(ctx, d.admin.caller(), first.ID, ""))
	_, err = ask()
	want(t, err, fault.Conflict)
}
