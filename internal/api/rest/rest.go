// Package rest is Sallyport's own REST door, /v1 (docs/api.md,
// api/openapi.yaml): it decodes a request, calls a verb of package flow, and
// encodes what comes of it. It decides nothing itself but whether a request is
// well-formed.
//
// Bodies are decoded by package canon, never by the OpenAPI library, whose
// parser is lenient and whose validator repeats rejected values in its answers.
// The library makes the document, and the document is made from the same table
// that routes requests. Every error is a problem document (RFC 9457) with the
// fault's public text and nothing else.
package rest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// Config is what a [Door] is made of. Every member is required but those that
// say otherwise. The functions must be safe for concurrent use and answer with
// faults.
type Config struct {
	Gate    Gate
	Log     *slog.Logger
	Metrics *obs.Metrics
	Now     func() time.Time
	Version string // of the program, for the status and the document

	// Root gives the roots of the certificate authority, PEM, the present one
	// first; they change when a root is replaced.
	Root func() []byte
	// JoinToken composes the text of a join token around an invitation's secret,
	// which is wiped afterwards; the address is where its bearer finds the server,
	// empty for the main listener's.
	JoinToken func(value []byte, role, address string, expires time.Time) (string, error)
	// UploadToken composes the text of an upload token, as JoinToken does.
	// ReadUploadToken takes one apart; ok is false for a text that does not claim
	// to be one, and the id is empty for one that is damaged.
	UploadToken     func(value []byte, id, address string, expires time.Time) (string, error)
	ReadUploadToken func(text string) (id string, value secret.Bytes, ok bool)
	// SSHAuthority gives authorized_keys lines, SSHRevocations the binary KRL.
	SSHAuthority   func(ctx context.Context) ([]byte, error)
	SSHRevocations func(ctx context.Context) ([]byte, error)
	// SignedHere reports whether the host signs a kind of credential, and so can
	// take it back, itself; nil means none.
	SignedHere func(kind string) bool
	// LedgerKeys names the ledger and gives its verifier keys (signed-note).
	LedgerKeys func(ctx context.Context) (LedgerKeys, error)
	// Status tells how the server does. The door asks it for operators only.
	Status func(ctx context.Context) (Status, error)

	// Rate and Burst limit what one address may ask without authentication: per
	// second, and at once. 5 and 50 if zero.
	Rate  float64
	Burst int
}

// Door serves /v1/, /plugins/ and /openapi.json.
type Door struct {
	cfg      Config
	routes   []route
	mux      *http.ServeMux
	origin   *http.CrossOriginProtection
	limits   *limits
	uploads  *uploads
	metrics  metrics
	document []byte
}

var _ http.Handler = (*Door)(nil)

// New makes the door. It declares metrics, so it is called once per registry;
// several listeners share one door. A gap in the configuration is Internal.
func New(c Config) (*Door, error) {
	if c.Gate == nil || c.Log == nil || c.Metrics == nil || c.Now == nil || c.Version == "" || c.Root == nil || c.JoinToken == nil || c.UploadToken == nil || c.ReadUploadToken == nil ||
		c.SSHAuthority == nil || c.SSHRevocations == nil || c.LedgerKeys == nil || c.Status == nil {
		return nil, fault.Internalf("the REST door is not wired completely")
	}
	if _, err := rootHash(c.Root()); err != nil {
		return nil, err
	}
	if c.SignedHere == nil {
		c.SignedHere = func(string) bool { return false }
	}
	if c.Rate <= 0 {
		c.Rate = 5
	}
	if c.Burst <= 0 {
		c.Burst = 50
	}
	d := &Door{
		cfg: c, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(),
		limits: newLimits(c.Rate, c.Burst, c.Now), uploads: newUploads(c.Now),
	}
	d.routes = d.table()
	templates := make([]string, 0, len(d.routes))
	for _, r := range d.routes {
		templates = append(templates, r.template())
		d.mux.HandleFunc(r.template(), d.serve(r))
	}
	d.metrics = newMetrics(c.Metrics, templates)
	var err error
	if d.document, err = documentJSON(d.routes, c.Version); err != nil {
		return nil, err
	}
	return d, nil
}

// rootHash is the SHA-256 of the present root's public key, as join tokens name
// it.
func rootHash(roots []byte) (string, error) {
	block, _ := pem.Decode(roots)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", fault.Internalf("the REST door has no root certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fault.Internalf("the REST door's root certificate cannot be read").Because(err)
	}
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:]), nil
}

// table is the whole API, in the order of the document.
func (d *Door) table() []route {
	var all []route
	for _, part := range [][]route{
		d.admission(), d.subjects(), d.credentials(), d.policies(), d.resources(), d.references(), d.publishers(), d.plugins(), d.repositories(), d.depot(), d.uploadTokens(), d.keys(), d.ledger(), d.public(),
	} {
		all = append(all, part...)
	}
	return all
}
