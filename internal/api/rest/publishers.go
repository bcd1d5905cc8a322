package rest

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

type publisherBody struct {
	Publisher string    `json:"publisher"`
	PublicKey string    `json:"public_key" doc:"Ed25519, PKIX PEM."`
	Names     []string  `json:"names,omitempty" nullable:"false" doc:"Patterns of package names that the key may sign; none means all. Names alone for agentkms."`
	Use       string    `json:"use,omitempty" enum:"package,agentkms,development" doc:"What its signatures are over: manifests, bare executables, or packages of a developer, where the server allows those."`
	NotBefore time.Time `json:"not_before,omitzero"`
	Expires   time.Time `json:"expires,omitzero" doc:"From then on the key counts for no installation and no start."`
}

type publisherKeyView struct {
	KeyID     string    `json:"key_id" doc:"SHA-256 of the raw public key, lower-case hex."`
	Publisher string    `json:"publisher"`
	Use       string    `json:"use" enum:"package,agentkms,development"`
	PublicKey string    `json:"public_key"`
	Names     []string  `json:"names" nullable:"false"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
	State     string    `json:"state" enum:"active,retired,revoked"`
	Reason    string    `json:"reason,omitempty" doc:"Why it was revoked."`
	Author    string    `json:"author,omitempty"`
	At        time.Time `json:"at"`
}

type publisherView struct {
	Name      string             `json:"name" doc:"Empty for the keys of development."`
	Threshold int                `json:"threshold" doc:"How many distinct keys must have signed."`
	Serial    int64              `json:"serial" doc:"Of the last rotation that was applied; 0 for none."`
	Keys      []publisherKeyView `json:"keys" nullable:"false"`
}

type thresholdBody struct {
	Threshold int `json:"threshold"`
}

type revokeKeyBody struct {
	Reason string `json:"reason,omitempty"`
}

type rotationBody struct {
	Statement string `json:"statement" doc:"The rotation file, as plugin trust statement makes it."`
}

type rotationView struct {
	Publisher string             `json:"publisher"`
	Serial    int64              `json:"serial"`
	Threshold int                `json:"threshold"`
	Added     []publisherKeyView `json:"added" nullable:"false"`
	Ended     []publisherKeyView `json:"ended" nullable:"false" doc:"Retired or revoked."`
	Signers   []string           `json:"signers" nullable:"false"`
}

func (d *Door) publishers() []route {
	return []route{
		endpoint(route{
			id: "list-publishers", method: http.MethodGet, path: "/v1/publishers", tag: "plugins", summary: "List the trusted publishers and their keys",
		}, d.listPublishers),
		endpoint(route{
			id: "trust-publisher", method: http.MethodPost, path: "/v1/publishers", tag: "plugins", keyed: true, status: http.StatusCreated,
			summary: "Trust a publisher's key", about: "A key that is trusted already gets the new terms. One that was revoked is never trusted again.",
		}, d.trustPublisher),
		endpoint(route{
			id: "distrust-publisher", method: http.MethodDelete, path: "/v1/publishers/{key_id}", tag: "plugins", keyed: true,
			summary: "Take a key out of trust", about: "Plugins that only it has signed stop.",
		}, d.distrustPublisher),
		endpoint(route{
			id: "retire-publisher-key", method: http.MethodPost, path: "/v1/publishers/{key_id}/retire", tag: "plugins", keyed: true, optional: true,
			summary: "Let a key sign nothing new", about: "What it signed and is installed goes on.",
		}, d.retirePublisherKey),
		endpoint(route{
			id: "revoke-publisher-key", method: http.MethodPost, path: "/v1/publishers/{key_id}/revoke", tag: "plugins", keyed: true, optional: true,
			summary: "Revoke a key for ever", about: "Plugins that do not run without its signature are killed.",
		}, d.revokePublisherKey),
		endpoint(route{
			id: "set-publisher-threshold", method: http.MethodPut, path: "/v1/publishers/{name}/threshold", tag: "plugins", keyed: true,
			summary: "Set how many keys of a publisher must have signed",
		}, d.setThreshold),
		endpoint(route{
			id: "rotate-publisher", method: http.MethodPost, path: "/v1/publishers/rotations", tag: "plugins", keyed: true,
			summary: "Apply a publisher's own statement which keys are its own", limit: policyBody,
			about: "It counts if enough of the publisher's present keys have signed it, and every new key too.",
		}, d.rotatePublisher),
	}
}

func viewPublisherKey(k plugin.Key) publisherKeyView {
	out := publisherKeyView{
		KeyID: k.ID, Publisher: k.Publisher, Use: string(k.Use), Names: filled(k.Names), NotBefore: moment(k.NotBefore), Expires: moment(k.Expires),
		State: string(k.State), Reason: k.Reason, Author: k.Author, At: k.At.UTC(),
	}
	if der, err := x509.MarshalPKIXPublicKey(k.Public); err == nil {
		out.PublicKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	return out
}

func viewPublisher(t flow.Trusted) publisherView {
	return publisherView{
		Name: t.Name, Threshold: t.Threshold, Serial: t.Serial, Keys: paged(t.Keys, 0, viewPublisherKey, nil).Items,
	}
}

func (d *Door) listPublishers(ctx context.Context, x *exchange, _ none) (page[publisherView], error) {
	all, err := d.cfg.Gate.Publishers(ctx, x.caller)
	if err != nil {
		return page[publisherView]{}, err
	}
	return paged(all, 0, viewPublisher, nil), nil
}

func (d *Door) trustPublisher(ctx context.Context, x *exchange, in publisherBody) (publisherKeyView, error) {
	public, err := plugin.ParsePublicKey([]byte(in.PublicKey))
	if err != nil {
		return publisherKeyView{}, fault.Invalidf("public_key must be one PEM block PUBLIC KEY with an Ed25519 key").Because(err)
	}
	k, err := d.cfg.Gate.TrustPublisher(ctx, x.caller, flow.PublisherKey{
		Publisher: in.Publisher, Public: public, Names: in.Names, Use: plugin.Use(in.Use), NotBefore: in.NotBefore.UTC(), Expires: in.Expires.UTC(),
	})
	if err != nil {
		return publisherKeyView{}, err
	}
	return viewPublisherKey(k), nil
}

func (d *Door) distrustPublisher(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.DistrustPublisher(ctx, x.caller, x.value("key_id"))
}

func (d *Door) retirePublisherKey(ctx context.Context, x *exchange, _ struct{}) (none, error) {
	return none{}, d.cfg.Gate.RetirePublisherKey(ctx, x.caller, x.value("key_id"))
}

func (d *Door) revokePublisherKey(ctx context.Context, x *exchange, in revokeKeyBody) (none, error) {
	return none{}, d.cfg.Gate.RevokePublisherKey(ctx, x.caller, x.value("key_id"), in.Reason)
}

func (d *Door) setThreshold(ctx context.Context, x *exchange, in thresholdBody) (none, error) {
	_, err := d.cfg.Gate.DemandSignatures(ctx, x.caller, x.value("name"), in.Threshold)
	return none{}, err
}

func (d *Door) rotatePublisher(ctx context.Context, x *exchange, in rotationBody) (rotationView, error) {
	r, err := d.cfg.Gate.RotatePublisher(ctx, x.caller, []byte(in.Statement))
	if err != nil {
		return rotationView{}, err
	}
	return rotationView{
		Publisher: r.Publisher.Name, Serial: r.Publisher.Serial, Threshold: r.Publisher.Threshold, Signers: filled(r.Signers),
		Added: paged(r.Added, 0, viewPublisherKey, nil).Items, Ended: paged(r.Ended, 0, viewPublisherKey, nil).Items,
	}, nil
}
