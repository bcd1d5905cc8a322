package rest

import (
	"time"

	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
)

// The views are what things look like on the wire. They are types of their own,
// so that no new field of a noun becomes public by itself.

type page[T any] struct {
	Items []T    `json:"items" nullable:"false"`
	Next  string `json:"next,omitempty" doc:"Asks for the next page; absent on the last one."`
}

// paged makes a page; next names the last item if there may be more.
func paged[N, V any](rows []N, limit int, view func(N) V, id func(N) string) page[V] {
	p := page[V]{Items: make([]V, 0, len(rows))}
	for _, row := range rows {
		p.Items = append(p.Items, view(row))
	}
	if limit > 0 && len(rows) >= limit {
		p.Next = id(rows[len(rows)-1])
	}
	return p
}

type subjectView struct {
	ID         string            `json:"id"`
	Kind       string            `json:"kind" enum:"workload,machine,agent,operator"`
	State      string            `json:"state" enum:"pending,registered,attested,locked,rejected,revoked"`
	Role       string            `json:"role"`
	Name       string            `json:"name"`
	Team       string            `json:"team,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Reason     string            `json:"reason,omitempty" doc:"Of the last change of state."`
	CreatedAt  time.Time         `json:"created_at"`
	ChangedAt  time.Time         `json:"changed_at"`
	Recalling  bool              `json:"recalling,omitempty" doc:"Its live credentials are being revoked."`
	Version    int64             `json:"version"`
	Recalled   *recalledView     `json:"credentials,omitempty" doc:"In the answer to revoke and lock: what became of its live credentials."`
}

func viewSubject(s subject.Subject) subjectView {
	return subjectView{
		ID: s.ID, Kind: string(s.Kind), State: string(s.State), Role: s.Role, Name: s.Name, Team: s.Team,
		Attributes: s.Attributes, Reason: s.Reason, CreatedAt: s.Created.UTC(), ChangedAt: s.Changed.UTC(), Recalling: !s.Recall.IsZero(),
		Version: s.Version,
	}
}

type certificateView struct {
	Serial      string    `json:"serial,omitempty" doc:"Lower-case hex."`
	Fingerprint string    `json:"fingerprint" doc:"SHA-256 of what is signed (TBSCertificate), lower-case hex."`
	Issuer      string    `json:"issuer,omitempty" doc:"Another authority than the server's own."`
	NotAfter    time.Time `json:"not_after,omitzero"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	Reason      string    `json:"reason,omitempty"`
}

func viewCertificate(c subject.Certificate) certificateView {
	return certificateView{
		Serial: c.Serial, Fingerprint: c.ID, Issuer: c.Issuer, NotAfter: moment(c.NotAfter), RevokedAt: moment(c.Revoked), Reason: c.Reason,
	}
}

type sessionView struct {
	ID        string    `json:"id"`
	Subject   string    `json:"subject,omitempty"`
	Parent    string    `json:"parent,omitempty" doc:"The session that delegated this one."`
	Bound     string    `json:"certificate,omitempty" doc:"Fingerprint of the certificate with which it ends."`
	Scopes    []string  `json:"scopes,omitempty" doc:"Of the caller's own session."`
	IssuedAt  time.Time `json:"issued_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	Reason    string    `json:"reason,omitempty"`
	Delegated bool      `json:"delegated,omitempty"`
}

func viewSession(s subject.Session) sessionView {
	return sessionView{
		ID: s.ID, Subject: s.Subject, Parent: s.Parent, Bound: s.Certificate, ExpiresAt: s.Expires.UTC(), RevokedAt: moment(s.Revoked), Reason: s.Reason,
		Delegated: s.Parent != "",
	}
}

func viewToken(s token.Session) sessionView {
	return sessionView{
		ID: s.ID, Subject: s.Subject, Parent: s.Parent, Scopes: s.Scopes.Strings(), IssuedAt: s.IssuedAt.UTC(), ExpiresAt: s.Expires.UTC(),
		Delegated: s.Delegated(),
	}
}

type sourceView struct {
	Name    string `json:"name" doc:"The package, or built-in."`
	Version string `json:"version"`
	Digest  string `json:"digest" doc:"sha256:<hex> of the executed file."`
}

func viewSource(s grant.Source) sourceView {
	return sourceView{Name: s.Plugin, Version: s.Version, Digest: s.Digest}
}

type grantView struct {
	ID         string         `json:"id"`
	Version    int64          `json:"version"`
	State      string         `json:"state" enum:"intent,active,revoking,revoked,expired,manual,void"`
	Subject    string         `json:"subject"`
	Session    string         `json:"session,omitempty"`
	Kind       string         `json:"kind"`
	Params     map[string]any `json:"params,omitempty" doc:"As granted."`
	TTLSeconds int64          `json:"ttl_seconds"`
	ScopeHash  string         `json:"scope_hash" doc:"Same for equal kind, parameters and lifetime."`
	Plugin     sourceView     `json:"plugin"`
	Policy     []string       `json:"policy" nullable:"false" doc:"name@version of the documents that decided."`
	Tags       []string       `json:"tags" nullable:"false"`
	Reason     string         `json:"reason,omitempty"`
	Handle     string         `json:"handle,omitempty"`
	IssuedAt   time.Time      `json:"issued_at"`
	ExpiresAt  time.Time      `json:"expires_at"`
	EndedAt    time.Time      `json:"ended_at,omitzero"`
	Revocable  bool           `json:"revocable" doc:"Whether it can be taken back by program."`
	Address    string         `json:"address,omitempty" doc:"Where a person can take it back."`
}

func (d *Door) viewGrant(g grant.Grant) grantView {
	return grantView{
		ID: g.ID, Version: g.Version, State: string(g.State), Subject: g.Subject, Session: g.Session, Kind: g.Kind,
		Params: g.Scope.Params, TTLSeconds: int64(g.Scope.TTL / time.Second), ScopeHash: g.Scope.Hash(), Plugin: viewSource(g.Source),
		Policy: filled(g.Policy), Tags: filled(flow.TagsOf(g)), Reason: g.Reason, Handle: g.Handle,
		IssuedAt: g.IssuedAt.UTC(), ExpiresAt: g.ExpiresAt.UTC(), EndedAt: moment(g.EndedAt),
		Revocable: g.Source.Revocable || d.cfg.SignedHere(g.Kind), Address: g.Source.Address,
	}
}

type matchView struct {
	Grant   string `json:"grant"`
	Subject string `json:"subject"`
	Kind    string `json:"kind"`
	State   string `json:"state"`
	Tag     string `json:"tag,omitempty" doc:"detected_after_expiry, revoked_on_detection or manual_revoke_required; absent while a revocation is under way."`
	Repeat  bool   `json:"repeat" doc:"It was done already."`
	Address string `json:"address,omitempty" doc:"Where a person must take it back."`
	Failed  string `json:"failed,omitempty" doc:"Why the provider has not revoked it yet; it is tried again."`
}

func viewMatch(m flow.Match) matchView {
	return matchView{
		Grant: m.Grant, Subject: m.Subject, Kind: m.Kind, State: string(m.State), Tag: m.Tag, Repeat: m.Repeat,
		Address: m.Address, Failed: m.Failed,
	}
}

// moment keeps the zero time, which is left out, and shows all others in UTC.
func moment(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// filled makes an absent list an empty one.
func filled(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
