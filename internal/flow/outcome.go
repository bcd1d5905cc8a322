package flow

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// A creating call carries an Idempotency-Key. Its first answer is kept, sealed,
// for OutcomeLife or until the credential expires, so that a caller who lost the
// answer to the network gets the same one again and no second credential
// exists.

// stored is the first answer as it is sealed.
type stored struct {
	Grant   string         `json:"grant"`
	Kind    string         `json:"kind"`
	Value   []byte         `json:"value"`
	Private []byte         `json:"private,omitempty"`
	Params  map[string]any `json:"params,omitempty"`
	Issued  int64          `json:"issued"`
	Expires int64          `json:"expires"`
	Source  grant.Source   `json:"source"`
}

// outcomeID binds a key to the caller who chose it. Sessions of a subject's own
// share it, so that an answer can be fetched again after a refresh; a delegate
// has keys of its own, since what its delegator was given is not for it.
func outcomeID(c Caller, key string) string {
	delegate := ""
	if c.Session.Delegated() {
		delegate = c.Session.ID
	}
	sum := sha256.Sum256([]byte("vend\x00" + c.Subject.ID + "\x00" + delegate + "\x00" + key))
	return hex.EncodeToString(sum[:])
}

// replay returns the first answer under the request's key, if there is one.
func (g *Gate) replay(ctx context.Context, c Caller, r VendRequest) (Vended, bool, error) {
	if r.Key == "" {
		return Vended{}, false, nil
	}
	o, err := g.Store.Outcome(ctx, outcomeID(c, r.Key))
	switch {
	case fault.Is(err, fault.NotFound):
		return Vended{}, false, nil
	case err != nil:
		return Vended{}, false, fault.Wrap(err, "read first answer")
	case o.Request != r.digest:
		return Vended{}, false, fault.Conflictf("this Idempotency-Key was used for another request; choose a new one")
	}
	plain, err := g.Envelope.Open("outcomes", o.ID, o.Version, o.Sealed)
	if err != nil {
		return Vended{}, false, fault.Wrap(err, "open first answer")
	}
	defer plain.Wipe()
	var s stored
	if err := json.Unmarshal(plain.Reveal(), &s); err != nil {
		return Vended{}, false, fault.Internalf("a first answer is broken").Because(err)
	}
	held, err := g.Store.Grant(ctx, s.Grant)
	if err != nil {
		return Vended{}, false, fault.Wrap(err, "read grant of first answer")
	}
	if held.State != grant.Active || !held.Live(g.Now()) {
		return Vended{}, false, fault.Conflictf("the credential that was issued under this Idempotency-Key is %s; choose a new key", held.State)
	}
	return Vended{
		Grant: s.Grant, Kind: s.Kind, Value: secret.New(s.Value), Private: secret.New(s.Private), Params: s.Params,
		IssuedAt: unit.Moment(s.Issued), ExpiresAt: unit.Moment(s.Expires), Source: s.Source, Replayed: true,
		version: held.Version,
	}, true, nil
}

// outcome returns the write that keeps a first answer; none without a key.
func (g *Gate) outcome(c Caller, r VendRequest, v Vended) ([]unit.Write, error) {
	if r.Key == "" {
		return nil, nil
	}
	plain, err := json.Marshal(stored{
		Grant: v.Grant, Kind: v.Kind, Value: v.Value.Reveal(), Private: v.Private.Reveal(), Params: v.Params,
		Issued: unit.Micros(v.IssuedAt), Expires: unit.Micros(v.ExpiresAt), Source: v.Source,
	})
	if err != nil {
		return nil, fault.Wrap(err, "encode first answer")
	}
	keep := secret.New(plain)
	defer keep.Wipe()
	o := unit.Outcome{ID: outcomeID(c, r.Key), Version: 1, Request: r.digest, Expires: earlier(g.Now().Add(g.OutcomeLife), v.ExpiresAt)}
	if o.Sealed, err = g.Envelope.Seal(o.Table(), o.ID, o.Version, keep); err != nil {
		return nil, fault.Wrap(err, "seal first answer")
	}
	return []unit.Write{unit.Insert(o)}, nil
}

// replayed is the unit of a repeated answer: it changes nothing, and handing a
// credential out again is recorded like the first time.
func (v *vending) replayed(d decided, first Vended) unit.Unit {
	return unit.Unit{
		Writes: append(v.still(d.under), unit.Check("grants", first.Grant, first.version)),
		Record: audit.Record{
			Type: "grant.replayed", Actor: v.caller.actor(), Subject: v.caller.Subject.ID, Grant: first.Grant, Policy: d.Documents,
			Data: map[string]string{"kind": first.Kind},
		},
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
