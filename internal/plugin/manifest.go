package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"runtime"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

const manifestDepth = 8

// ParseManifest reads manifest.json strictly: size, depth, names, duplicates
// and every rule of [manifest.Manifest.Validate]. A fault is Invalid and says
// what to change. Check the signature over the same bytes before acting on it.
func ParseManifest(data []byte) (manifest.Manifest, error) {
	m, err := decodeManifest(data)
	if err != nil {
		return manifest.Manifest{}, err
	}
	if err := m.Validate(); err != nil {
		return manifest.Manifest{}, fault.Invalidf("manifest.json: %s", err)
	}
	return m, nil
}

func decodeManifest(data []byte) (manifest.Manifest, error) {
	var m manifest.Manifest
	if err := canon.Strict(data, manifest.MaxBytes, manifestDepth, &m); err != nil {
		return manifest.Manifest{}, fault.Wrap(err, "read manifest")
	}
	return m, nil
}

// Digest identifies a package: SHA-256 over the exact bytes of its manifest,
// which in turn holds the digest of every file. It is written sha256:<hex>.
func Digest(manifestBytes []byte) string {
	sum := sha256.Sum256(manifestBytes)
	return digestPrefix + hex.EncodeToString(sum[:])
}

const digestPrefix = "sha256:"

// hexDigest gives the hex part of a digest; false if it is not one.
func hexDigest(digest string) (string, bool) {
	if len(digest) != len(digestPrefix)+64 || digest[:len(digestPrefix)] != digestPrefix {
		return "", false
	}
	h := digest[len(digestPrefix):]
	for _, c := range h {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return h, true
}

// Supported reports why this host does not serve a package; nil if it does. The
// fault is Denied and carries a [Reason].
func Supported(m manifest.Manifest) error {
	if err := served(m); err != nil {
		return err
	}
	roles := m.RolesFor(manifest.ForServer)
	if len(roles) == 0 {
		return refuse(ReasonIncompatible, "package %s is for the command line alone; install it there: sallyport plugin install FILE --for cli", m.Name)
	}
	for _, r := range roles {
		switch r {
		case manifest.RoleVender, manifest.RoleValidator, manifest.RoleAnalyzer, manifest.RoleSerializer,
			manifest.RoleRevoker, manifest.RoleNotifier, manifest.RoleVerifier, manifest.RoleExtension, manifest.RoleKBS:
		default:
			return refuse(ReasonIncompatible, "package %s has role %s, which this version does not serve", m.Name, r)
		}
	}
	if m.Run != nil && m.Run.Command == "" {
		return refuse(ReasonIncompatible, "package %s has entry points and nothing that starts them: add sallyport-sdk to the dependencies of its project, and build it again", m.Name)
	}
	return nil
}

// served reports why no host of this version, neither a server nor a command
// line, serves a package.
func served(m manifest.Manifest) error {
	switch {
	case m.HostAPI.Min > manifest.HostAPI || m.HostAPI.Max < manifest.HostAPI:
		return refuse(ReasonIncompatible, "package %s needs host API %d to %d, this host has %d", m.Name, m.HostAPI.Min, m.HostAPI.Max, manifest.HostAPI)
	case m.Tier != manifest.TierFree:
		return refuse(ReasonTier, "package %s is for a paid tier, which this version does not serve", m.Name)
	case m.Audience != manifest.AudienceAny:
		return refuse(ReasonAudience, "package %s was made for a certain customer, which this version does not serve", m.Name)
	}
	return nil
}

// runsHere reports why one side of a package cannot run on this platform.
func runsHere(m manifest.Manifest, side string) error {
	if !m.Runs(runtime.GOOS, runtime.GOARCH, side) {
		return refuse(ReasonIncompatible, "package %s has no file for %s/%s", m.Name, runtime.GOOS, runtime.GOARCH)
	}
	return nil
}
