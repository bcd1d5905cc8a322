// Package repository is plugin repositories: The Update Framework (TUF 1.0) as
// the source of packages, read by clients and written by publishers.
//
// A repository is a folder, or what a web server makes of one:
//
//	metadata/1.root.json ...          who may say what: k of n offline keys
//	metadata/N.targets.json           which packages there are: k of n offline keys
//	metadata/N.uploads.json           packages that a server took in, within the names given to it
//	metadata/N.snapshot.json          which of these belong together: an online key
//	metadata/timestamp.json           which snapshot is the present one: an online key
//	targets/NAME/SHA256.VERSION.spk   the packages
//
// TUF gives freshness, and nothing else: it says which versions there are and
// that none is hidden. That a package may run is decided by its own signatures,
// at installation and before every start, whatever a repository says
// (docs/decisions/0016).
//
// Reading is one function, [Walk]: from what was seen before to what is there
// now, by files that a [Getter] brings. The command line walks with files from
// the network and makes a bundle of what it used; the server walks with files
// from that bundle ([OpenBundle]), by its own pinned root and its own memory.
// The server itself fetches nothing.
//
// The rules are stricter than TUF's where a looser one serves nobody here: keys
// are Ed25519 and named by their digest, no key has two roles, every file is
// bounded before it is read and its length and SHA-256 are given, delegations
// are one level deep.
package repository

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// The limits of files, in bytes, and of a walk.
const (
	maxRoot      = 64 << 10
	maxTimestamp = 16 << 10
	maxSnapshot  = 64 << 10
	maxTargets   = 4 << 20
	maxRotations = 64 // of the root, in one walk
	maxReleases  = 4096
	maxDelegated = 8
	// MaxPackage is the size of a package, as the server takes it.
	MaxPackage = 256 << 20
)

// The roles. RoleUploads is the one delegated role that we make ourselves.
const (
	RoleRoot      = metadata.ROOT
	RoleTargets   = metadata.TARGETS
	RoleSnapshot  = metadata.SNAPSHOT
	RoleTimestamp = metadata.TIMESTAMP
	RoleUploads   = "uploads"
)

// The folders of a repository.
const (
	metadataDir = "metadata"
	targetsDir  = "targets"
)

var (
	rolePattern   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// served are the names that a repository consists of, and no others.
	servedMetadata = regexp.MustCompile(`^metadata/(timestamp|[1-9][0-9]{0,9}\.[a-z][a-z0-9-]{0,31})\.json$`)
	servedTarget   = regexp.MustCompile(`^targets/([a-z0-9-]{1,64})/[0-9a-f]{64}\.([0-9A-Za-z.+-]{1,64})\.spk$`)
)

// Served reports whether name is a file that a repository may consist of.
func Served(name string) bool {
	if servedMetadata.MatchString(name) {
		return true
	}
	m := servedTarget.FindStringSubmatch(name)
	return m != nil && manifest.ValidName(m[1]) && manifest.ValidVersion(m[2])
}

// metadataName is the file of a role in a version; the timestamp has none.
func metadataName(role string, version int64) string {
	if role == RoleTimestamp {
		return metadataDir + "/timestamp.json"
	}
	return metadataDir + "/" + strconv.FormatInt(version, 10) + "." + role + ".json"
}

// targetPath is what the metadata calls a package.
func targetPath(name, version string) string { return name + "/" + version + ".spk" }

// TargetName is the file of a release, below the repository.
func TargetName(r plugin.Release) string {
	return targetsDir + "/" + r.Name + "/" + r.SHA256 + "." + r.Version + ".spk"
}

// splitTarget is the inverse of [targetPath]: false for any other path.
func splitTarget(path string) (name, version string, ok bool) {
	name, rest, found := strings.Cut(path, "/")
	version, spk := strings.CutSuffix(rest, ".spk")
	return name, version, found && spk && manifest.ValidName(name) && manifest.ValidVersion(version)
}

// judged turns an error of the library into a fault with a reason. what names
// the file in words.
func judged(err error, what string) error {
	if err == nil {
		return nil
	}
	if _, ok := plugin.Reasoned(err); ok || fault.KindOf(err) != fault.Internal {
		return err
	}
	var expired *metadata.ErrExpiredMetadata
	var version *metadata.ErrBadVersionNumber
	var unsigned *metadata.ErrUnsignedMetadata
	var content *metadata.ErrLengthOrHashMismatch
	switch {
	case errors.As(err, &expired):
		return plugin.Refuse(plugin.ReasonStale,
			"%s of the repository has expired, so that newer versions may be hidden: its publisher must refresh it, or this copy is too old", what)
	case errors.As(err, &version):
		return plugin.Refuse(plugin.ReasonRollback, "%s of the repository has another version than it must have: older than one that was seen, or not the next one", what)
	case errors.As(err, &unsigned):
		return plugin.Refuse(plugin.ReasonBadSignature, "%s of the repository has too few signatures of the keys that the root names for it", what)
	case errors.As(err, &content):
		return plugin.Refuse(plugin.ReasonDigest, "%s of the repository is not the file that its other metadata describes", what)
	}
	return malformed(what, "it does not fit to the rest")
}

// malformed is metadata that no sound publisher writes.
func malformed(what, why string) error {
	return plugin.Refuse(plugin.ReasonIncompatible, "%s of the repository is malformed: %s", what, why)
}
