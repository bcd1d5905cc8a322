package flow

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Upload tokens: what the build of a publisher has, which has no identity here.
// One lets packages of one publisher, under given names, into one repository. It
// acts as the operator who made it, so that it ends with that operator and is
// never allowed more, and it does not replace a signature.

// UploadTokenRequest asks for an upload token.
type UploadTokenRequest struct {
	Publisher string
	Names     []string      // patterns of package names
	Life      time.Duration // one minute to a year
}

// NewUploadToken is an upload token whose secret is shown this once.
type NewUploadToken struct {
	plugin.UploadToken
	Secret secret.Bytes
}

// CreateUploadToken makes an upload token for a publisher whom this server
// trusts. Only the digest of its secret is stored.
func (g *Gate) CreateUploadToken(ctx context.Context, c Caller, r UploadTokenRequest) (NewUploadToken, error) {
	if err := g.Clock.CheckClock(ctx); err != nil {
		return NewUploadToken{}, err
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	out := NewUploadToken{Secret: secret.New(raw)}
	c.keyed("upload-token.created", uploadTokenAnswer{&out}, append([]string{r.Publisher, r.Life.String()}, r.Names...)...)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "upload-token.created", Actor: c.actor(), Data: map[string]string{"publisher": r.Publisher}}
		d, err := g.administered(ctx, c, "create", record, "upload-token", r.Publisher)
		if err != nil {
			return unit.Unit{}, err
		}
		if out.UploadToken, err = g.newUploadToken(ctx, c, r, out.Secret); err != nil {
			return unit.Unit{}, err
		}
		row := out.UploadToken
		record.Policy, record.Target = d.Documents, row.ID
		record.Data["names"], record.Data["repository"] = strings.Join(row.Names, " "), row.Audience
		record.Data["expires"] = row.Expires.Format(time.RFC3339)
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), unit.Insert(row))}, nil
	})
	if err != nil {
		return NewUploadToken{}, err
	}
	return out, nil
}

// newUploadToken is the row of a token for this server's repository and a
// publisher who is trusted here.
func (g *Gate) newUploadToken(ctx context.Context, c Caller, r UploadTokenRequest, s secret.Bytes) (plugin.UploadToken, error) {
	if g.Depot == nil {
		return plugin.UploadToken{}, noDepot()
	}
	now := g.Now().UTC()
	row, err := plugin.NewUploadToken(s, r.Publisher, r.Names, g.Depot.ID(), c.Subject.ID, now.Add(r.Life), now)
	if err != nil {
		return plugin.UploadToken{}, err
	}
	all, err := g.readTrusted(ctx)
	if err != nil {
		return plugin.UploadToken{}, err
	}
	_, err = all.publisher(row.Publisher)
	return row, err
}

// UploadTokens lists the upload tokens, those that were revoked and those that
// expired a short while ago included.
func (g *Gate) UploadTokens(ctx context.Context, c Caller) ([]plugin.UploadToken, error) {
	record := audit.Record{Type: "upload-token.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "upload-token", ""); err != nil {
		return nil, err
	}
	return g.Store.UploadTokens(ctx)
}

// RevokeUploadToken ends a token at once, on every replica: what it is bringing
// at this moment is refused too.
func (g *Gate) RevokeUploadToken(ctx context.Context, c Caller, id, reason string) error {
	c.keyed("upload-token.revoked", happened(), id, reason)
	return g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "upload-token.revoked", Actor: c.actor(), Target: id, Data: map[string]string{"reason": reason}}
		d, err := g.administered(ctx, c, "revoke", record, "upload-token", id)
		if err != nil {
			return unit.Unit{}, err
		}
		old, err := g.Store.UploadToken(ctx, id)
		if fault.Is(err, fault.NotFound) {
			return unit.Unit{}, fault.NotFoundf("there is no upload token with this id; see: sallyport plugin upload-token list")
		}
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read upload token")
		}
		next, err := old.Revoke(reason, g.Now())
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy, record.Data["publisher"] = d.Documents, next.Publisher
		return unit.Unit{Record: record, Urgent: true, Writes: append(g.still(c, d.under), unit.Update(next))}, nil
	})
}

// bringing is an upload token that was shown.
type bringing struct {
	plugin.UploadToken
	secret secret.Bytes
}

// data is what records say of the token: nothing without one.
func (b *bringing) data() map[string]string {
	if b == nil {
		return map[string]string{}
	}
	return map[string]string{"upload_token": b.ID}
}

// covers demands that the token is for a package; without a token scopes and
// policy decide alone.
func (b *bringing) covers(e plugin.Entry) error {
	if b == nil {
		return nil
	}
	return b.Covers(e)
}

// lapsed reports whether the token has expired since it was shown: a package may
// take minutes to arrive.
func (b *bringing) lapsed(now time.Time) bool { return b != nil && !b.Good(now) }

// Uploader recognises the bearer of an upload token, who may call
// [Gate.UploadPackage] and nothing else. Whatever is wrong with the token is
// Unauthenticated in the same words, and is counted.
func (g *Gate) Uploader(ctx context.Context, id string, s secret.Bytes, p Presented) (Caller, error) {
	if g.Depot == nil {
		return Caller{}, noDepot()
	}
	c, err := g.bearer(ctx, Caller{
		Via: p.Via, Address: p.Address, Method: p.Method, deputy: true,
		upload: &bringing{plugin.UploadToken{ID: id}, s},
	})
	if fault.Is(err, fault.Unauthenticated) {
		g.strangers.add(p.Address)
	}
	return c, err
}

// bearer reads the rows behind an upload token as they are now. Who takes one of
// them away after that is noticed by the checks of both versions in the unit.
func (g *Gate) bearer(ctx context.Context, c Caller) (Caller, error) {
	row, err := g.Store.UploadToken(ctx, c.upload.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Caller{}, fault.Wrap(err, "read upload token")
	}
	if err != nil || !row.Admits(c.upload.secret, g.Depot.ID(), g.Now()) {
		return Caller{}, notAdmitted()
	}
	holder, err := g.Store.Subject(ctx, row.Author)
	if err != nil {
		return Caller{}, unknown(err, "read author of upload token")
	}
	c.Subject, c.upload = holder, &bringing{row, c.upload.secret}
	return c, c.standing()
}

func notAdmitted() error {
	return fault.Unauthenticatedf("the upload token is not valid: it is unknown, was revoked, has expired, or is for another repository; ask the operator for a new one")
}

// uploadTokenAnswer is an upload token.
type uploadTokenAnswer struct{ *NewUploadToken }

type keptUploadToken struct {
	ID      string    `json:"id"`
	Secret  []byte    `json:"secret"`
	Expires time.Time `json:"expires"`
}

func (u uploadTokenAnswer) kept() any {
	return keptUploadToken{ID: u.ID, Secret: u.Secret.Reveal(), Expires: u.Expires}
}

func (u uploadTokenAnswer) recall(data []byte) error {
	var k keptUploadToken
	if err := json.Unmarshal(data, &k); err != nil {
		return err //nolint:wrapcheck // by the one caller
	}
	*u.NewUploadToken = NewUploadToken{UploadToken: plugin.UploadToken{ID: k.ID, Expires: k.Expires}, Secret: secret.New(k.Secret)}
	return nil
}

func (u uploadTokenAnswer) ends() time.Time { return u.Expires }

func (u uploadTokenAnswer) stands(ctx context.Context, g *Gate, _ decided) ([]unit.Write, error) {
	row, err := g.Store.UploadToken(ctx, u.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fault.Wrap(err, "read upload token of first answer")
	}
	if err != nil || !row.Good(g.Now()) {
		return nil, gone("the upload token was revoked or has expired")
	}
	u.UploadToken = row
	return []unit.Write{unit.Check(row.Table(), row.ID, row.Version)}, nil
}
