package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/keys"
)

type keyView struct {
	ID        string    `json:"id"`
	Purpose   string    `json:"purpose" enum:"root,row-mac,pepper,token,ear,cookie,context,ledger,ca-root,ca-intermediate,ssh-ca"`
	Algorithm string    `json:"algorithm" enum:"ed25519,ecdsa-p256,random-256"`
	State     string    `json:"state" enum:"active,retiring,retired"`
	Does      string    `json:"does" enum:"signs,announced,verifies,nothing" doc:"Now: the one that signs, seals or writes; one that begins to at signs_from; one that only verifies, opens or reads."`
	Public    string    `json:"public,omitempty" doc:"PEM, a line of authorized_keys, or a verifier key. A root that has replaced another one comes with the certificate by which that one signs it."`
	CreatedAt time.Time `json:"created_at"`
	SignsFrom time.Time `json:"signs_from,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero" doc:"Absent while no time ends what it made."`
}

func (d *Door) viewKey(k flow.KeyState) keyView {
	now := d.cfg.Now()
	out := keyView{
		ID: k.ID, Purpose: string(k.Purpose), Algorithm: string(k.Algorithm), State: string(k.State), Does: "nothing", Public: k.Public,
		CreatedAt: k.Created.UTC(), SignsFrom: moment(k.SignsFrom), NotAfter: moment(k.NotAfter),
	}
	switch {
	case k.Signs:
		out.Does = "signs"
	case k.State == keys.Active && k.Usable(now) && !k.Begun(now):
		out.Does = "announced"
	case k.Usable(now):
		out.Does = "verifies"
	}
	return out
}

type rotatedView struct {
	Key     keyView   `json:"key" doc:"The new one."`
	Under   []keyView `json:"under" nullable:"false" doc:"New too, vouched for by it: the intermediate of a new root."`
	Changed []keyView `json:"changed" nullable:"false" doc:"Those that it replaces, and those whose time is over."`
}

type retireBody struct {
	Force bool `json:"force,omitempty" doc:"Even if something good needs it still, which is not believed any more then."`
}

func (d *Door) keys() []route {
	return []route{
		endpoint(route{
			id: "list-keys", method: http.MethodGet, path: "/v1/keys", tag: "keys", summary: "List the keys of the house",
			about: "By purpose, the youngest first. Private parts never leave the store.",
		}, d.listKeys),
		endpoint(route{
			id: "rotate-key", method: http.MethodPost, path: "/v1/keys/{purpose}/rotate", tag: "keys", keyed: true, status: http.StatusCreated, optional: true,
			summary: "Replace the signing key of a purpose", about: "What the old one signed stays good to its own end.",
		}, d.rotateKey),
		endpoint(route{
			id: "retire-key", method: http.MethodPost, path: "/v1/keys/{id}/retire", tag: "keys", keyed: true, optional: true,
			summary: "End a key that was replaced", about: "Without force, one that nothing needs any more; a conflict says until when another one is needed.",
		}, d.retireKey),
	}
}

func (d *Door) listKeys(ctx context.Context, x *exchange, _ none) (page[keyView], error) {
	rows, err := d.cfg.Gate.Keys(ctx, x.caller)
	if err != nil {
		return page[keyView]{}, err
	}
	return paged(rows, 0, d.viewKey, nil), nil
}

func (d *Door) rotateKey(ctx context.Context, x *exchange, _ struct{}) (rotatedView, error) {
	turn, err := d.cfg.Gate.RotateKey(ctx, x.caller, keys.Purpose(x.value("purpose")))
	if err != nil {
		return rotatedView{}, err
	}
	view := func(k keys.Key) keyView {
		return d.viewKey(flow.KeyState{Key: k, Signs: k.State == keys.Active && k.Begun(d.cfg.Now())})
	}
	return rotatedView{
		Key: view(turn.Fresh), Under: paged(turn.Under, 0, view, nil).Items, Changed: paged(turn.Changed, 0, view, nil).Items,
	}, nil
}

func (d *Door) retireKey(ctx context.Context, x *exchange, in retireBody) (keyView, error) {
	k, err := d.cfg.Gate.RetireKey(ctx, x.caller, x.value("id"), in.Force)
	return d.viewKey(flow.KeyState{Key: k}), err
}
