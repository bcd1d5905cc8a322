package flow

import (
	"context"
	"crypto/x509"
	"io"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Ledger commits units. When Commit returns nil the unit is durable. The
// context bounds the waiting alone: if it ends first the fault is Unavailable
// and the outcome is unknown.
type Ledger interface {
	Commit(ctx context.Context, u unit.Unit) error
}

// Clock refuses (Unavailable, CLOCK_ROLLBACK) when the wall clock stands more
// than two minutes behind the highest time that was ever seen.
type Clock interface {
	CheckClock(ctx context.Context) error
}

// Reader is what the verbs read. Every method answers with a fault of kind
// NotFound for a thing that is not there, and never serves a row whose MAC is
// wrong.
type Reader interface {
	Subjects
	Grants
	Documents
	Inventory
	References
	Records
	// Keys lists the keys of the house, sealed.
	Keys(ctx context.Context) ([]keys.Key, error)
	// Expired reports whether rows that decide nothing any more are left.
	Expired(ctx context.Context, until map[string]time.Time) (bool, error)
}

// Subjects reads subjects and what they carry.
type Subjects interface {
	Subject(ctx context.Context, id string) (subject.Subject, error)
	SubjectByName(ctx context.Context, kind subject.Kind, name string) (subject.Subject, error)
	Subjects(ctx context.Context, f subject.Filter) ([]subject.Subject, error)
	SubjectsToRecall(ctx context.Context, now time.Time, limit int) ([]subject.Subject, error)
	Caller(ctx context.Context, session string) (subject.Session, subject.Subject, error)
	Session(ctx context.Context, id string) (subject.Session, error)
	SessionsOf(ctx context.Context, subject string) ([]subject.Session, error)
	Certificate(ctx context.Context, fingerprint string) (subject.Certificate, error)
	CertificatesBySerial(ctx context.Context, serial string) ([]subject.Certificate, error)
	CertificatesOf(ctx context.Context, subject string) ([]subject.Certificate, error)
	Invitation(ctx context.Context, id string) (subject.Invitation, error)
	Passport(ctx context.Context, handshake string) (subject.Passport, error)
	Guest(ctx context.Context, handshake string) (subject.Passport, subject.Subject, error)
	PassportByToken(ctx context.Context, digest string, expires time.Time) (subject.Passport, error)
}

// Grants reads grants and first answers.
type Grants interface {
	Grant(ctx context.Context, id string) (grant.Grant, error)
	Grants(ctx context.Context, f grant.Filter) ([]grant.Grant, error)
	GrantsByFingerprint(ctx context.Context, fingerprints []string) ([]grant.Grant, error)
	GrantsToRecall(ctx context.Context, subject, after string, limit int) ([]grant.Grant, error)
	LiveGrants(ctx context.Context, subject string, now time.Time, limit int) ([]grant.Grant, error)
	CountGrants(ctx context.Context, subject string) (map[grant.State]int, error)
	GrantsDue(ctx context.Context, now time.Time, limit int) ([]grant.Grant, error)
	Outcome(ctx context.Context, id string) (unit.Outcome, error)
	DeliveriesDue(ctx context.Context, now time.Time, limit int) ([]notify.Delivery, error)
}

// Documents reads policies. Generation names the present state of a whole
// table ("policy", "trust", "plugins", "keys", "reference"): it grows with each change.
type Documents interface {
	Policies(ctx context.Context) ([]policy.Document, error)
	PolicyVersions(ctx context.Context, name string) ([]policy.Document, error)
	Generation(ctx context.Context, name string) (int64, error)
}

// Inventory reads resources, trusted publishers and installed plugins.
type Inventory interface {
	Resource(ctx context.Context, path string) (resource.Resource, error)
	LastResource(ctx context.Context, path string) (resource.Resource, error) // also a deleted one
	Resources(ctx context.Context, prefix, after string, limit int) ([]resource.Resource, error)
	ResourceVersion(ctx context.Context, path string, number int64) (resource.Version, error) // older ones alone
	ResourceVersions(ctx context.Context, path string, before int64, limit int) ([]resource.Version, error)
	Judging(ctx context.Context) (plugin.Judging, error)
	Plugins(ctx context.Context) ([]plugin.Installed, error)
	Installations(ctx context.Context) ([]plugin.Installation, error)
	Repositories(ctx context.Context) ([]plugin.Repository, error)
	UploadToken(ctx context.Context, id string) (plugin.UploadToken, error)
	UploadTokens(ctx context.Context) ([]plugin.UploadToken, error)
}

// Records reads the ledger.
type Records interface {
	audit.Source
	Head(ctx context.Context) (audit.Checkpoint, error)
	Records(ctx context.Context, f audit.Filter) ([]audit.Entry, error)
	RecordByID(ctx context.Context, id string) (audit.Entry, error)
}

// Envelope seals values for one row of one table in one version.
type Envelope interface {
	Seal(table, id string, version int64, plain secret.Bytes) ([]byte, error)
	Open(table, id string, version int64, sealed []byte) (secret.Bytes, error)
}

// Pepper turns the SHA-256 of a trimmed value into entries of the index.
type Pepper interface {
	// Fingerprint is the entry to store.
	Fingerprint(digest [32]byte) string
	// Candidates are the entries to look up, those under older peppers too.
	Candidates(digest [32]byte) []string
}

// Authority issues and recognises client certificates.
type Authority interface {
	// Identify reads who a verified client certificate names. Serial and
	// fingerprint are lower-case hex.
	Identify(cert *x509.Certificate) (Identity, error)
	// Issue signs a leaf for a certificate request, ignoring everything in the
	// request but its key.
	Issue(csr []byte, kind subject.Kind, subjectID string, life time.Duration) (Leaf, error)
}

// Identity is what a client certificate says about its holder.
type Identity struct {
	Subject     string
	Kind        subject.Kind
	Serial      string
	Fingerprint string
	Issuer      string // of a CA that the operator configured; empty for our own
	NotAfter    time.Time
}

// Leaf is a freshly issued client certificate.
type Leaf struct {
	PEM         string // the leaf and its chain, without the root
	Root        string // the root, PEM
	Serial      string
	Fingerprint string
	NotAfter    time.Time
}

// Providers finds who issues credentials of a kind, and who takes them back:
// NotFound if nobody does, Unavailable if the plugin for it is down.
type Providers interface {
	Provider(kind string) (grant.Provider, error)
	Revoker(kind string) (grant.Revoker, error)
	Kinds() []string
}

// Packages is the plugin host with its store on disk. Rows decide what is
// installed; the store holds the bytes.
type Packages interface {
	// Install verifies a package and puts it into the store.
	Install(pack io.Reader, trust plugin.Trust) (plugin.Entry, error)
	// InstallBare does the same with an executable that AgentKMS has signed, for
	// which it makes the manifest.
	InstallBare(ctx context.Context, executable io.Reader, b plugin.Bare, trust plugin.Trust) (plugin.Entry, error)
	// Verify judges a package that is in the store already.
	Verify(digest string, trust plugin.Trust) (plugin.Entry, error)
	// Apply makes what runs agree with what is installed and trusted. It does not
	// wait for upgrades: Settle does.
	Apply(ctx context.Context, installed []plugin.Installed, trust plugin.Trust) error
	Settle(ctx context.Context)
	Status() []plugin.Status
}

// Repositories judges plugin repositories.
type Repositories interface {
	// Pin checks a root by itself, and returns its version.
	Pin(root []byte) (int64, error)
	// Open reads the metadata of a bundle. Nothing is judged yet.
	Open(bundle io.Reader) (Bundle, error)
}

// Bundle is a repository's metadata, and packages from it.
type Bundle interface {
	// Walk judges the metadata by what was seen before. Faults carry a reason; what
	// is right can be judged again, when somebody else has seen more meanwhile.
	Walk(ctx context.Context, seen plugin.Seen, now time.Time) (plugin.View, error)
	// Package goes to the next package, one of the releases; io.EOF is the end.
	Package(all []plugin.Release) (plugin.Release, Content, error)
}

// Content is a package that is checked while it is read.
type Content interface {
	io.Reader
	// Err is why the content was refused, nil if it was not.
	Err() error
}

// Databases are those of extensions.
type Databases interface {
	// Purge removes everything that a plugin has, unless still says that it is not to
	// be purged any more: it is asked when nobody can make or purge the same.
	Purge(ctx context.Context, plugin string, still func(context.Context) (bool, error)) error
}
