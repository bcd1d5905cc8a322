package token

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// Limits of handshake cookies.
const (
	CookieName   = "kbs-session-id"
	MaxCookie    = 512 // characters of the value
	CookieLife   = 5 * time.Minute
	cookieFormat = 1
	maxPolicy    = 96
	saltSize     = 24
)

// Handshake is what a KBS server must remember between challenge and
// attestation. It is kept by the guest, in the cookie.
type Handshake struct {
	Nonce   evidence.Nonce
	TEE     evidence.TEE
	Version evidence.Version
	// Policy is the set of attestation policies that the request selected, up to
	// 96 characters; empty for the default.
	Policy  string
	Expires time.Time // whole microseconds; zero at sealing means CookieLife from now
}

// ID is the name under which the nonce's single use is recorded, and under which
// the outcome of the attestation is found again. It does not reveal the nonce. It
// begins with the time, so that handshakes which follow each other lie beside each
// other in an index, however many there are.
func (h Handshake) ID() string {
	return fmt.Sprintf("%016x", uint64(h.Expires.UnixMicro())) + h.Nonce.ID()[:48] // #nosec G115 -- a handshake that was sealed expires after 1970
}

// CookieKey is one key for sealing cookies.
type CookieKey struct {
	ID                  string       // 1 to 64 letters, digits, '-' or '_'
	Secret              secret.Bytes // 32 bytes
	NotBefore, RetireAt time.Time    // as of [Key]
}

// CookiesConfig is what cookies need. Every field is required.
type CookiesConfig struct {
	Keys []CookieKey
	Now  func() time.Time
}

// Cookies seals and opens handshake cookies. Each value is sealed under its own
// key, derived with a random salt, because one AES-GCM key is not fit for an
// unlimited number of random nonces. Safe for concurrent use.
type Cookies struct {
	keys atomic.Pointer[[]CookieKey]
	now  func() time.Time
}

// NewCookies checks the keys; a defect is Internal, because they come from our
// own store.
func NewCookies(cfg CookiesConfig) (*Cookies, error) {
	if cfg.Now == nil {
		return nil, fault.Internalf("make cookies without a clock")
	}
	c := &Cookies{now: cfg.Now}
	if err := c.Replace(cfg.Keys); err != nil {
		return nil, err
	}
	return c, nil
}

// Replace swaps all keys at once, after a rotation; on an error the old ones
// stay.
func (c *Cookies) Replace(keys []CookieKey) error {
	if len(keys) == 0 || len(keys) > maxRing {
		return fault.Internalf("make cookies with %d keys", len(keys))
	}
	out := slices.Clone(keys)
	for i, k := range out {
		if !keyID(k.ID) || k.Secret.Len() != 32 || !k.NotBefore.Before(k.RetireAt) {
			return fault.Internalf("make cookies with a malformed key")
		}
		if slices.ContainsFunc(out[:i], func(o CookieKey) bool { return o.ID == k.ID || o.Secret.Equal(k.Secret) }) {
			return fault.Internalf("make cookies with key %q twice", k.ID)
		}
	}
	slices.SortStableFunc(out, func(a, b CookieKey) int { return b.NotBefore.Compare(a.NotBefore) })
	c.keys.Store(&out)
	return nil
}

// Seal makes the cookie's value. No active key is Unavailable; a handshake that
// this package could not open again is Internal.
func (c *Cookies) Seal(h Handshake) (string, error) {
	now := c.now()
	if h.Expires.IsZero() {
		h.Expires = now.Add(CookieLife)
	}
	plain, err := pack(h)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(*c.keys.Load(), func(k CookieKey) bool {
		return !now.Before(k.NotBefore) && now.Before(k.RetireAt)
	})
	if i < 0 {
		return "", fault.Unavailablef("no handshake key is active, an operator must rotate the keys")
	}
	key := (*c.keys.Load())[i]
	head := append([]byte{cookieFormat, byte(len(key.ID))}, key.ID...) //nolint:gosec // keyID allows 64
	head = append(head, make([]byte, saltSize)...)
	if _, err := rand.Read(head[len(head)-saltSize:]); err != nil {
		return "", fault.Wrap(err, "draw salt")
	}
	aead, iv, err := cookieCipher(key, head[len(head)-saltSize:])
	if err != nil {
		return "", err
	}
	return encode(aead.Seal(head, iv, plain, head)), nil
}

// Open reads a cookie's value. Every refusal is Unauthenticated: changed,
// expired, sealed under a key that is not known or has retired.
func (c *Cookies) Open(value string) (Handshake, error) {
	refuse := fault.Unauthenticatedf("the %s cookie is not valid, begin a new handshake", CookieName)
	if len(value) > MaxCookie {
		return Handshake{}, refuse
	}
	b, ok := decode(value)
	if !ok || len(b) < 2 || b[0] != cookieFormat || len(b) < 2+int(b[1])+saltSize {
		return Handshake{}, refuse
	}
	split := 2 + int(b[1]) + saltSize
	head, body := b[:split:split], b[split:]
	name, now := string(b[2:2+int(b[1])]), c.now()
	keys := *c.keys.Load()
	i := slices.IndexFunc(keys, func(k CookieKey) bool { return k.ID == name })
	if i < 0 || !now.Before(keys[i].RetireAt) {
		return Handshake{}, refuse
	}
	aead, iv, err := cookieCipher(keys[i], head[split-saltSize:])
	if err != nil {
		return Handshake{}, err
	}
	plain, err := aead.Open(nil, iv, body, head)
	if err != nil {
		return Handshake{}, refuse
	}
	h, ok := unpack(plain)
	if !ok {
		return Handshake{}, refuse
	}
	if !now.Before(h.Expires) {
		return Handshake{}, fault.Unauthenticatedf("the handshake has expired, begin a new one")
	}
	return h, nil
}

// cookieCipher derives the cipher of one value. The pair of key and
// initialisation vector is used once, because the salt is.
func cookieCipher(k CookieKey, salt []byte) (cipher.AEAD, []byte, error) {
	okm, err := hkdf.Key(sha256.New, k.Secret.Reveal(), salt, "sallyport kbs handshake v1 "+k.ID, 32+12)
	if err != nil {
		return nil, nil, fault.Wrap(err, "derive cookie key")
	}
	defer clear(okm[:32])
	block, err := aes.NewCipher(okm[:32])
	if err != nil {
		return nil, nil, fault.Wrap(err, "make cookie cipher")
	}
	aead, err := cipher.NewGCM(block)
	return aead, okm[32:], fault.Wrap(err, "make cookie AEAD")
}

// pack writes expiry, nonce, and TEE, version and policy with their lengths.
func pack(h Handshake) ([]byte, error) {
	nonce := h.Nonce.Bytes()
	_, errTEE := evidence.ParseTEE(string(h.TEE))
	_, errVersion := evidence.ParseVersion(string(h.Version))
	if nonce == nil || errTEE != nil || errVersion != nil || h.Expires.UnixMicro() <= 0 || len(h.Policy) > maxPolicy {
		return nil, fault.Internalf("seal an incomplete handshake")
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(h.Expires.UnixMicro())) // #nosec G115 -- checked to be positive
	b = append(b, nonce...)
	for _, text := range []string{string(h.TEE), string(h.Version), h.Policy} {
		b = append(append(b, byte(len(text))), text...) // #nosec G115 -- names of TEEs are short, the policy's length was checked
	}
	return b, nil
}

func unpack(b []byte) (Handshake, bool) {
	const fixed = 8 + evidence.NonceSize
	if len(b) < fixed {
		return Handshake{}, false
	}
	var nonce [evidence.NonceSize]byte
	copy(nonce[:], b[8:])
	var texts [3]string
	rest := b[fixed:]
	for i := range texts {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return Handshake{}, false
		}
		texts[i], rest = string(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
	}
	tee, errTEE := evidence.ParseTEE(texts[0])
	version, errVersion := evidence.ParseVersion(texts[1])
	if errTEE != nil || errVersion != nil || len(rest) > 0 {
		return Handshake{}, false
	}
	expires := time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC() // #nosec G115 -- authenticated, written by pack
	return Handshake{Nonce: evidence.NonceOf(nonce), TEE: tee, Version: version, Policy: texts[2], Expires: expires}, true
}
