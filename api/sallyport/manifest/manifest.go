// Package manifest has the types of manifest.json, the signed description of a
// plugin package, and the constants of its signature.
//
// The manifest is signed as exact bytes (DSSE): whoever reads one checks the
// signature over those bytes first and decodes afterwards. The package has no
// dependency, so that tools of plugin authors can use it; docs/plugins has the
// format in words.
package manifest

import (
	"fmt"
)

// Schema names the format of the manifest. A reader refuses every other.
const Schema = "sallyport.plugin/v1"

// PayloadType is the DSSE payload type under which manifests are signed. It is
// part of what is signed, so no other signature of a publisher's key counts.
const PayloadType = "application/vnd.sallyport.plugin.manifest.v1+json"

// The payload types of other signatures beside a manifest. A key is trusted for
// one of the three.
const (
	// PayloadTypeDevelopment is for packages of a developer, which a server
	// accepts only where its configuration says so.
	PayloadTypeDevelopment = "application/vnd.sallyport.plugin.development.v1+json"
	// PayloadTypeAgentKMS says that the signature is AgentKMS's: raw Ed25519 over
	// the bytes of the executable, not over the manifest.
	PayloadTypeAgentKMS = "application/vnd.sallyport.plugin.agentkms.v1"
)

// HostAPI is the version of the host's side that this source speaks.
const HostAPI = 1

// The limits of a manifest and of a package.
const (
	MaxBytes     = 1 << 20 // manifest.json
	MaxFiles     = 4096
	MaxFileBytes = 256 << 20
	MaxTotal     = 1 << 30
	maxKinds     = 32
	maxList      = 64 // network destinations, files, variables, arguments, folders
	maxText      = 400
)

// Manifest describes one package: who publishes it, what it offers, what it
// asks for, and which files it consists of.
type Manifest struct {
	Schema  string `json:"schema"`
	Name    string `json:"name"`
	Version string `json:"version"` // semver 2.0.0, without a leading v
	// MinSecureVersion, not above Version: versions of this name below it must
	// not run any more.
	MinSecureVersion string `json:"min_secure_version,omitempty"`
	Publisher        string `json:"publisher"`
	Summary          string `json:"summary,omitempty"`
	// Contract is the wire contract: sallyport.plugin.v1, agentkms.plugin.v1 or
	// kbs.plugin.v1.
	Contract string `json:"contract"`
	// HostAPI is the range of host versions that the package works with.
	HostAPI Range    `json:"host_api"`
	Roles   []string `json:"roles"`
	// Kinds are the credential kinds that its roles are about; a package whose
	// roles are about none names none.
	Kinds []string `json:"kinds,omitempty"`
	// Effects says whether making a credential changes anything outside of
	// Sallyport: none or remote.
	Effects    string     `json:"effects"`
	Revocation Revocation `json:"revocation"`
	// Tier and Audience say who may use the package: a tier's name, and any or
	// the name of a customer. Only Free and any are served by this version.
	Tier         string       `json:"tier"`
	Audience     string       `json:"audience"`
	Features     []string     `json:"features,omitempty"`
	Capabilities Capabilities `json:"capabilities"`
	// Config is the form of the configuration that the plugin takes.
	Config Fields `json:"config,omitempty"`
	// Params is the form of a scope's parameters, per kind. Where it is given,
	// the host checks requests itself and does not ask the plugin first.
	Params map[string]Fields `json:"params,omitempty"`
	// Run says how a package of many files runs. Without it the package has one
	// self-contained executable for each platform.
	Run *Run `json:"run,omitempty"`
	// Evidence are the kinds of evidence that role verifier judges.
	Evidence []string `json:"evidence,omitempty"`
	// Commands are what role cli adds to the command line. A package that has
	// nothing but entry points may leave them out; see [Manifest.CommandList].
	Commands []Command `json:"commands,omitempty"`
	// KBS says how requests reach a plugin of role kbs.
	KBS *KBS `json:"kbs,omitempty"`
	// EntryPoints are Python entry points by group, name and object reference.
	EntryPoints map[string]map[string]string `json:"entry_points,omitempty"`
	// Extension is what role extension adds.
	Extension *Extension `json:"extension,omitempty"`
	// Provenance says what the package was built from. It is shown, and never
	// trusted.
	Provenance *Provenance `json:"provenance,omitempty"`
	Files      []File      `json:"files"`
}

// Range is an inclusive range of versions.
type Range struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// Revocation says what taking a credential back needs.
type Revocation struct {
	// Needs is none (the plugin cannot revoke), handle, or value: only for
	// value does the host keep the sealed credential, until it expires.
	Needs string `json:"needs"`
	// Address is where a person can revoke by hand.
	Address string `json:"address,omitempty"`
}

// Capabilities are what the package asks for. Everything not listed is refused
// by the sandbox.
type Capabilities struct {
	Network     []string `json:"network,omitempty"`     // host:port or *:port
	Files       []string `json:"files,omitempty"`       // absolute paths, read-only
	Environment []string `json:"environment,omitempty"` // names of variables
	Scopes      []string `json:"scopes,omitempty"`      // role cli: what its session may do, verb:target
	Messages    string   `json:"messages,omitempty"`    // none, metadata, headers or full
	MemoryMB    int      `json:"memory_mb,omitempty"`   // MiB; 0 is the host's default
	Processes   int      `json:"processes,omitempty"`   // at one time, threads included; 0 is the host's default
	// Services are what the host does for it while it runs.
	Services *Services `json:"services,omitempty"`
}

// Provenance is where a package was built from.
type Provenance struct {
	Source   string `json:"source"`             // where the sources can be had
	Revision string `json:"revision,omitempty"` // commit, 40 or 64 lower-case hex digits
}

// The values of Effects, Revocation.Needs, Tier and Audience.
const (
	EffectsNone   = "none"
	EffectsRemote = "remote"
	NeedsNone     = "none"
	NeedsHandle   = "handle"
	NeedsValue    = "value"
	TierFree      = "Free"
	AudienceAny   = "any"
)

// The contracts.
const (
	ContractSallyport = "sallyport.plugin.v1"
	ContractAgentKMS  = "agentkms.plugin.v1"
	ContractKBS       = "kbs.plugin.v1" // of role kbs, and of no other
)

var (
	namePattern = expression{text: `^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$`}
	kindPattern = expression{text: `^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$`}
	semver      = expression{text: `^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`}
)

// ValidName reports whether s may name a package or a publisher: lower-case
// letters, digits and inner hyphens, at most 64 characters.
func ValidName(s string) bool { return namePattern.MatchString(s) }

// ValidKind reports whether s may name a credential kind.
func ValidKind(s string) bool { return kindPattern.MatchString(s) }

// Validate checks everything that can be known from the manifest alone. The
// error says what to change. It does not judge whether a host may run the
// package.
func (m Manifest) Validate() error {
	switch {
	case m.Schema != Schema:
		return fmt.Errorf("schema must be %q", Schema)
	case !ValidName(m.Name):
		return fmt.Errorf("name must be lower-case letters, digits and inner hyphens, at most 64")
	case !ValidName(m.Publisher):
		return fmt.Errorf("publisher must be lower-case letters, digits and inner hyphens, at most 64")
	case !ValidVersion(m.Version):
		return fmt.Errorf("version must be a semantic version such as 1.2.3")
	case m.MinSecureVersion != "" && !ValidVersion(m.MinSecureVersion):
		return fmt.Errorf("min_secure_version must be a semantic version such as 1.2.3")
	case m.MinSecureVersion != "" && CompareVersions(m.MinSecureVersion, m.Version) > 0:
		return fmt.Errorf("min_secure_version must not be above version: the package would forbid itself")
	case !plain(m.Summary):
		return fmt.Errorf("summary must be printable text of at most %d bytes", maxText)
	case m.HostAPI.Min < 1 || m.HostAPI.Max < m.HostAPI.Min:
		return fmt.Errorf("host_api must be a range that begins at 1 or later")
	case m.Effects != EffectsNone && m.Effects != EffectsRemote:
		return fmt.Errorf("effects must be none or remote")
	case !plain(m.Revocation.Address):
		return fmt.Errorf("revocation.address must be printable text of at most %d bytes", maxText)
	case m.Tier == "" || len(m.Tier) > 64 || m.Audience == "" || len(m.Audience) > 64:
		return fmt.Errorf("tier and audience must be given; Free and any are the usual ones")
	}
	switch m.Revocation.Needs {
	case NeedsNone, NeedsHandle, NeedsValue:
	default:
		return fmt.Errorf("revocation.needs must be none, handle or value")
	}
	for _, check := range []func() error{
		m.Capabilities.validate, m.validateServices, m.validateEvidence, m.validateOffer, m.validateKBS, m.validateEntryPoints, m.validateCommands,
		m.Extension.validate, m.Provenance.validate, m.validateFiles, m.validateRun,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func twice(list []string) bool {
	seen := map[string]bool{}
	for _, v := range list {
		if seen[v] {
			return true
		}
		seen[v] = true
	}
	return false
}

func plain(s string) bool {
	if len(s) > maxText {
		return false
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return false
		}
	}
	return true
}
