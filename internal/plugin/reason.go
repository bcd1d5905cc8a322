package plugin

import (
	"errors"
	"strconv"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Reason is the machine-readable reason for the state of a plugin, shown in
// status, logs and metrics.
type Reason string

// The reasons that this version gives.
const (
	ReasonOK           Reason = "OK"
	ReasonBadSignature Reason = "BAD_SIGNATURE"   // not signed as trust demands
	ReasonRevoked      Reason = "REVOKED"         // signed by a revoked key, or withdrawn by its repository
	ReasonStale        Reason = "METADATA_STALE"  // a key's time, or that of a repository's metadata, is over
	ReasonDamaged      Reason = "TRUST_DAMAGED"   // what is stored of its publisher, a key or its lowest version was changed by something else
	ReasonRollback     Reason = "ROLLBACK"        // older than what was seen or demanded before
	ReasonNotLocked    Reason = "NOT_LOCKED"      // not what this server's lock file names
	ReasonDigest       Reason = "DIGEST_MISMATCH" // a file is not what was signed
	ReasonUnsafe       Reason = "UNSAFE_STORE"    // links, owners or permissions that let others change it
	ReasonMissing      Reason = "NOT_IN_STORE"    // recorded as installed, and its files are not here
	ReasonAudience     Reason = "AUDIENCE"
	ReasonTier         Reason = "TIER"
	ReasonIncompatible Reason = "INCOMPATIBLE"        // platform, host API, or what it says of itself
	ReasonConflict     Reason = "CONFLICT"            // another package serves this role and kind
	ReasonCrashed      Reason = "CRASHED"             // ended by itself; Status.Crashes counts
	ReasonHung         Reason = "HUNG"                // failed its health checks
	ReasonStart        Reason = "START_FAILED"        // did not come up
	ReasonMigration    Reason = "MIGRATION_FAILED"    // its tables cannot be made
	ReasonSandbox      Reason = "SANDBOX_UNAVAILABLE" // would not be confined as the configuration demands
)

// counted is the reason as people read it: a crash says how many there were.
func (r Reason) counted(crashes int) string {
	if r == ReasonCrashed && crashes > 0 {
		return string(r) + "(" + strconv.Itoa(crashes) + ")"
	}
	return string(r)
}

// reasoned joins a fault with its reason.
type reasoned struct {
	fault  *fault.Error
	reason Reason
}

// Error is the fault's text.
func (r *reasoned) Error() string { return r.fault.Error() }

// Unwrap keeps the fault visible to the functions of package fault.
func (r *reasoned) Unwrap() error { return r.fault }

// refuse makes a Denied fault with a reason.
func refuse(r Reason, format string, args ...any) error {
	return &reasoned{fault.Deniedf(format, args...), r}
}

// Refuse makes a Denied fault with a reason, for adapters that judge packages.
func Refuse(r Reason, format string, args ...any) error { return refuse(r, format, args...) }

// Reasoned is the reason that an error carries, if it carries one.
func Reasoned(err error) (Reason, bool) {
	r, ok := errors.AsType[*reasoned](err)
	if !ok {
		return "", false
	}
	return r.reason, true
}

// ReasonOf is the reason that an error carries: ReasonOK for nil, ReasonStart
// for an error without one.
func ReasonOf(err error) Reason {
	if err == nil {
		return ReasonOK
	}
	if r, ok := errors.AsType[*reasoned](err); ok {
		return r.reason
	}
	return ReasonStart
}

// Taken makes a Conflict with [ReasonConflict]: two packages want one thing.
func Taken(format string, args ...any) error {
	return &reasoned{fault.Conflictf(format, args...), ReasonConflict}
}
