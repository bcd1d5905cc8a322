package token

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// MaxBearer is the size limit of an administrator's token, in bytes.
const MaxBearer = 16 << 10

// Issuer is somebody who vouches for administrators of the key broker.
type Issuer struct {
	Name     string          // the claim iss must be this; empty for any
	Audience string          // the claim aud must have this; empty for any
	Keys     func() []KeySet // those that count now; nothing is trusted while there are none
	Unknown  func()          // called when a token fits none of them: they may be old; nil for none
}

// Access says what a role may use: paths, as regular expressions from ^/kbs to $.
// The query is not part of what they are held against: whoever may choose it could
// make a path that is not theirs end like one that is.
type Access struct {
	Role      string
	Endpoints []string
}

// BearersConfig is what judging administrators' tokens needs.
type BearersConfig struct {
	Issuers []Issuer
	Access  []Access
	Now     func() time.Time
}

// Bearers judges the tokens of the key broker's administrators (kbs.md 4). Safe
// for concurrent use.
type Bearers struct {
	issuers []Issuer
	access  map[string][]*regexp.Regexp
	now     func() time.Time
}

// NewBearers checks the configuration; what is wrong with it is Invalid.
func NewBearers(c BearersConfig) (*Bearers, error) {
	if c.Now == nil {
		return nil, fault.Internalf("judge administrators without a clock")
	}
	if len(c.Issuers) == 0 || len(c.Access) == 0 {
		return nil, fault.Invalidf("administrators with tokens need at least one identity provider and one access list")
	}
	b := &Bearers{issuers: c.Issuers, access: map[string][]*regexp.Regexp{}, now: c.Now}
	for _, a := range c.Access {
		if a.Role == "" || len(a.Endpoints) == 0 {
			return nil, fault.Invalidf("an access list has a role and at least one endpoint")
		}
		for _, text := range a.Endpoints {
			if !strings.HasPrefix(text, "^/kbs") || !strings.HasSuffix(text, "$") {
				return nil, fault.Invalidf("the endpoint %q must begin with ^/kbs and end with $", text)
			}
			// The bars of an alternative would end what ^ and $ hold together.
			expression, err := regexp.Compile("^(?:" + text + ")$")
			if err != nil {
				return nil, fault.Invalidf("the endpoint %q is no regular expression", text).Because(err)
			}
			b.access[a.Role] = append(b.access[a.Role], expression)
		}
	}
	return b, nil
}

// bearerClaims are those that are looked at; others may be there.
type bearerClaims struct {
	Issuer    string `json:"iss"`
	Audience  any    `json:"aud"`
	Expires   any    `json:"exp"`
	NotBefore any    `json:"nbf"`
	Role      string `json:"role"`
	Subject   any    `json:"sub"`
}

// Bearer is whom an administrator's token names; either may be empty.
type Bearer struct {
	Issuer  string // the claim iss
	Subject string // the claim sub
}

// Check judges a token for a request to a path. A token that is not good is
// Unauthenticated; one whose role may not use the path is Denied.
func (b *Bearers) Check(raw, path string) (Bearer, error) {
	claims, err := b.good(raw)
	if err != nil {
		return Bearer{}, err
	}
	for _, expression := range b.access[claims.Role] {
		if expression.MatchString(path) {
			subject, _ := claims.Subject.(string)
			return Bearer{Issuer: claims.Issuer, Subject: subject}, nil
		}
	}
	return Bearer{}, fault.Deniedf("the role of the token may not do this")
}

// good judges a token for whatever it may be used.
func (b *Bearers) good(raw string) (bearerClaims, error) {
	var claims bearerClaims
	c, err := split(raw, MaxBearer)
	if err != nil {
		return claims, err
	}
	var h struct {
		Alg      string `json:"alg"`
		Kid      string `json:"kid"`
		Critical any    `json:"crit"`
	}
	if err := canon.Lenient(c.header, MaxBearer, 8, &h); err != nil || h.Critical != nil {
		return claims, errForm(err)
	}
	if err := canon.Lenient(c.payload, MaxBearer, 16, &claims); err != nil {
		return claims, errForm(err)
	}
	if !slices.ContainsFunc(b.issuers, func(i Issuer) bool { return i.vouches(c, h.Alg, h.Kid, claims) }) {
		return claims, fault.Unauthenticatedf("the token was not signed by an identity provider that is trusted here, or is for somebody else")
	}
	now := b.now()
	expires, ok := date(claims.Expires)
	if !ok || !now.Before(expires) {
		return claims, fault.Unauthenticatedf("the token has expired, or says not when it does")
	}
	if claims.NotBefore != nil {
		if from, ok := date(claims.NotBefore); !ok || from.After(now.Add(leeway)) {
			return claims, fault.Unauthenticatedf("the token is not valid yet, check the clocks")
		}
	}
	return claims, nil
}

// vouches reports whether a token was signed by this issuer for this server.
// Claims count only because the signature over them is checked here too.
func (i Issuer) vouches(c compact, alg, kid string, claims bearerClaims) bool {
	if i.Name != "" && claims.Issuer != i.Name || i.Audience != "" && !contains(claims.Audience, i.Audience) {
		return false
	}
	for _, set := range i.Keys() {
		for _, k := range set.keys {
			if kid != "" && k.KeyID != "" && k.KeyID != kid {
				continue
			}
			if slices.Contains(algorithms(k), jose.SignatureAlgorithm(alg)) && c.verify(jose.SignatureAlgorithm(alg), k.Key) == nil {
				return true
			}
		}
	}
	if i.Unknown != nil {
		i.Unknown()
	}
	return false
}

// contains reads aud, which is a text or a list of them.
func contains(audience any, want string) bool {
	switch a := audience.(type) {
	case string:
		return a == want
	case []any:
		return slices.Contains(a, any(want))
	}
	return false
}
