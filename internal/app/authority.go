package app

import (
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/subject"
)

// authority lets flow issue and recognise client certificates.
//
// Verifying a chain costs two signatures, far more than all else in
// authenticating a request, and a connection shows the same certificate each
// time. So the verdict on a certificate is kept for a minute. It says only whom
// the certificate names: whether it was revoked is read from its row on every
// request.
type authority struct {
	a *App

	mu    sync.Mutex
	known map[[sha256.Size]byte]recognised
}

type recognised struct {
	who   flow.Identity
	until time.Time
}

const (
	maxRecognised  = 4096
	recogniseAgain = time.Minute
)

var _ flow.Authority = (*authority)(nil)

func newAuthority(a *App) *authority {
	return &authority{a: a, known: map[[sha256.Size]byte]recognised{}}
}

// forget ends all verdicts, after an authority was retired.
func (x *authority) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.known)
}

// Identify implements flow.Authority.
func (x *authority) Identify(cert *x509.Certificate) (flow.Identity, error) {
	now, sum := time.Now(), sha256.Sum256(cert.Raw)
	x.mu.Lock()
	known, ok := x.known[sum]
	x.mu.Unlock()
	if ok && now.Before(known.until) && now.After(known.until.Add(-recogniseAgain-time.Second)) {
		return known.who, nil
	}
	by := x.a.keys()
	who, until, err := x.verify(cert, now)
	if err != nil {
		return flow.Identity{}, err
	}
	x.remember(sum, by, recognised{who: who, until: until})
	return who, nil
}

// remember keeps a verdict if the keys that it was reached by are still in use:
// one that was on its way while they changed must not outlive [authority.forget].
func (x *authority) remember(sum [sha256.Size]byte, by *keyring, verdict recognised) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.a.keys() != by {
		return
	}
	if len(x.known) >= maxRecognised {
		clear(x.known)
	}
	x.known[sum] = verdict
}

// verify asks our own authority first, then those that the operator configured.
func (x *authority) verify(cert *x509.Certificate, now time.Time) (flow.Identity, time.Time, error) {
	chain := []*x509.Certificate{cert}
	who, err := x.a.keys().authority.Verify(chain, now)
	issuer := ""
	if err != nil {
		for _, f := range x.a.files {
			roots := f.ClientCAs()
			if len(roots) == 0 {
				continue
			}
			other, failed := ca.NewVerifier(x.a.cfg.TrustDomain, roots, nil).Verify(chain, now)
			if failed == nil {
				who, err, issuer = other, nil, issuerOf(cert)
				break
			}
		}
	}
	if err != nil {
		return flow.Identity{}, time.Time{}, err
	}
	until := now.Add(recogniseAgain)
	if who.NotAfter.Before(until) {
		until = who.NotAfter
	}
	return flow.Identity{
		Subject: who.SubjectID, Kind: subject.Kind(who.Kind), Serial: who.Serial, Fingerprint: who.Fingerprint, Issuer: issuer,
		NotAfter: who.NotAfter,
	}, until, nil
}

// issuerOf names another authority for people, from the name that it gave itself.
// It is never empty.
func issuerOf(cert *x509.Certificate) string {
	const longest = 128
	name := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, cert.Issuer.String())
	if name == "" {
		return "without a name"
	}
	return name[:min(len(name), longest)]
}

// Issue implements flow.Authority.
func (x *authority) Issue(csr []byte, kind subject.Kind, subjectID string, life time.Duration) (flow.Leaf, error) {
	authority := x.a.keys().authority
	leaf, err := authority.Issue(ca.Request{CSR: csr, Subject: subjectID, Kind: string(kind), Life: life})
	if err != nil {
		return flow.Leaf{}, err
	}
	return flow.Leaf{
		PEM: leaf.PEM, Root: authority.Bundle(), Serial: leaf.Serial, Fingerprint: leaf.Fingerprint, NotAfter: leaf.NotAfter,
	}, nil
}
