package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/api/kbs"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys/jwks"
	"github.com/sallyport-project/sallyport/internal/token"
)

// KBS is the key broker's door (docs/kbs.md).
type KBS struct {
	Handshakes Handshakes `yaml:"handshakes"`
	// AttestationPolicies are the sets of attestation policies that a guest may ask
	// for by attestation-policy-selector: what it asks for -> the name of the
	// policies before _cpu and _gpu. What is not here is refused.
	AttestationPolicies map[string]string `yaml:"attestation_policies"`
	// AllowRSA15 seals also to RSA keys of algorithm RSA1_5, which can be attacked
	// in the guest.
	AllowRSA15       bool             `yaml:"allow_rsa1_5"`
	AttestationToken AttestationToken `yaml:"attestation_token"`
	// AttestationResults is what our own tokens say.
	AttestationResults AttestationResults `yaml:"attestation_results"`
	Admin              KBSAdmin           `yaml:"admin"`
	// ResourceVersions is how many older values of a resource are kept, for operators
	// to read; 10 by default, -1 for none.
	ResourceVersions int `yaml:"resource_versions"`
	// External are the plugins below /kbs/v0/external that others run, and the
	// operator's rules for those that are installed.
	External *External `yaml:"external"`
	// KeySetCA is a PEM file with the authorities of the https sources of keys; the
	// system's if it is empty.
	KeySetCA string `yaml:"key_set_ca"`
}

// Handshakes bound how many handshakes one address may begin. Behind a balancer
// all guests have one address.
type Handshakes struct {
	PerSecond int `yaml:"per_second"` // 100 by default, -1 for no bound
	Burst     int `yaml:"burst"`      // at once; ten seconds' worth by default
}

// AttestationToken says whose attestation results are believed beside our own.
type AttestationToken struct {
	// TrustedCertificates are PEM files with roots that the x5c chain in a token's
	// header may lead to.
	TrustedCertificates []string `yaml:"trusted_certificates"`
	// TrustedKeySets are files, https URLs of a JWK set, or OpenID Connect issuers.
	// They are read again every five minutes.
	TrustedKeySets []string `yaml:"trusted_key_sets"`
	// TEEKeyPointers are further places of the guest's key in a token, as JSON
	// pointers, tried first.
	TEEKeyPointers []string `yaml:"tee_key_pointers"`
	// InsecureHeaderKey believes every token, whoever made it.
	InsecureHeaderKey bool `yaml:"insecure_header_key"`
}

// KBSAdmin says who may administer at the key broker's door. Operators with
// certificates may in every mode but deny_all.
type KBSAdmin struct {
	Mode string `yaml:"mode"` // operators (default), deny_all, bearer_jwt, insecure_allow_all
	// As names the operator as whom the others act: policy decides what that one
	// may do.
	As                string             `yaml:"as"`
	IdentityProviders []IdentityProvider `yaml:"identity_providers"`
	Access            []KBSAccess        `yaml:"access"`
}

// IdentityProvider vouches for administrators by a JWT.
type IdentityProvider struct {
	Issuer    string `yaml:"issuer"`     // empty for any
	Audience  string `yaml:"audience"`   // empty for any
	PublicKey string `yaml:"public_key"` // PEM file
	KeySet    string `yaml:"key_set"`    // file, https URL or OpenID Connect issuer
}

// KBSAccess says which paths a role may use.
type KBSAccess struct {
	Role      string   `yaml:"role"`
	Endpoints []string `yaml:"endpoints"` // regular expressions from ^/kbs to $
}

// The configured names of the modes.
const (
	adminOperators = "operators"
	adminJWT       = string(kbs.BearerJWT)
	adminAnybody   = string(kbs.InsecureAllowAll)
	adminNobody    = string(kbs.DenyAll)
)

func (k KBS) validate() error {
	if k.Handshakes.PerSecond < -1 || k.Handshakes.Burst < 0 {
		return fault.Invalidf("kbs.handshakes: per_second is a number of handshakes, or -1 for no bound, and burst is not negative")
	}
	if k.ResourceVersions < -1 || k.ResourceVersions > 1000 {
		return fault.Invalidf("kbs.resource_versions is 1 to 1000, or -1 to keep no older value")
	}
	for selector, name := range k.AttestationPolicies {
		if selector == "" || len(selector) > 128 || name == "" || len(name) > 64 {
			return fault.Invalidf("kbs.attestation_policies: a selector has 1 to 128 characters, the name of policies 1 to 64")
		}
	}
	if err := k.AttestationResults.validate(); err != nil {
		return err
	}
	a := k.Admin
	switch a.Mode {
	case adminOperators, adminNobody:
		if a.As != "" || len(a.IdentityProviders) > 0 || len(a.Access) > 0 {
			return fault.Invalidf("kbs.admin: as, identity_providers and access count only in mode %s or %s", adminJWT, adminAnybody)
		}
		return nil
	case adminJWT, adminAnybody:
	default:
		return fault.Invalidf("kbs.admin.mode is %q: use %s, %s, %s or %s", a.Mode, adminOperators, adminNobody, adminJWT, adminAnybody)
	}
	if a.As == "" {
		return fault.Invalidf("kbs.admin.as must name the operator as whom administrators with tokens act")
	}
	if a.Mode == adminAnybody && len(a.IdentityProviders)+len(a.Access) > 0 {
		return fault.Invalidf("kbs.admin: in mode %s anybody may do anything, identity_providers and access do not count", adminAnybody)
	}
	for _, p := range a.IdentityProviders {
		if (p.PublicKey == "") == (p.KeySet == "") {
			return fault.Invalidf("kbs.admin.identity_providers: each has either public_key or key_set")
		}
	}
	return nil
}

func (k *KBS) fill() {
	h := &k.Handshakes
	if h.PerSecond == 0 {
		h.PerSecond = 100
	}
	if h.Burst == 0 && h.PerSecond > 0 {
		h.Burst = 10 * h.PerSecond
	}
	if k.ResourceVersions == 0 {
		k.ResourceVersions = 10
	}
	if k.Admin.Mode == "" {
		k.Admin.Mode = adminOperators
	}
}

// resolve makes paths absolute.
func (k *KBS) resolve(folder string) {
	at := func(p *string) {
		if *p != "" && !strings.Contains(*p, "://") && !filepath.IsAbs(*p) {
			*p = filepath.Join(folder, *p)
		}
	}
	at(&k.KeySetCA)
	for _, list := range [][]string{k.AttestationToken.TrustedCertificates, k.AttestationToken.TrustedKeySets} {
		for i := range list {
			at(&list[i])
		}
	}
	for i := range k.Admin.IdentityProviders {
		at(&k.Admin.IdentityProviders[i].PublicKey)
		at(&k.Admin.IdentityProviders[i].KeySet)
	}
}

// weak names the switches that weaken.
func (k KBS) weak() []string {
	var out []string
	if k.Admin.Mode == adminAnybody {
		out = append(out, "kbs.admin.mode is insecure_allow_all: ANYBODY WHO REACHES THE KEY BROKER'S DOOR ADMINISTERS IT as operator "+k.Admin.As)
	}
	if k.AttestationToken.InsecureHeaderKey {
		out = append(out, "kbs.attestation_token.insecure_header_key is on: ATTESTATION TOKENS OF ANYBODY ARE BELIEVED, every guest can make its own")
	}
	if k.AllowRSA15 {
		out = append(out, "kbs.allow_rsa1_5 is on: secrets are sealed also to keys of RSA1_5, which can be attacked in the guest")
	}
	return out
}

// weakListeners names the listeners that weaken.
func (c Config) weakListeners() []string {
	var out []string
	for _, l := range c.Listen.Further {
		if l.TLS.Profile == tlsOld {
			out = append(out, "the listener "+l.Name+" has the TLS profile old: versions of TLS are spoken that can be broken")
		}
		switch {
		case !l.Plain || loopback(l.Address): // on loopback nobody is on the way
		case c.KBS.Admin.Mode == adminJWT && slices.Contains(l.Doors, "kbs"):
			out = append(out, "the listener "+l.Name+" takes the tokens of administrators without TLS: whoever is on the way can take one, and administer")
		default:
			out = append(out, "the listener "+l.Name+" is plain HTTP: whoever is on the way sees who asks for what, and whatever is not sealed to a guest")
		}
	}
	return out
}

// member says in public in which member of the configuration something is wrong.
func member(name string, err error) error {
	if err == nil {
		return nil
	}
	return fault.Invalidf("%s: %s", name, fault.Public(err)).Because(err)
}

// certificates reads PEM files, each with at least one certificate.
func certificates(names ...string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, name := range names {
		text, err := os.ReadFile(name) //nolint:gosec // the operator names it
		if err != nil {
			return nil, fault.Unavailablef("%s cannot be read", name).Because(err)
		}
		found := len(out)
		for {
			var block *pem.Block
			if block, text = pem.Decode(text); block == nil {
				break
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fault.Invalidf("%s holds what is no certificate", name).Because(err)
			}
			out = append(out, c)
		}
		if len(out) == found {
			return nil, fault.Invalidf("%s holds no certificate", name)
		}
	}
	return out, nil
}

// openTrust makes what checks attestation results.
func (a *App) openTrust(ours []token.SignerKey) error {
	c := a.cfg.KBS.AttestationToken
	anchors, err := certificates(c.TrustedCertificates...)
	if err != nil {
		return member("kbs.attestation_token.trusted_certificates", err)
	}
	sets, err := a.follow(c.TrustedKeySets, func(sets []token.KeySet) { a.trust.ReplaceSets(sets) })
	if err != nil {
		return member("kbs.attestation_token.trusted_key_sets", err)
	}
	a.trust, err = token.NewTrust(token.TrustConfig{
		Keys: ours, Anchors: anchors, Pointers: c.TEEKeyPointers, Insecure: c.InsecureHeaderKey, Unknown: sets.Look, Now: time.Now,
	})
	return member("kbs.attestation_token", err)
}

// follow opens sources of keys, which are read again and again from then on.
func (a *App) follow(sources []string, changed func([]token.KeySet)) (*jwks.Sets, error) {
	cfg := jwks.Config{Sources: sources, Log: a.log, Changed: changed}
	if name := a.cfg.KBS.KeySetCA; name != "" {
		roots, err := certificates(name)
		if err != nil {
			return nil, member("kbs.key_set_ca", err)
		}
		trust := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
		for _, c := range roots {
			trust.RootCAs.AddCert(c)
		}
		cfg.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: trust, Proxy: http.ProxyFromEnvironment}}
	}
	sets, err := jwks.New(cfg)
	if err == nil {
		a.fetched = append(a.fetched, sets)
	}
	return sets, err
}

// openKBS makes the key broker's door.
func (a *App) openKBS() error {
	c := a.cfg.KBS
	admin := kbs.Admin{Mode: kbs.Mode(c.Admin.Mode), As: c.Admin.As}
	switch c.Admin.Mode {
	case adminOperators:
		admin.Mode = kbs.Operators
	case adminJWT:
		bearers, err := a.openBearers(c.Admin)
		if err != nil {
			return member("kbs.admin", err)
		}
		admin.Token = bearers.Check
	}
	commit, built := sources()
	a.kbs = kbs.New(kbs.Config{
		Gate: a.gate, Log: a.log, Metrics: a.metrics, Now: time.Now, Version: a.version, Commit: commit, Built: built,
		Rate: c.Handshakes.PerSecond, Burst: c.Handshakes.Burst, Admin: admin,
	})
	return nil
}

// sources are the commit that this program was built from and its time, empty where
// the build did not see them.
func sources() (commit, at string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.time":
			at = s.Value
		}
	}
	return commit, at
}

func (a *App) openBearers(c KBSAdmin) (*token.Bearers, error) {
	cfg := token.BearersConfig{Now: time.Now}
	for _, p := range c.IdentityProviders {
		sets, err := a.follow([]string{p.PublicKey + p.KeySet}, nil)
		if err != nil {
			return nil, err
		}
		cfg.Issuers = append(cfg.Issuers, token.Issuer{Name: p.Issuer, Audience: p.Audience, Keys: sets.Current, Unknown: sets.Look})
	}
	for _, r := range c.Access {
		cfg.Access = append(cfg.Access, token.Access{Role: r.Role, Endpoints: r.Endpoints})
	}
	return token.NewBearers(cfg)
}

// fetchKeys reads the keys of others for the first time. What cannot be had yet
// vouches for nobody until it can, and does not keep the server from starting.
func (a *App) fetchKeys(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, sets := range a.fetched {
		_ = sets.Refresh(ctx) // it says so in the log, and is repeated
	}
}

// keySet answers the keys by which attestation results of this server are
// verified, where Trustee's attestation service has them.
func (a *App) keySet(w http.ResponseWriter, r *http.Request) {
	text, err := token.MarshalKeySet(a.keys().trust)
	a.answerKeys(w, r, text, err)
}

// contextKeysPath has the keys by which external plugins check what they are told
// of callers. They are none by which attestation results could be checked.
const contextKeysPath = "/.well-known/sallyport-context-jwks.json"

func (a *App) contextKeySet(w http.ResponseWriter, r *http.Request) {
	text, err := a.contexts.KeySet()
	a.answerKeys(w, r, text, err)
}

func (a *App) answerKeys(w http.ResponseWriter, r *http.Request, text []byte, err error) {
	if err != nil {
		a.log.ErrorContext(r.Context(), "the key set cannot be written", slog.Any("err", err))
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(text)
}
