package rest

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
)

type vendBody struct {
	Kind       string         `json:"kind" doc:"For example ssh-user-cert."`
	Params     map[string]any `json:"params,omitempty" doc:"As the kind wants them."`
	TTLSeconds int64          `json:"ttl_seconds" doc:"Wanted; policy may shorten it."`
}

type anomalyView struct {
	Level   string `json:"level" enum:"unspecified,info,warn,alert"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

type vendedView struct {
	Grant      string         `json:"grant" doc:"By which it is looked up and taken back."`
	Kind       string         `json:"kind"`
	Value      string         `json:"value" doc:"The credential."`
	PrivateKey string         `json:"private_key,omitempty" doc:"Of a key pair that was made for it."`
	Encoding   string         `json:"encoding,omitempty" enum:"base64" doc:"Of value and private_key, where they are no text."`
	Params     map[string]any `json:"params,omitempty" doc:"As granted."`
	IssuedAt   time.Time      `json:"issued_at"`
	ExpiresAt  time.Time      `json:"expires_at"`
	Plugin     sourceView     `json:"plugin"`
	Anomalies  []anomalyView  `json:"anomalies,omitempty" nullable:"false"`
	Replayed   bool           `json:"replayed,omitempty" doc:"The first answer under this key, once more."`
}

type leakBodyView struct {
	Value       string    `json:"value,omitempty" doc:"The leaked value itself, at most 64 KiB; or"`
	Fingerprint string    `json:"fingerprint,omitempty" doc:"SHA-256 of the trimmed value, hex; counts from reporters only."`
	Source      string    `json:"source,omitempty" doc:"Who found it."`
	Location    string    `json:"location,omitempty" doc:"Where it was seen."`
	Reason      string    `json:"reason,omitempty"`
	SeenAt      time.Time `json:"seen_at,omitzero"`
}

type reactionView struct {
	Record  string      `json:"record" doc:"Of the report, in the ledger."`
	Matches []matchView `json:"matches" nullable:"false"`
}

func (d *Door) credentials() []route {
	return []route{
		endpoint(route{
			id: "vend", method: http.MethodPost, path: "/v1/credentials", tag: "credentials", keyed: true, status: http.StatusCreated,
			summary: "Get a credential",
		}, d.vend),
		endpoint(route{
			id: "list-credentials", method: http.MethodGet, path: "/v1/credentials", tag: "credentials",
			summary: "List grants", about: "Never shows a credential.",
			query: []param{
				{name: "subject", about: "The caller by default; `all` for everybody's, which operators may ask."},
				{name: "kind"},
				{name: "state"},
				afterParam, limitParam,
			},
		}, d.listGrants),
		endpoint(route{
			id: "read-credential", method: http.MethodGet, path: "/v1/credentials/{id}", tag: "credentials", summary: "Read a grant",
		}, d.readGrant),
		endpoint(route{
			id: "revoke-credential", method: http.MethodPost, path: "/v1/credentials/{id}/revoke", tag: "credentials", optional: true,
			summary: "Take a credential back",
		}, d.revokeGrant),
		endpoint(route{
			id: "report-leak", method: http.MethodPost, path: "/v1/leaks", tag: "credentials", keyed: true, limit: leakBody,
			summary: "Report a leaked value and take back what it opens",
		}, d.reportLeak),
	}
}

func (d *Door) vend(ctx context.Context, x *exchange, in vendBody) (vendedView, error) {
	ttl, err := duration(in.TTLSeconds)
	if err != nil {
		return vendedView{}, err
	}
	out, err := d.cfg.Gate.Vend(ctx, x.caller, flow.VendRequest{Kind: in.Kind, Params: in.Params, TTL: ttl})
	if err != nil {
		return vendedView{}, err
	}
	defer out.Value.Wipe()
	defer out.Private.Wipe()
	view := vendedView{
		Grant: out.Grant, Kind: out.Kind, Value: string(out.Value.Reveal()), PrivateKey: string(out.Private.Reveal()), Params: out.Params,
		IssuedAt: out.IssuedAt.UTC(), ExpiresAt: out.ExpiresAt.UTC(), Plugin: viewSource(out.Source), Replayed: x.replayed(),
	}
	if !utf8.Valid(out.Value.Reveal()) || !utf8.Valid(out.Private.Reveal()) { // which JSON would change
		view.Encoding = "base64"
		view.Value = base64.StdEncoding.EncodeToString(out.Value.Reveal())
		view.PrivateKey = base64.StdEncoding.EncodeToString(out.Private.Reveal())
	}
	for _, a := range out.Anomalies {
		view.Anomalies = append(view.Anomalies, anomalyView{level(a.Level), a.Code, a.Message})
	}
	return view, nil
}

func level(l grant.AnomalyLevel) string {
	switch l {
	case grant.Info:
		return "info"
	case grant.Warn:
		return "warn"
	case grant.Alert:
		return "alert"
	case grant.Unspecified:
	}
	return "unspecified"
}

func (d *Door) listGrants(ctx context.Context, x *exchange, _ none) (page[grantView], error) {
	limit, err := x.page()
	if err != nil {
		return page[grantView]{}, err
	}
	f := grant.Filter{
		Subject: x.query.Get("subject"), Kind: x.query.Get("kind"), State: grant.State(x.query.Get("state")),
		After: x.query.Get("after"), Limit: limit,
	}
	switch f.Subject {
	case "":
		f.Subject = x.caller.Subject.ID
	case "all":
		f.Subject = ""
	}
	if _, known := grant.Transitions[f.State]; !known && f.State != "" {
		return page[grantView]{}, fault.Invalidf("state must be intent, active, revoking, revoked, expired, manual or void")
	}
	rows, err := d.cfg.Gate.Grants(ctx, x.caller, f)
	if err != nil {
		return page[grantView]{}, err
	}
	return paged(rows, limit, d.viewGrant, func(g grant.Grant) string { return g.ID }), nil
}

func (d *Door) readGrant(ctx context.Context, x *exchange, _ none) (grantView, error) {
	g, err := d.cfg.Gate.Grant(ctx, x.caller, x.value("id"))
	return d.viewGrant(g), err
}

func (d *Door) revokeGrant(ctx context.Context, x *exchange, in reasonBody) (matchView, error) {
	m, err := d.cfg.Gate.RevokeGrant(ctx, x.caller, x.value("id"), in.Reason)
	return viewMatch(m), err
}

func (d *Door) reportLeak(ctx context.Context, x *exchange, in leakBodyView) (reactionView, error) {
	s := signal.Signal{
		Value: secret.FromString(in.Value), Digest: in.Fingerprint,
		Source: in.Source, Location: in.Location, Reason: in.Reason, Seen: moment(in.SeenAt),
	}
	defer s.Value.Wipe()
	out, err := d.cfg.Gate.Report(ctx, x.caller, s)
	if err != nil {
		return reactionView{}, err
	}
	return reactionView{Record: out.Record, Matches: paged(out.Matches, 0, viewMatch, nil).Items}, nil
}
