package rest

import (
	"context"
	"io"

	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
)

// Gate is what the door needs of [flow.Gate].
type Gate interface {
	Admission
	Release
	Directory
	Documents
	Vault
	References
	Packages
	Keys
	// Oversee lets an operator see how the server does.
	Oversee(ctx context.Context, c flow.Caller) error
	// Audit lets the caller read the ledger.
	Audit(ctx context.Context, c flow.Caller, action string) (flow.Records, error)
}

var _ Gate = (*flow.Gate)(nil)

// Admission recognises callers and lets them in.
type Admission interface {
	Authenticate(ctx context.Context, p flow.Presented) (flow.Caller, error)
	Enrol(ctx context.Context, r flow.EnrolRequest) (flow.Enrolled, error)
	Renew(ctx context.Context, c flow.Caller, csr []byte) (flow.Leaf, error)
	OpenSession(ctx context.Context, c flow.Caller, scopes token.Scopes) (flow.Opened, error)
	RefreshSession(ctx context.Context, c flow.Caller) (flow.Opened, error)
	Delegate(ctx context.Context, c flow.Caller, to token.Delegation) (flow.Opened, error)
	EndSession(ctx context.Context, c flow.Caller, sessionID, reason string) error
}

// Release hands out credentials and takes them back.
type Release interface {
	Vend(ctx context.Context, c flow.Caller, r flow.VendRequest) (flow.Vended, error)
	Grants(ctx context.Context, c flow.Caller, f grant.Filter) ([]grant.Grant, error)
	Grant(ctx context.Context, c flow.Caller, id string) (grant.Grant, error)
	RevokeGrant(ctx context.Context, c flow.Caller, id, reason string) (flow.Match, error)
	Report(ctx context.Context, c flow.Caller, s signal.Signal) (flow.Reaction, error)
}

// Directory knows who may call.
type Directory interface {
	Invite(ctx context.Context, c flow.Caller, r flow.InviteRequest) (flow.Invited, error)
	Subjects(ctx context.Context, c flow.Caller, f subject.Filter) ([]subject.Subject, error)
	Subject(ctx context.Context, c flow.Caller, id string) (flow.Detail, error)
	ChangeSubject(ctx context.Context, c flow.Caller, subjectID string, change flow.SubjectChange) (flow.Changed, error)
	RevokeCertificate(ctx context.Context, c flow.Caller, name, reason string) (flow.RevokedCertificate, error)
}

// Documents are the policies.
type Documents interface {
	Policies(ctx context.Context, c flow.Caller) ([]policy.Document, error)
	PolicyVersions(ctx context.Context, c flow.Caller, name string) ([]policy.Document, error)
	SetPolicy(ctx context.Context, c flow.Caller, name string, kind policy.Kind, source string) (policy.Document, error)
	RemovePolicy(ctx context.Context, c flow.Caller, name string) error
	ExplainPolicy(ctx context.Context, c flow.Caller, verb string, in map[string]any) (policy.Explanation, error)
}

// Vault has the resources.
type Vault interface {
	Resources(ctx context.Context, c flow.Caller, prefix, after string, limit int) ([]resource.Resource, error)
	PutResource(ctx context.Context, c flow.Caller, segments []string, value secret.Bytes) (resource.Resource, error)
	DeleteResource(ctx context.Context, c flow.Caller, segments []string, erasing bool) error
	ReadResource(ctx context.Context, c flow.Caller, segments []string, number int64) (resource.Version, secret.Bytes, error)
	ResourceVersions(ctx context.Context, c flow.Caller, segments []string, before int64, limit int) ([]resource.Version, error)
}

// References are what evidence is judged by.
type References interface {
	Endorsements(ctx context.Context, c flow.Caller) ([]reference.Endorsement, error)
	ImportEndorsements(ctx context.Context, c flow.Caller, files []reference.File, kind string) ([]flow.Imported, error)
	RemoveEndorsement(ctx context.Context, c flow.Caller, id string) error
	ReferenceValues(ctx context.Context, c flow.Caller) ([]reference.Value, error)
	ReferenceValue(ctx context.Context, c flow.Caller, name string) (reference.Value, error)
	SetReferenceValues(ctx context.Context, c flow.Caller, list []reference.Setting, source string) ([]reference.Value, error)
	RemoveReferenceValue(ctx context.Context, c flow.Caller, name string) error
	RecordedClaims(ctx context.Context, c flow.Caller, record string) (flow.Recorded, error)
}

// Keys are the keys of the house.
type Keys interface {
	Keys(ctx context.Context, c flow.Caller) ([]flow.KeyState, error)
	RotateKey(ctx context.Context, c flow.Caller, purpose keys.Purpose) (keys.Rotation, error)
	RetireKey(ctx context.Context, c flow.Caller, id string, force bool) (keys.Key, error)
}

// Packages are publishers and plugins.
type Packages interface {
	Publishers(ctx context.Context, c flow.Caller) ([]flow.Trusted, error)
	TrustPublisher(ctx context.Context, c flow.Caller, k flow.PublisherKey) (plugin.Key, error)
	DistrustPublisher(ctx context.Context, c flow.Caller, keyID string) error
	RetirePublisherKey(ctx context.Context, c flow.Caller, keyID string) error
	RevokePublisherKey(ctx context.Context, c flow.Caller, keyID, reason string) error
	DemandSignatures(ctx context.Context, c flow.Caller, publisher string, threshold int) (plugin.Publisher, error)
	RotatePublisher(ctx context.Context, c flow.Caller, statement []byte) (plugin.Rotated, error)
	Floors(ctx context.Context, c flow.Caller) ([]plugin.Floor, error)
	SetFloor(ctx context.Context, c flow.Caller, name, lowest string, lower bool) (plugin.Floor, error)
	Plugins(ctx context.Context, c flow.Caller) ([]plugin.Installed, []plugin.Status, error)
	InstallPlugin(ctx context.Context, c flow.Caller, pack io.Reader, r flow.InstallRequest) (plugin.Installed, error)
	RemovePlugin(ctx context.Context, c flow.Caller, name string) error
	PurgePlugin(ctx context.Context, c flow.Caller, name string) error
	RollbackPlugin(ctx context.Context, c flow.Caller, name, version string) (plugin.Installed, error)
	Installations(ctx context.Context, c flow.Caller) ([]plugin.Installation, error)
	Repositories
}

// Repositories are where packages come from.
type Repositories interface {
	AddRepository(ctx context.Context, c flow.Caller, name, place string, root []byte) (plugin.Repository, error)
	RemoveRepository(ctx context.Context, c flow.Caller, name string) error
	PluginRepositories(ctx context.Context, c flow.Caller) ([]plugin.Repository, error)
	DeliverBundle(ctx context.Context, c flow.Caller, name string, bundle io.Reader, downgrade bool) (flow.Delivery, error)
	UploadPackage(ctx context.Context, c flow.Caller, pack io.Reader) (plugin.Release, error)
	RepositoryFile(name string) (io.ReadCloser, int64, error)
	CreateUploadToken(ctx context.Context, c flow.Caller, r flow.UploadTokenRequest) (flow.NewUploadToken, error)
	UploadTokens(ctx context.Context, c flow.Caller) ([]plugin.UploadToken, error)
	RevokeUploadToken(ctx context.Context, c flow.Caller, id, reason string) error
	// Uploader recognises the bearer of an upload token.
	Uploader(ctx context.Context, id string, s secret.Bytes, p flow.Presented) (flow.Caller, error)
}
