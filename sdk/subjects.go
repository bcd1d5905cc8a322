package sallyport

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Subject is who calls: an agent, an operator, a machine or a workload.
type Subject struct {
	ID         string            `json:"id"`
	Kind       string            `json:"kind"`
	State      string            `json:"state"`
	Role       string            `json:"role"`
	Name       string            `json:"name"`
	Team       string            `json:"team,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	CreatedAt  time.Time         `json:"created_at"`
	ChangedAt  time.Time         `json:"changed_at"`
	Recalling  bool              `json:"recalling,omitempty"` // its live credentials are being revoked
	Version    int64             `json:"version"`
}

// Certificate is a client certificate as the server knows it. Of one that was
// revoked before anybody showed it only the fingerprint is known.
type Certificate struct {
	Serial      string    `json:"serial,omitempty"`
	Fingerprint string    `json:"fingerprint"`      // SHA-256 of what is signed (TBSCertificate), lower-case hex
	Issuer      string    `json:"issuer,omitempty"` // another authority than the server's own
	NotAfter    time.Time `json:"not_after,omitzero"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	Reason      string    `json:"reason,omitempty"`
}

// Caller is who the server takes this client for.
type Caller struct {
	Subject Subject      `json:"subject"`
	Session *SessionInfo `json:"session,omitempty"`
}

// Whoami tells who the server takes this client for.
func (c *Client) Whoami(ctx context.Context) (Caller, error) {
	var out Caller
	_, err := c.do(ctx, get("/v1/whoami"), &out)
	return out, err
}

// InviteRequest asks for a join token.
type InviteRequest struct {
	Kind string        // agent or operator
	Role string        // of the newcomer
	Team string        // may be empty
	Name string        // empty lets the newcomer choose
	TTL  time.Duration // one minute to a day; an hour if zero
	// Address is the host:port under which the newcomer finds the server; that of
	// its main listener if empty.
	Address string
}

// Invitation is an open invitation, shown this once.
type Invitation struct {
	ID        string    `json:"id"`
	Secret    Secret    `json:"secret"`
	ExpiresAt time.Time `json:"expires_at"`
	CAHash    string    `json:"ca_hash"` // SHA-256 of the root's public key, hex
	Token     Secret    `json:"token"`   // the join token as a whole
}

// Invite makes a join token.
func (c *Client) Invite(ctx context.Context, r InviteRequest) (Invitation, error) {
	body := struct {
		Kind string `json:"kind"`
		Role string `json:"role"`
		Team string `json:"team,omitempty"`
		Name string `json:"name,omitempty"`
		TTL  int64  `json:"ttl_seconds,omitempty"`
		At   string `json:"address,omitempty"`
	}{r.Kind, r.Role, r.Team, r.Name, seconds(r.TTL), r.Address}
	var out Invitation
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/invitations", body: body, keyed: true}, &out)
	return out, err
}

// Page is one page of a list. Next is empty on the last one; else it goes into
// the query's After or From for the next.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// SubjectQuery selects subjects. Zero members do not restrict.
type SubjectQuery struct {
	Kind, State, After string
	Limit              int
}

// Subjects lists subjects.
func (c *Client) Subjects(ctx context.Context, q SubjectQuery) (Page[Subject], error) {
	r := get("/v1/subjects")
	r.query = set("kind", q.Kind, "state", q.State, "after", q.After, "limit", number(q.Limit))
	return list[Subject](ctx, c, r)
}

// SubjectDetail is a subject with what it carries.
type SubjectDetail struct {
	Subject      Subject        `json:"subject"`
	Certificates []Certificate  `json:"certificates"` // not expired; revoked ones too
	Sessions     []SessionInfo  `json:"sessions"`     // live
	Live         []Grant        `json:"live_grants"`  // whose credentials may still work, the first hundred
	Grants       map[string]int `json:"grants"`       // all that it was ever given, by state
}

// Subject reads one subject. Everybody may read themselves.
func (c *Client) Subject(ctx context.Context, id string) (SubjectDetail, error) {
	var out SubjectDetail
	r := get(join("/v1/subjects/{}", id))
	r.limit = maxList
	_, err := c.do(ctx, r, &out)
	return out, err
}

// SubjectChange is one thing that an operator does to a subject.
type SubjectChange struct {
	Act    string // revoke, lock, unlock, approve, reject or change
	Reason string
	Role   string // for change; empty keeps it
	Team   string // for change; empty keeps it
	// Credentials is revoke or keep: what becomes of live credentials. Empty
	// revokes them for revoke, and keeps them for lock.
	Credentials string
}

// ChangedSubject is a subject after a change.
type ChangedSubject struct {
	Subject
	Recalled *Recalled `json:"credentials,omitempty"` // nil if its credentials were kept
}

// Recalled counts what became of the live credentials of a subject.
type Recalled struct {
	Revoked    int  `json:"revoked"`
	Expired    int  `json:"expired"`              // dead already
	Manual     int  `json:"manual"`               // live: only a person can take them back
	Failed     int  `json:"failed"`               // live: the provider is asked again
	Unfinished bool `json:"unfinished,omitempty"` // there are more; the server goes on by itself
}

// ChangeSubject takes a subject through one step of its life. Revoking also takes
// its live credentials back; see [Recalled] for what a person has to do.
func (c *Client) ChangeSubject(ctx context.Context, id string, change SubjectChange) (ChangedSubject, error) {
	body := struct {
		Reason      string `json:"reason,omitempty"`
		Role        string `json:"role,omitempty"`
		Team        string `json:"team,omitempty"`
		Credentials string `json:"credentials,omitempty"`
	}{change.Reason, change.Role, change.Team, change.Credentials}
	var out ChangedSubject
	_, err := c.do(ctx, call{method: http.MethodPost, path: join("/v1/subjects/{}/{}", id, change.Act), body: body, keyed: true}, &out)
	return out, err
}

// RevokedCertificate is what became of a certificate that was taken away.
type RevokedCertificate struct {
	Certificate Certificate `json:"certificate"`
	Subject     string      `json:"subject,omitempty"`
	Seen        bool        `json:"seen"`     // false: nobody has shown it yet; it is refused when it comes
	Sessions    int         `json:"sessions"` // that ended with it
}

// RevokeCertificate takes a certificate away from its subject, for good, with
// the sessions that are bound to it. It is named by its fingerprint, or by its
// serial where only one certificate has it, in lower-case hex.
func (c *Client) RevokeCertificate(ctx context.Context, name, reason string) (RevokedCertificate, error) {
	var out RevokedCertificate
	_, err := c.do(ctx, call{
		method: http.MethodPost, path: join("/v1/certificates/{}/revoke", name), body: reasoned{reason}, keyed: true,
	}, &out)
	return out, err
}

type reasoned struct {
	Reason string `json:"reason,omitempty"`
}

func get(path string) call { return call{method: http.MethodGet, path: path, again: true} }

func list[T any](ctx context.Context, c *Client, r call) (Page[T], error) {
	r.limit = maxList
	var out Page[T]
	_, err := c.do(ctx, r, &out)
	return out, err
}

func number(n int) string {
	if n <= 0 {
		return ""
	}
	return strconv.Itoa(n)
}
