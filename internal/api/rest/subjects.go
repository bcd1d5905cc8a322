package rest

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/subject"
)

type inviteBody struct {
	Kind       string `json:"kind" enum:"agent,operator"`
	Role       string `json:"role" doc:"1 to 63 of a-z, 0-9 and dash, a letter first."`
	Team       string `json:"team,omitempty"`
	Name       string `json:"name,omitempty" doc:"Of the newcomer; absent lets it choose."`
	TTLSeconds int64  `json:"ttl_seconds,omitempty" doc:"60 to 86400; 3600 by default."`
	Address    string `json:"address,omitempty" doc:"host:port under which the newcomer finds this server; that of the main listener by default."`
}

type invitedView struct {
	ID        string    `json:"id"`
	Secret    string    `json:"secret" doc:"Base64url; shown this once."`
	ExpiresAt time.Time `json:"expires_at"`
	CAHash    string    `json:"ca_hash" doc:"SHA-256 of the root's public key, lower-case hex."`
	Token     string    `json:"token" doc:"The join token as a whole; shown this once."`
}

type subjectDetailView struct {
	Subject      subjectView       `json:"subject"`
	Certificates []certificateView `json:"certificates" nullable:"false"`
	Sessions     []sessionView     `json:"sessions" nullable:"false"`
	Live         []grantView       `json:"live_grants" nullable:"false" doc:"Whose credentials may still work, the first 100."`
	Grants       map[string]int    `json:"grants" doc:"All that it was ever given: how many by state."`
}

type changeBody struct {
	Reason      string `json:"reason,omitempty" doc:"At most 512 bytes."`
	Role        string `json:"role,omitempty" doc:"New role, for change."`
	Team        string `json:"team,omitempty" doc:"New team, for change."`
	Credentials string `json:"credentials,omitempty" enum:"revoke,keep" doc:"What becomes of live credentials: revoke by default for revoke, keep for lock."`
}

type recalledView struct {
	Revoked    int  `json:"revoked"`
	Expired    int  `json:"expired" doc:"Dead already."`
	Manual     int  `json:"manual" doc:"Live: only a person can take them back. Listed with the state manual."`
	Failed     int  `json:"failed" doc:"Live: the provider has not taken them back yet, and is asked again."`
	Unfinished bool `json:"unfinished,omitempty" doc:"There are more; the server goes on by itself."`
}

func viewChanged(c flow.Changed) subjectView {
	v := viewSubject(c.Subject)
	if r := c.Recalled; r != nil {
		v.Recalled = &recalledView{Revoked: r.Revoked, Expired: r.Expired, Manual: r.Manual, Failed: r.Failed, Unfinished: r.Unfinished}
	}
	return v
}

type revokedCertificateView struct {
	Certificate certificateView `json:"certificate"`
	Subject     string          `json:"subject,omitempty"`
	Seen        bool            `json:"seen" doc:"False: nobody has shown this certificate here yet; it is refused when it comes."`
	Sessions    int             `json:"sessions" doc:"How many sessions ended with it."`
}

type reasonBody struct {
	Reason string `json:"reason,omitempty" doc:"At most 512 bytes."`
}

// acts are the words of the API for the steps of a subject's life.
var acts = map[string]string{
	"revoke": "revoked", "lock": "locked", "unlock": "unlocked", "approve": "registered", "reject": "rejected", "change": "changed",
}

func (d *Door) subjects() []route {
	return []route{
		endpoint(route{
			id: "invite", method: http.MethodPost, path: "/v1/invitations", tag: "subjects", keyed: true, status: http.StatusCreated,
			summary: "Make a join token",
		}, d.invite),
		endpoint(route{
			id: "list-subjects", method: http.MethodGet, path: "/v1/subjects", tag: "subjects", summary: "List subjects",
			query: []param{{name: "kind", about: "workload, machine, agent or operator."}, {name: "state"}, afterParam, limitParam},
		}, d.listSubjects),
		endpoint(route{
			id: "read-subject", method: http.MethodGet, path: "/v1/subjects/{id}", tag: "subjects",
			summary: "Read a subject with its certificates, sessions and grants",
			about:   "Certificates that are not expired, revoked ones too. Everybody may read themselves.",
		}, d.readSubject),
		endpoint(route{
			id: "change-subject", method: http.MethodPost, path: "/v1/subjects/{id}/{act}", tag: "subjects", keyed: true, optional: true,
			summary: "Take a subject through one step of its life",
			about: "The act is one of revoke, lock, unlock, approve, reject and change. Revoking also takes the live credentials back: " +
				"what is not done when the answer comes, the server goes on with.",
		}, d.changeSubject),
		endpoint(route{
			id: "revoke-certificate", method: http.MethodPost, path: "/v1/certificates/{id}/revoke", tag: "subjects", keyed: true, optional: true,
			summary: "Take a certificate away from its subject, with the sessions that are bound to it",
			about: "The id is the fingerprint (SHA-256 of what is signed, the TBSCertificate, in lower-case hex), or the serial where only " +
				"one certificate has it. A fingerprint that nobody has shown yet is refused when it comes.",
		}, d.revokeCertificate),
	}
}

func (d *Door) invite(ctx context.Context, x *exchange, in inviteBody) (invitedView, error) {
	life, err := duration(in.TTLSeconds)
	if err != nil {
		return invitedView{}, err
	}
	// What the text cannot say is refused before there is an invitation.
	if _, err := d.cfg.JoinToken(make([]byte, 32), "agent", in.Address, d.cfg.Now().Add(time.Hour)); err != nil {
		return invitedView{}, err
	}
	out, err := d.cfg.Gate.Invite(ctx, x.caller, flow.InviteRequest{
		Kind: subject.Kind(in.Kind), Role: in.Role, Team: in.Team, Name: in.Name, Life: life,
	})
	if err != nil {
		return invitedView{}, err
	}
	defer out.Secret.Wipe()
	join, err := d.cfg.JoinToken(out.Secret.Reveal(), in.Role, in.Address, out.Expires)
	if err != nil {
		return invitedView{}, err
	}
	hash, err := rootHash(d.cfg.Root())
	if err != nil {
		return invitedView{}, err
	}
	return invitedView{
		ID: out.ID, Secret: base64.RawURLEncoding.EncodeToString(out.Secret.Reveal()), ExpiresAt: out.Expires.UTC(), CAHash: hash,
		Token: join,
	}, nil
}

func (d *Door) listSubjects(ctx context.Context, x *exchange, _ none) (page[subjectView], error) {
	limit, err := x.page()
	if err != nil {
		return page[subjectView]{}, err
	}
	f := subject.Filter{
		Kind: subject.Kind(x.query.Get("kind")), State: subject.State(x.query.Get("state")), After: x.query.Get("after"), Limit: limit,
	}
	if f.Kind != "" && !f.Kind.Valid() {
		return page[subjectView]{}, fault.Invalidf("kind must be workload, machine, agent or operator")
	}
	switch f.State {
	case "", subject.Pending, subject.Registered, subject.Attested, subject.Locked, subject.Rejected, subject.Revoked:
	default:
		return page[subjectView]{}, fault.Invalidf("state must be pending, registered, attested, locked, rejected or revoked")
	}
	rows, err := d.cfg.Gate.Subjects(ctx, x.caller, f)
	if err != nil {
		return page[subjectView]{}, err
	}
	return paged(rows, limit, viewSubject, func(s subject.Subject) string { return s.ID }), nil
}

func (d *Door) readSubject(ctx context.Context, x *exchange, _ none) (subjectDetailView, error) {
	out, err := d.cfg.Gate.Subject(ctx, x.caller, x.value("id"))
	if err != nil {
		return subjectDetailView{}, err
	}
	counts := make(map[string]int, len(out.Grants))
	for state, n := range out.Grants {
		counts[string(state)] = n
	}
	return subjectDetailView{
		Subject:      viewSubject(out.Subject),
		Certificates: paged(out.Certificates, 0, viewCertificate, nil).Items,
		Sessions:     paged(out.Sessions, 0, viewSession, nil).Items,
		Live:         paged(out.Live, 0, d.viewGrant, nil).Items,
		Grants:       counts,
	}, nil
}

func (d *Door) changeSubject(ctx context.Context, x *exchange, in changeBody) (subjectView, error) {
	act, ok := acts[x.value("act")]
	if !ok {
		return subjectView{}, fault.NotFoundf("there is no such act: use revoke, lock, unlock, approve, reject or change")
	}
	if act != "changed" && (in.Role != "" || in.Team != "") {
		return subjectView{}, fault.Invalidf("role and team belong to the act change alone")
	}
	out, err := d.cfg.Gate.ChangeSubject(ctx, x.caller, x.value("id"), flow.SubjectChange{
		Act: act, Role: in.Role, Team: in.Team, Reason: in.Reason, Credentials: in.Credentials,
	})
	return viewChanged(out), err
}

func (d *Door) revokeCertificate(ctx context.Context, x *exchange, in reasonBody) (revokedCertificateView, error) {
	out, err := d.cfg.Gate.RevokeCertificate(ctx, x.caller, x.value("id"), in.Reason)
	return revokedCertificateView{
		Certificate: viewCertificate(out.Certificate), Subject: out.Certificate.Subject, Seen: out.Seen, Sessions: out.Sessions,
	}, err
}
