// Package flow is the product: four verbs on the nouns, and the one place in
// which each of them ends.
//
//   - admit: a subject shows evidence and gets a session (admit.go, guest.go)
//   - release: a session and policy lead to a credential or a secret
//     (release.go, secrets.go)
//   - call: a session and policy lead to a route of an extension (extension.go)
//   - respond: a signal takes grants back (respond.go, sweep.go)
//   - administer: an operator changes who, what and under which policy
//     (administer.go and its neighbours, keys.go)
//
// (observe, the fourth verb of the house, comes with the traffic monitor.)
//
// Every verb ends in commit.go: the rows, the record and what must still be
// true of the rows go to the ledger as one unit. If it cannot be recorded it
// does not happen. Doors (internal/api) translate to these methods and back;
// nothing here knows HTTP.
package flow

import (
	"crypto/x509"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/token"
)

// Config is what a [Gate] is made of. Every member is required but those that
// say otherwise.
type Config struct {
	Ledger    Ledger
	Store     Reader
	Clock     Clock
	Envelope  Envelope
	Pepper    Pepper
	Authority Authority
	Keyring   Keyring
	// KeyPeriods are after how long a key is rotated by itself; purposes that are
	// not named are rotated by operators only.
	KeyPeriods map[keys.Purpose]time.Duration
	Sessions   *token.Sessions
	Providers  Providers
	// Signers finish credentials of kinds whose key the host holds, by kind.
	Signers map[string]grant.Signer
	// Channels carry notifications. At least the console should be there.
	Channels []notify.Channel
	// Notifiers are further channels, which come and go; nil for none.
	Notifiers func() []notify.Channel
	Guests    Guests
	// Backends are the external plugins of the key broker; nil for none.
	Backends Backends
	Packages Packages
	// Extensions are what plugins of role extension do, Databases their tables, and
	// Relay what tells them of events; all nil for none.
	Extensions plugin.Extensions
	Databases  Databases
	Relay      Relay
	// Contexts signs what external plugins are told of who calls; nil for nothing.
	Contexts Contexts
	// Gates names the extensions that are asked before decisions, by verb.
	Gates map[string][]string
	// Development accepts packages that are signed for development.
	Development bool
	// Locked are the digests of the only packages that may run, by name; nil allows
	// all that are trusted.
	Locked map[string]string
	// Addresses are the names of external plugins that others run; a package of the
	// key broker may have none of them.
	Addresses map[string]bool
	// Repositories judges plugin repositories.
	Repositories Repositories
	// Depot is the server's own repository; nil for none.
	Depot Depot
	Log   *slog.Logger
	Now   func() time.Time

	SessionLife  time.Duration // of a session token; 15 minutes if zero, never more
	LeafLife     time.Duration // of an agent's certificate; 24 hours if zero
	OperatorLife time.Duration // of an operator's certificate; seven days if zero
	OutcomeLife  time.Duration // how long a call may be repeated under its key; 10 minutes if zero
	// KeepVersions is how many older values of a resource are kept; none if zero.
	KeepVersions int
	HookPause    time.Duration // after the first failure of a hook, doubled with each further one; 500 ms if zero
}

// Guests is what the key broker's part needs. Its zero value refuses every
// guest.
type Guests struct {
	Library Library // makes the verifiers, and reads what is imported for them
	Fetcher Fetcher // nil: nothing is fetched
	// Further are verifiers that come and go, of plugins; nil for none.
	Further func() evidence.Verifiers
	Cookies *token.Cookies
	Results *token.Minter // makes attestation results (EAR)
	Trust   *token.Trust  // checks them
	// Selectors are the sets of attestation policies that a guest may ask for by
	// attestation-policy-selector: what it asks for -> the name before _cpu, _gpu.
	Selectors map[string]string
	// LegacyRSA seals also to keys of RSA1_5.
	LegacyRSA bool
}

// with adds the verifiers of plugins to the host's own, whose place none of them
// takes.
func (g Guests) with(own evidence.Verifiers) evidence.Verifiers {
	if g.Further == nil {
		return own
	}
	all := g.Further()
	maps.Copy(all, own)
	return all
}

// Gate has the verbs. All methods are safe for concurrent use.
type Gate struct {
	Config
	policies   *policies
	references *references
	strangers  *strangers
	applying   sync.Mutex // held from reading what is installed to applying it
	purging    sync.Map   // names of plugins that this process purges
}

// New makes a gate. Call [Gate.Reload] once before serving.
func New(c Config) (*Gate, error) {
	if c.Ledger == nil || c.Store == nil || c.Clock == nil || c.Envelope == nil || c.Pepper == nil ||
		c.Authority == nil || c.Keyring == nil || c.Sessions == nil || c.Providers == nil || c.Packages == nil || c.Repositories == nil || c.Log == nil || c.Now == nil {
		return nil, fault.Internalf("the gate is not wired completely")
	}
	const most = 15 * time.Minute
	if c.SessionLife <= 0 || c.SessionLife > most {
		c.SessionLife = most
	}
	if c.LeafLife <= 0 {
		c.LeafLife = 24 * time.Hour
	}
	if c.OperatorLife <= 0 {
		c.OperatorLife = 7 * 24 * time.Hour
	}
	if c.OutcomeLife <= 0 {
		c.OutcomeLife = 10 * time.Minute
	}
	if c.HookPause <= 0 {
		c.HookPause = 500 * time.Millisecond
	}
	return &Gate{
		Config: c, policies: newPolicies(c.Store, c.Now), strangers: newStrangers(),
		references: &references{store: c.Store, library: c.Guests.Library, clock: c.Now, log: c.Log},
	}, nil
}

// Presented is what a caller shows at a door. The door has checked the
// certificate's chain in the TLS handshake, and nothing else.
type Presented struct {
	Certificate *x509.Certificate // nil if none was shown
	Token       string            // the bearer or DPoP token, empty if none
	Proof       string            // the DPoP header, for a delegate's own key
	Method, URL string            // of the request, for the proof
	Via         string            // the door
	Address     string            // network address without the port
	Key         *Key              // the request's Idempotency-Key, nil for none
	// Issuer and Bearer are iss and sub of the token by which a door has let its
	// holder act as an operator, for the record; see [Gate.Deputy].
	Issuer, Bearer string
	// Refreshing says that the request refreshes the session that it shows. Who
	// lost the answer shows the old one again, under the same key: it ended with
	// the first answer, and counts for fetching that and nothing else.
	Refreshing bool
}
