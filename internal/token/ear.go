package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Defaults of EAR tokens, which existing key brokers and policies know.
const (
	EARProfile   = "tag:github.com,2024:confidential-containers/Trustee"
	EARIssuer    = "CoCo-Attestation-Service"
	EARDeveloper = "https://github.com/sallyport-project/sallyport"
	EARLife      = 5 * time.Minute
	// MaxEAR is the size limit in bytes. Key brokers refuse a request head of
	// more than 128 KiB, and the token travels in it.
	MaxEAR = 120 << 10

	maxEARLife = 24 * time.Hour
)

// MinterConfig is what minting EAR tokens needs.
type MinterConfig struct {
	Key   crypto.Signer       // P-256; required
	Chain []*x509.Certificate // leaf first, of Key; nil for none: then only we trust the token
	Build string              // version of the program; required
	Now   func() time.Time    // required
	// The following have the defaults above.
	Issuer, Developer, Profile string
	Life                       time.Duration // 24 hours at most
}

// Minter signs verdicts as EAR tokens (draft-ietf-rats-ear): ES256, the public
// key in the header. Safe for concurrent use.
type Minter struct {
	cfg    MinterConfig
	signer atomic.Pointer[es256] // of cfg.Key and cfg.Chain, until it is replaced
}

// NewMinter checks the configuration. A key that is not on P-256, or a chain
// that does not begin with its certificate, is Invalid, because both may come
// from files.
func NewMinter(cfg MinterConfig) (*Minter, error) {
	if cfg.Key == nil || cfg.Now == nil || cfg.Build == "" {
		return nil, fault.Internalf("make an EAR minter without key, clock or build")
	}
	if cfg.Life < 0 || cfg.Life > maxEARLife {
		return nil, fault.Invalidf("the life of attestation tokens must be at most %s", maxEARLife)
	}
	if cfg.Life == 0 {
		cfg.Life = EARLife
	}
	for _, d := range []struct {
		field *string
		text  string
	}{{&cfg.Issuer, EARIssuer}, {&cfg.Developer, EARDeveloper}, {&cfg.Profile, EARProfile}} {
		if *d.field == "" {
			*d.field = d.text
		}
	}
	m := &Minter{cfg: cfg}
	if err := m.Replace(cfg.Key, cfg.Chain); err != nil {
		return nil, err
	}
	return m, nil
}

// Replace swaps the key and its chain, after a rotation; on an error the old ones
// stay. The key signs something first, which must verify: tokens are not verified
// when they are minted.
func (m *Minter) Replace(key crypto.Signer, chain []*x509.Certificate) error {
	public, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return fault.Invalidf("the attestation token's key must be on P-256")
	}
	if len(chain) > maxChain || len(chain) > 0 && !public.Equal(chain[0].PublicKey) {
		return fault.Invalidf("the attestation token's chain must have at most %d certificates and begin with that of its key", maxChain)
	}
	by := es256{signer: key, chain: chain}
	opts := (&jose.SignerOptions{EmbedJWK: true}).WithType("JWT")
	probe, err := signCompact(jose.SigningKey{Algorithm: jose.ES256, Key: by}, opts, []byte("{}"))
	if err != nil {
		return err
	}
	c, err := split(probe, MaxEAR)
	if err != nil {
		return fault.Wrap(err, "read what the attestation key has signed")
	}
	if err := c.verify(jose.ES256, public); err != nil {
		return fault.Internalf("the attestation key's signature does not verify").Because(err)
	}
	by.head = probe[:strings.IndexByte(probe, '.')+1]
	m.signer.Store(&by)
	return nil
}

// earClaims is the payload; members sort as encoding/json writes them.
type earClaims struct {
	Profile  string         `json:"eat_profile"`
	IssuedAt int64          `json:"iat"`
	Expires  int64          `json:"exp"`
	Issuer   string         `json:"iss"`
	Verifier earVerifier    `json:"ear.verifier-id"`
	Submods  map[string]any `json:"submods"`
}

type earVerifier struct {
	Build     string `json:"build"`
	Developer string `json:"developer"`
}

// Members of a submod that an appraisal policy cannot set as extension.
const (
	memberStatus   = "ear.status"
	memberVector   = "ear.trustworthiness-vector"
	memberPolicy   = "ear.appraisal-policy-id"
	memberEvidence = "ear.veraison.annotated-evidence"
)

// Mint signs a verdict whose devices are appraised, and says when the token
// expires. A verdict that is not complete is Internal; one whose evidence is
// too large for a token is Invalid.
func (m *Minter) Mint(v evidence.Verdict) (string, time.Time, error) {
	now := m.cfg.Now().UTC().Truncate(time.Second)
	expires := now.Add(m.cfg.Life)
	if len(v.Devices) == 0 || v.Runtime.Key.IsZero() {
		return "", time.Time{}, fault.Internalf("mint a token of an empty verdict")
	}
	submods := make(map[string]any, len(v.Devices))
	for _, d := range v.Devices {
		s, err := submod(d)
		if err != nil {
			return "", time.Time{}, err
		}
		if d.Name == "" || submods[d.Name] != nil {
			return "", time.Time{}, fault.Internalf("mint a token with submod %q twice or without name", d.Name)
		}
		submods[d.Name] = s
	}
	payload, err := json.Marshal(earClaims{
		m.cfg.Profile, now.Unix(), expires.Unix(), m.cfg.Issuer,
		earVerifier{m.cfg.Build, m.cfg.Developer},
		submods,
	})
	if err != nil {
		return "", time.Time{}, fault.Wrap(err, "encode attestation token")
	}
	by := m.signer.Load()
	raw := by.head + encode(payload)
	if len(raw)+1+base64.RawURLEncoding.EncodedLen(signatureSize) > MaxEAR {
		return "", time.Time{}, fault.Invalidf("the evidence's claims are too large for an attestation token")
	}
	signature, err := by.SignPayload([]byte(raw), jose.ES256)
	if err != nil {
		return "", time.Time{}, err
	}
	return raw + "." + encode(signature), expires, nil
}

func submod(d evidence.Device) (map[string]any, error) {
	if len(d.Vector) == 0 || d.Annotated == nil {
		return nil, fault.Internalf("mint a token of a device that was not appraised")
	}
	out := make(map[string]any, 4+len(d.Extensions))
	for name, x := range d.Extensions {
		out[name] = x
	}
	for name, x := range map[string]any{
		memberStatus: d.Vector.Status().String(), memberVector: d.Vector,
		memberPolicy: d.Policy, memberEvidence: d.Annotated,
	} {
		if _, taken := out[name]; taken {
			return nil, fault.Invalidf("the appraisal policy sets the reserved member %s", name)
		}
		out[name] = x
	}
	return out, nil
}

// es256 makes a crypto.Signer, which may live in a device, sign for go-jose.
type es256 struct {
	signer crypto.Signer
	chain  []*x509.Certificate
	head   string // the header of all its tokens, as it is written, with its dot
}

// signatureSize is that of ES256 in JWS: both numbers in their full width.
const signatureSize = 64

var _ jose.OpaqueSigner = es256{}

// Public is the JWK for the header; it names its algorithm, which key brokers
// read from there.
func (s es256) Public() *jose.JSONWebKey {
	return &jose.JSONWebKey{Key: s.signer.Public(), Algorithm: string(jose.ES256), Certificates: s.chain}
}

// Algs names the one algorithm.
func (s es256) Algs() []jose.SignatureAlgorithm { return []jose.SignatureAlgorithm{jose.ES256} }

// SignPayload turns the signer's ASN.1 into the fixed width of JWS.
func (s es256) SignPayload(payload []byte, _ jose.SignatureAlgorithm) ([]byte, error) {
	sum := sha256.Sum256(payload)
	der, err := s.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fault.Wrap(err, "sign attestation token")
	}
	var sig struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &sig)
	if err != nil || len(rest) != 0 || sig.R.Sign() <= 0 || sig.S.Sign() <= 0 || sig.R.BitLen() > 256 || sig.S.BitLen() > 256 {
		return nil, fault.Internalf("the attestation key answered no ECDSA signature")
	}
	out := make([]byte, signatureSize)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}
