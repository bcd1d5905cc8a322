package flow

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// answer is what a verb fills in, in the form in which it can be kept and given
// once more. The kept form of a secret is its bytes: it is sealed at once.
type answer interface {
	// kept is the answer as a JSON value.
	kept() any
	// recall fills the answer in from its kept form.
	recall(data []byte) error
	// ends is when what was made ends by itself; zero if it does not.
	ends() time.Time
	// stands demands that what was made is still there: Conflict if it was taken
	// back, has ended, or is more than the decision allows now. The writes demand it
	// of the unit that hands a secret out. It completes the answer by what is stored
	// of it anyway.
	stands(ctx context.Context, g *Gate, now decided) ([]unit.Write, error)
}

// gone is the refusal of a first answer that is good for nothing any more.
func gone(what string) error {
	return fault.Conflictf("%s since it was made under this Idempotency-Key; choose a new key", what)
}

// vendedAnswer is a credential.
type vendedAnswer struct{ *Vended }

// keptCredential is a credential as it is sealed: what its grant does not tell.
// It is written with every credential, so every byte counts.
type keptCredential struct {
	Grant     string          `json:"grant"`
	Kind      string          `json:"kind"`
	Value     keptText        `json:"value"`
	Private   keptText        `json:"private"`
	Issued    int64           `json:"issued"`
	Expires   int64           `json:"expires"`
	Anomalies []grant.Anomaly `json:"anomalies"`
}

// append writes the credential as JSON.
func (k keptCredential) append(b []byte) ([]byte, error) {
	anomalies, err := json.Marshal(k.Anomalies)
	if err != nil {
		return nil, err //nolint:wrapcheck // by the one caller
	}
	for _, m := range [...]struct{ name, text string }{
		{`{"grant":`, k.Grant}, {`,"kind":`, k.Kind}, {`,"value":`, k.Value.marked()}, {`,"private":`, k.Private.marked()},
	} {
		if b, err = canon.AppendString(append(b, m.name...), m.text); err != nil {
			return nil, err //nolint:wrapcheck // by the one caller
		}
	}
	b = strconv.AppendInt(append(b, `,"issued":`...), k.Issued, 10)
	b = strconv.AppendInt(append(b, `,"expires":`...), k.Expires, 10)
	return append(append(append(b, `,"anomalies":`...), anomalies...), '}'), nil
}

func (v vendedAnswer) kept() any {
	return keptCredential{
		Grant: v.Grant, Kind: v.Kind, Value: v.Value.Reveal(), Private: v.Private.Reveal(),
		Issued: unit.Micros(v.IssuedAt), Expires: unit.Micros(v.ExpiresAt), Anomalies: v.Anomalies,
	}
}

func (v vendedAnswer) recall(data []byte) error {
	var k keptCredential
	if err := json.Unmarshal(data, &k); err != nil {
		return err //nolint:wrapcheck // by the one caller
	}
	*v.Vended = Vended{
		Grant: k.Grant, Kind: k.Kind, Value: secret.New(k.Value), Private: secret.New(k.Private),
		IssuedAt: unit.Moment(k.Issued), ExpiresAt: unit.Moment(k.Expires), Anomalies: k.Anomalies,
	}
	return nil
}

func (v vendedAnswer) ends() time.Time { return v.ExpiresAt }

func (v vendedAnswer) stands(ctx context.Context, g *Gate, now decided) ([]unit.Write, error) {
	held, err := g.Store.Grant(ctx, v.Grant)
	if err != nil {
		return nil, fault.Wrap(err, "read grant of first answer")
	}
	if held.State != grant.Active || !held.Live(g.Now()) {
		return nil, gone("the credential was taken back or has expired")
	}
	bounds := grant.Bounds{Kind: now.Bounds.Kind, MaxParams: now.Bounds.MaxParams, MaxTTL: now.Bounds.MaxTTL}
	if err := grant.Within(held.Scope, held.Scope, bounds); err != nil {
		return nil, gone("policy allows less than this credential")
	}
	v.Params, v.Source = held.Scope.Params, held.Source
	return []unit.Write{unit.Check(held.Table(), held.ID, held.Version)}, nil
}

// invitedAnswer is an invitation.
type invitedAnswer struct{ *Invited }

type keptInvitation struct {
	ID      string    `json:"id"`
	Secret  []byte    `json:"secret"`
	Expires time.Time `json:"expires"`
}

func (i invitedAnswer) kept() any {
	return keptInvitation{ID: i.ID, Secret: i.Secret.Reveal(), Expires: i.Expires}
}

func (i invitedAnswer) recall(data []byte) error {
	var k keptInvitation
	if err := json.Unmarshal(data, &k); err != nil {
		return err //nolint:wrapcheck // by the one caller
	}
	*i.Invited = Invited{ID: k.ID, Secret: secret.New(k.Secret), Expires: k.Expires}
	return nil
}

func (i invitedAnswer) ends() time.Time { return i.Expires }

func (i invitedAnswer) stands(ctx context.Context, g *Gate, _ decided) ([]unit.Write, error) {
	row, err := g.Store.Invitation(ctx, i.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fault.Wrap(err, "read invitation of first answer")
	}
	if err != nil || !row.Used.IsZero() || !g.Now().Before(row.Expires) {
		return nil, gone("the join token was used or has expired")
	}
	return []unit.Write{unit.Check(row.Table(), row.ID, row.Version)}, nil
}

// openedAnswer is a session.
type openedAnswer struct{ *Opened }

type keptSession struct {
	Token   []byte        `json:"token"`
	Session token.Session `json:"session"`
}

func (o openedAnswer) kept() any { return keptSession{Token: o.Token.Reveal(), Session: o.Session} }

func (o openedAnswer) recall(data []byte) error {
	var k keptSession
	if err := json.Unmarshal(data, &k); err != nil {
		return err //nolint:wrapcheck // by the one caller
	}
	*o.Opened = Opened{Token: secret.New(k.Token), Session: k.Session}
	return nil
}

func (o openedAnswer) ends() time.Time { return o.Session.Expires }

func (o openedAnswer) stands(ctx context.Context, g *Gate, _ decided) ([]unit.Write, error) {
	row, err := g.Store.Session(ctx, o.Session.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fault.Wrap(err, "read session of first answer")
	}
	if err != nil || !row.Good(g.Now()) {
		return nil, gone("the session was ended or has expired")
	}
	return []unit.Write{unit.Check(row.Table(), row.ID, row.Version)}, nil
}

// plainAnswer is an answer without a secret.
type plainAnswer[T any] struct {
	to *T
	// undone reports a first answer whose matter was undone since; nil for what
	// nothing undoes, since it tells of the past.
	undone func(ctx context.Context, g *Gate, was T) error
}

func (p plainAnswer[T]) kept() any { return p.to }

func (p plainAnswer[T]) recall(data []byte) error {
	return json.Unmarshal(data, p.to) //nolint:wrapcheck // by the one caller
}

func (plainAnswer[T]) ends() time.Time { return time.Time{} }

func (p plainAnswer[T]) stands(ctx context.Context, g *Gate, _ decided) ([]unit.Write, error) {
	if p.undone == nil {
		return nil, nil
	}
	return nil, p.undone(ctx, g, *p.to)
}

// happened is the answer of a call that says no more than that it was done.
func happened() answer { return plainAnswer[struct{}]{to: &struct{}{}} }

// certified is the answer of a call that issued a certificate. The certificate
// is no secret, so it is enough to look whether it counts still.
func certified[T any](to *T, leaf func(T) Leaf) answer {
	return plainAnswer[T]{to, func(ctx context.Context, g *Gate, was T) error {
		row, err := g.Store.Certificate(ctx, leaf(was).Fingerprint)
		if err != nil {
			return fault.Wrap(err, "read certificate of first answer")
		}
		if !row.Good(g.Now()) {
			return gone("the certificate was revoked or has expired")
		}
		return nil
	}}
}

// requestedKey is what of a certificate request makes it the same request again:
// the key in it. A client signs anew for each attempt, and signatures differ. A
// request that proves no possession of its key is the same as none but itself.
func requestedKey(csr []byte) string {
	der := csr
	if block, _ := pem.Decode(csr); block != nil {
		der = block.Bytes
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil || request.CheckSignature() != nil {
		return string(csr)
	}
	return string(request.RawSubjectPublicKeyInfo)
}
