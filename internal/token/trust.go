package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/seal"
)

const (
	maxChain   = 8 // certificates in x5c
	maxEARTree = 48
	leeway     = 60 * time.Second
)

// teePointers are where a token may hold the TEE key (RFC 6901), in the order
// in which existing key brokers look.
var teePointers = [...]string{
	"/tdx/attester_runtime_data/tee-pubkey",
	"/tdx/attester_user_data/tee-pubkey",
	"/customized_claims/runtime_data/tee-pubkey",
	"/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey",
	"/tee-pubkey",
}

// SignerKey is a public key that we sign EAR tokens with, or did.
type SignerKey struct {
	Public              crypto.PublicKey // P-256
	NotBefore, RetireAt time.Time        // zero for no bound; accepted until right before RetireAt
}

// TrustConfig says whose EAR tokens are believed. Without keys and anchors
// nothing is.
type TrustConfig struct {
	Keys     []SignerKey         // our own
	Anchors  []*x509.Certificate // roots of other attestation services; their tokens carry x5c
	Sets     []KeySet            // keys of other attestation services, named by kid or repeated in the header
	Pointers []string            // further places of the TEE key, tried first
	Insecure bool                // believe whatever key a token brings: for trials
	// Unknown is called when a token's key is in none of the sets: they may be old.
	// It must return at once; nil for none.
	Unknown func()
	Now     func() time.Time // required
}

// Trust verifies EAR tokens. Safe for concurrent use; built anew when anchors
// change.
type Trust struct {
	own      atomic.Pointer[map[string]SignerKey] // by thumbprint
	sets     atomic.Pointer[[]KeySet]
	insecure bool
	unknown  func()
	anchors  *x509.CertPool
	pointers [][]string
	now      func() time.Time
	seen     seen[Attested]
	last     atomic.Pointer[ownHeader]
}

// NewTrust checks the configuration: an own key that is not on P-256 is
// Internal, a malformed pointer is Invalid.
func NewTrust(cfg TrustConfig) (*Trust, error) {
	if cfg.Now == nil {
		return nil, fault.Internalf("make EAR trust without a clock")
	}
	t := &Trust{now: cfg.Now, insecure: cfg.Insecure, unknown: cfg.Unknown}
	if t.unknown == nil {
		t.unknown = func() {}
	}
	t.ReplaceSets(cfg.Sets)
	if err := t.Replace(cfg.Keys); err != nil {
		return nil, err
	}
	if len(cfg.Anchors) > 0 {
		t.anchors = x509.NewCertPool()
		for _, a := range cfg.Anchors {
			t.anchors.AddCert(a)
		}
	}
	for _, p := range append(append([]string{}, cfg.Pointers...), teePointers[:]...) {
		path, ok := pointer(p)
		if !ok {
			return nil, fault.Invalidf("the TEE key's place must be a JSON pointer that begins with a slash")
		}
		t.pointers = append(t.pointers, path)
	}
	return t, nil
}

// Replace swaps our own keys, after a rotation; on an error the old ones stay.
// Tokens of a key that is not among them are refused from then on, those that
// were verified before included.
func (t *Trust) Replace(keys []SignerKey) error {
	own := make(map[string]SignerKey, len(keys))
	for _, k := range keys {
		public, ok := k.Public.(*ecdsa.PublicKey)
		if !ok || public.Curve != elliptic.P256() {
			return fault.Internalf("make EAR trust with a key that is not on P-256")
		}
		thumb, err := Thumbprint(public)
		if err != nil {
			return err
		}
		own[thumb] = k
	}
	t.own.Store(&own)
	t.seen.clear()
	return nil
}

// ReplaceSets swaps the keys of other attestation services. Tokens of a key that
// is not among them are refused from then on.
func (t *Trust) ReplaceSets(sets []KeySet) {
	t.sets.Store(&sets)
	t.seen.clear()
}

// Attested is what a verified EAR token says.
type Attested struct {
	ID       string         // SHA-256 of the signed text, in hex: a name for records
	Claims   map[string]any // all of it, the input of resource policies
	Key      seal.PublicKey // the TEE key; answers are sealed to it
	IssuedAt time.Time      // zero if the token does not say
	Expires  time.Time
	Own      bool   // signed with one of our own keys
	Signer   string // thumbprint (RFC 7638) of the key that signed it
}

// Status is the worst status of the token's submods; contraindicated if it has
// none, or one that cannot be read.
func (a Attested) Status() evidence.Tier {
	submods, _ := a.Claims["submods"].(map[string]any)
	if len(submods) == 0 {
		return evidence.Contraindicated
	}
	worst := evidence.None
	for _, s := range submods {
		m, _ := s.(map[string]any)
		name, _ := m[memberStatus].(string)
		tier, err := evidence.ParseTier(name)
		if err != nil {
			return evidence.Contraindicated
		}
		worst = max(worst, tier)
	}
	return worst
}

// Verify checks an EAR token: signature by a trusted key, expiry with 60 s of
// leeway, and a TEE key in it. Issuer and audience are not looked at, as in
// existing key brokers. Every refusal is Unauthenticated.
//
// The claims are shared between callers that present the same token: they must
// not be changed.
func (t *Trust) Verify(raw string) (Attested, error) { return t.judge(raw, true) }

// VerifyKept is [Trust.Verify] for a text that is known to be genuine: it was
// minted here a moment ago, or was verified before it was kept in a row that
// carries a MAC. The signature is not computed once more. All else is judged as
// ever, above all whether the signer still counts.
func (t *Trust) VerifyKept(raw string) (Attested, error) { return t.judge(raw, false) }

func (t *Trust) judge(raw string, signed bool) (Attested, error) {
	now, own, sets, small := t.now(), t.own.Load(), t.sets.Load(), len(raw) <= maxSeenSize
	var sum [sha256.Size]byte
	if small {
		sum = sha256.Sum256([]byte(raw))
		if out, ok := t.seen.recall(sum, now); ok {
			if err := out.times(now); err != nil {
				return Attested{}, err
			}
			return out, nil
		}
	}
	c, err := split(raw, MaxEAR)
	if err != nil {
		return Attested{}, err
	}
	out, until, err := t.verify(c, now, signed)
	if err != nil {
		return Attested{}, err
	}
	if small {
		t.seen.keep(sum, sighting[Attested]{said: out, at: now, until: until, weight: len(raw)})
		if t.own.Load() != own || t.sets.Load() != sets {
			t.seen.clear() // keys were replaced meanwhile: it may have been judged by the old ones
		}
	}
	return out, nil
}

// verify does the whole work, and says until when the signer is trusted.
func (t *Trust) verify(c compact, now time.Time, signed bool) (Attested, time.Time, error) {
	by, err := t.signerOf(c.header, now)
	if err != nil {
		return Attested{}, time.Time{}, err
	}
	if signed {
		if err := c.verify(by.alg, by.key); err != nil {
			return Attested{}, time.Time{}, err
		}
	}
	var claims map[string]any
	if err := canon.Lenient(c.payload, MaxEAR, maxEARTree, &claims); err != nil {
		return Attested{}, time.Time{}, errForm(err)
	}
	// The signature stays out: of an ECDSA signature anyone can make a second.
	sum := sha256.Sum256([]byte(c.raw[:strings.LastIndexByte(c.raw, '.')]))
	out := Attested{ID: hex.EncodeToString(sum[:]), Claims: claims, Own: by.own, Signer: by.thumb}
	if err := out.times(now); err != nil {
		return Attested{}, time.Time{}, err
	}
	if out.Key, err = t.teeKey(claims); err != nil {
		return Attested{}, time.Time{}, err
	}
	return out, by.until, nil
}

// times checks exp, which is required, and nbf and iat where present.
func (a *Attested) times(now time.Time) error {
	exp, ok := date(a.Claims["exp"])
	if !ok {
		return fault.Unauthenticatedf("the attestation token has no expiry")
	}
	if !now.Before(exp.Add(leeway)) {
		return fault.Unauthenticatedf("the attestation token has expired, attest again")
	}
	for _, name := range []string{"nbf", "iat"} {
		v, present := a.Claims[name]
		if !present {
			continue
		}
		at, ok := date(v)
		if !ok || at.After(now.Add(leeway)) {
			return fault.Unauthenticatedf("the attestation token is not valid yet, check the clocks")
		}
		if name == "iat" {
			a.IssuedAt = at
		}
	}
	a.Expires = exp
	return nil
}

func date(v any) (time.Time, bool) {
	f, ok := v.(float64)
	if !ok || f <= 0 || f > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(math.Floor(f)), 0).UTC(), true
}
