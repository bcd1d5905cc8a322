package rest

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
)

type policyView struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind" enum:"sallyport,kbs-resource,kbs-attestation"`
	Version int64     `json:"version"`
	Author  string    `json:"author,omitempty"`
	At      time.Time `json:"at"`
	State   string    `json:"state" enum:"active,removed"`
}

type editionView struct {
	Version int64     `json:"version"`
	Author  string    `json:"author,omitempty"`
	At      time.Time `json:"at"`
	State   string    `json:"state" enum:"active,removed"`
}

type policyDetailView struct {
	Name     string        `json:"name"`
	Kind     string        `json:"kind" enum:"sallyport,kbs-resource,kbs-attestation"`
	Version  int64         `json:"version"`
	Author   string        `json:"author,omitempty"`
	At       time.Time     `json:"at"`
	State    string        `json:"state" enum:"active,removed"`
	Source   string        `json:"source"`
	Versions []editionView `json:"versions" nullable:"false" doc:"The newest last."`
}

type policyBodyView struct {
	Kind   string `json:"kind" enum:"sallyport,kbs-resource,kbs-attestation"`
	Source string `json:"source" doc:"Rego v1."`
}

type explainBody struct {
	Verb  string         `json:"verb" enum:"admit,release,observe,respond,administer"`
	Input map[string]any `json:"input" doc:"As api/schema/policy-<verb>.json describes it."`
}

type boundsView struct {
	Kind      string         `json:"kind,omitempty"`
	MaxParams map[string]any `json:"max_params,omitempty"`
	MaxTTL    int64          `json:"max_ttl_seconds,omitempty"`
}

type decisionView struct {
	Allow     bool       `json:"allow"`
	Bounds    boundsView `json:"bounds"`
	Reasons   []string   `json:"reasons" nullable:"false"`
	Documents []string   `json:"documents" nullable:"false"`
}

type ruleView struct {
	Rule       string `json:"rule"`
	Line       int    `json:"line"`
	Succeeded  bool   `json:"succeeded"`
	FailedLine int    `json:"failed_line,omitempty" doc:"The last condition that did not hold."`
	Failed     string `json:"failed,omitempty" doc:"Its text."`
}

type traceView struct {
	Document string      `json:"document" doc:"name@version"`
	Vote     string      `json:"vote"`
	Answer   any         `json:"answer,omitempty"`
	Bounds   *boundsView `json:"bounds,omitempty"`
	Error    string      `json:"error,omitempty"`
	Rules    []ruleView  `json:"rules" nullable:"false"`
}

type explanationView struct {
	Verb      string       `json:"verb"`
	Decision  decisionView `json:"decision"`
	Documents []traceView  `json:"documents" nullable:"false"`
}

func (d *Door) policies() []route {
	return []route{
		endpoint(route{
			id: "list-policies", method: http.MethodGet, path: "/v1/policies", tag: "policies", summary: "List the documents in force",
		}, d.listPolicies),
		endpoint(route{
			id: "read-policy", method: http.MethodGet, path: "/v1/policies/{name}", tag: "policies", summary: "Read a document and its history",
			query: []param{{name: "version", about: "The newest by default.", integer: true}},
		}, d.readPolicy),
		endpoint(route{
			id: "set-policy", method: http.MethodPut, path: "/v1/policies/{name}", tag: "policies", keyed: true, limit: policyBody,
			summary: "Put a new version of a document in force",
		}, d.setPolicy),
		endpoint(route{
			id: "remove-policy", method: http.MethodDelete, path: "/v1/policies/{name}", tag: "policies", keyed: true, summary: "Take a document out of force",
		}, d.removePolicy),
		endpoint(route{
			id: "explain-policy", method: http.MethodPost, path: "/v1/policies/explain", tag: "policies", limit: policyBody,
			summary: "Tell how a verb would be decided for an input",
		}, d.explainPolicy),
	}
}

func viewPolicy(p policy.Document) policyView {
	return policyView{Name: p.Name, Kind: string(p.Kind), Version: p.Version, Author: p.Author, At: p.At.UTC(), State: policyState(p)}
}

func policyState(p policy.Document) string {
	if p.State == "" {
		return string(policy.Active)
	}
	return string(p.State)
}

func (d *Door) listPolicies(ctx context.Context, x *exchange, _ none) (page[policyView], error) {
	rows, err := d.cfg.Gate.Policies(ctx, x.caller)
	if err != nil {
		return page[policyView]{}, err
	}
	return paged(rows, 0, viewPolicy, nil), nil
}

func (d *Door) readPolicy(ctx context.Context, x *exchange, _ none) (policyDetailView, error) {
	wanted := int64(0)
	if text := x.query.Get("version"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return policyDetailView{}, fault.Invalidf("version must be a number from 1")
		}
		wanted = n
	}
	versions, err := d.cfg.Gate.PolicyVersions(ctx, x.caller, x.value("name"))
	if err != nil {
		return policyDetailView{}, err
	}
	var out policyDetailView
	editions := make([]editionView, 0, len(versions))
	for _, p := range versions {
		v := viewPolicy(p)
		editions = append(editions, editionView{v.Version, v.Author, v.At, v.State})
		if wanted == 0 && p.Version >= out.Version || p.Version == wanted {
			out = policyDetailView{
				Name: v.Name, Kind: v.Kind, Version: v.Version, Author: v.Author, At: v.At, State: v.State, Source: p.Source,
			}
		}
	}
	if out.Name == "" {
		return out, fault.NotFoundf("the policy has no such version; read it without one to see all")
	}
	out.Versions = editions
	return out, nil
}

func (d *Door) setPolicy(ctx context.Context, x *exchange, in policyBodyView) (policyView, error) {
	p, err := d.cfg.Gate.SetPolicy(ctx, x.caller, x.value("name"), policy.Kind(in.Kind), in.Source)
	return viewPolicy(p), err
}

func (d *Door) removePolicy(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.RemovePolicy(ctx, x.caller, x.value("name"))
}

func (d *Door) explainPolicy(ctx context.Context, x *exchange, in explainBody) (explanationView, error) {
	e, err := d.cfg.Gate.ExplainPolicy(ctx, x.caller, in.Verb, in.Input)
	if err != nil {
		return explanationView{}, err
	}
	out := explanationView{
		Verb:      e.Verb,
		Documents: paged(e.Documents, 0, viewTrace, nil).Items,
		Decision: decisionView{
			Allow: e.Decision.Allow, Bounds: viewBounds(e.Decision.Bounds), Reasons: filled(e.Decision.Reasons), Documents: filled(e.Decision.Documents),
		},
	}
	return out, nil
}

func viewBounds(b policy.Bounds) boundsView {
	return boundsView{b.Kind, b.MaxParams, int64(b.MaxTTL / time.Second)}
}

func viewTrace(t policy.DocumentTrace) traceView {
	out := traceView{Document: t.Document, Vote: string(t.Vote), Answer: t.Answer, Error: t.Error, Rules: paged(t.Rules, 0, viewRule, nil).Items}
	if t.Bounds != nil {
		b := viewBounds(*t.Bounds)
		out.Bounds = &b
	}
	return out
}

func viewRule(r policy.RuleTrace) ruleView {
	return ruleView{r.Rule, r.Line, r.Succeeded, r.FailedLine, r.Failed}
}
