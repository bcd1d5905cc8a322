package grant

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport-project/sallyport/internal/secret"
)

// Scope is what a credential may do: of which kind it is, with which
// parameters, for how long. It is structured, not an expression, so that the
// host can compare two of them without asking a plugin.
type Scope struct {
	Kind   string         `json:"kind"`   // for example ssh-user-cert
	Params map[string]any `json:"params"` // JSON values: string, float64, bool, nil, []any, map[string]any
	TTL    time.Duration  `json:"-"`
	// IssuedAt and ExpiresAt are set by the host when the grant is made; zero
	// before.
	IssuedAt  time.Time `json:"-"`
	ExpiresAt time.Time `json:"-"`
}

// Bounds is the widest scope that policy allows. A parameter that MaxParams
// does not name is not restricted by policy; Kind must be equal.
type Bounds struct {
	Kind      string
	MaxParams map[string]any
	MaxTTL    time.Duration
}

// Anomaly is something unusual that a plugin saw in a scope. It is recorded
// and never blocks by itself.
type Anomaly struct {
	Level   AnomalyLevel
	Code    string
	Message string
}

// AnomalyLevel grades an anomaly; the numbers are those of agentkms.plugin.v1.
type AnomalyLevel int

// The levels.
const (
	Unspecified AnomalyLevel = iota
	Info
	Warn
	Alert
)

// Issued is what a provider made of a scope.
type Issued struct {
	Scope     Scope        // as narrowed; the host checks that it lies within request and bounds
	Value     secret.Bytes // the credential, or its to-be-signed form for kinds that the host signs
	ExpiresAt time.Time    // as the provider says; zero if it does not. The host never trusts a later time than the lease
	Handle    string       // what the provider needs to revoke it, may be empty; not secret
	Anomalies []Anomaly
}

// Provider issues credentials of one kind. It is the one seam between release
// and whatever stands behind it: an adapter per wire contract implements it, and
// the rules about which stages may be skipped live only in those adapters.
//
// Both calls are safe for concurrent use and honour the context's deadline. A
// refusal of the request is a fault of kind Invalid or Denied with the
// provider's reason; a broken provider is Unavailable.
type Provider interface {
	// Vet checks a requested scope before policy sees it.
	Vet(ctx context.Context, requested Scope) error
	// Issue narrows the scope to the bounds, validates again, analyses and
	// makes the credential.
	Issue(ctx context.Context, requested Scope, bounds Bounds) (Issued, error)
	// Source describes what answered, for the record: name, version, digest.
	Source() Source
}

// Source names the code that made a credential.
type Source struct {
	Plugin    string  `json:"plugin"` // package name, or "built-in"
	Version   string  `json:"version,omitempty"`
	Digest    string  `json:"digest,omitempty"`    // sha256:<hex> of the executed file
	Effects   Effects `json:"effects"`             // whether issuing changes anything outside
	Revocable bool    `json:"revocable,omitempty"` // whether there was a Revoker for its kind when it was made
	KeepValue bool    `json:"keep,omitempty"`      // whether that needs the value
	Address   string  `json:"address,omitempty"`   // where a person can revoke by hand, shown when no revoker exists
}

// Effects says whether making a credential has an effect outside of Sallyport.
type Effects string

// With EffectsNone a credential that was made and not released does not exist
// anywhere: mint, commit, then release. EffectsRemote needs the intent step.
const (
	EffectsNone   Effects = "none"
	EffectsRemote Effects = "remote"
)

// Revoker takes credentials of one kind back at their provider. Safe for
// concurrent use.
type Revoker interface {
	// Supports reports whether credentials of the kind can be taken back at all. An
	// error says that this cannot be known now.
	Supports(ctx context.Context) (bool, error)
	// Revoke takes one back, and may be repeated: revoking what is revoked already
	// succeeds. A fault whose cause is [ErrByHand] says that no repetition helps.
	Revoke(ctx context.Context, r Revocation) error
}

// ErrByHand is the cause of a fault which says that only a person can take a
// credential back.
var ErrByHand = errors.New("it must be revoked by hand")

// Revocation names one credential that is to be taken back.
type Revocation struct {
	ID     string       // the same in every repetition
	Handle string       // as its maker said, or the grant's id where that was not heard
	Value  secret.Bytes // empty where it was not kept
	Reason string
}

// Signer finishes credentials of a kind whose key the host holds: the plugin
// proposes the form to be signed, the host checks it against the decision and
// signs. No key ever reaches a plugin.
type Signer interface {
	// Forward is the request as the provider sees it: without the parameters
	// that are meant for the host.
	Forward(requested Scope) Scope
	// Prepare forwards a request with what the host alone decides (serial, key
	// id, validity, a fresh key if the request names none) as parameters whose
	// names begin with [HostPrefix].
	Prepare(requested Scope, holder Holder) (Prepared, error)
	// Finish parses what the provider proposed, refuses whatever is wider,
	// longer or other than what was decided, and signs.
	Finish(p Prepared, decided Scope, proposed secret.Bytes) (Signed, error)
}

// Holder is for whom a credential is made.
type Holder struct {
	Grant   string // id of the grant to be
	Subject string
	Name    string
	Now     time.Time
}

// Prepared is a scope with the host's own parameters.
type Prepared struct {
	Scope   Scope
	Private secret.Bytes // of a fresh key pair, empty if the subject brought its own
	Handle  string       // by which the host revokes it
}

// Signed is a finished credential.
type Signed struct {
	Value     secret.Bytes
	ExpiresAt time.Time
}

// Filter selects grants. Zero members do not restrict; After is the id of the
// last grant of the page before.
type Filter struct {
	Subject string
	Kind    string
	State   State
	After   string
	Limit   int
}
