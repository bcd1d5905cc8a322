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
	"regexp"
	"strings"
)

// Schema names the format of the manifest. A reader refuses every other.
const Schema = "sallyport.plugin/v1"

// PayloadType is the DSSE payload type under which manifests are signed. It is
// part of what is signed, so no other signature of a publisher's key counts.
const PayloadType = "application/vnd.sallyport.plugin.manifest.v1+json"

// HostAPI is the version of the host's side that this source speaks.
const HostAPI = 1

// The limits of a manifest and of a package.
const (
	MaxBytes     = 256 << 10 // manifest.json
	MaxFiles     = 32
	MaxFileBytes = 256 << 20
	MaxTotal     = 1 << 30
	maxKinds     = 32
	maxText      = 400
)

// The roles of this version; see docs/plugins for what each does.
const (
	RoleValidator  = "scope-validator"
	RoleAnalyzer   = "scope-analyzer"
	RoleSerializer = "scope-serializer"
	RoleVender     = "credential-vender"
)

// Manifest describes one package: who publishes it, what it offers, what it
// asks for, and which files it consists of.
type Manifest struct {
	Schema    string `json:"schema"`
	Name      string `json:"name"`
	Version   string `json:"version"` // semver 2.0.0, without a leading v
	Publisher string `json:"publisher"`
	Summary   string `json:"summary,omitempty"`
	// Contract is the wire contract, sallyport.plugin.v1 or agentkms.plugin.v1.
	Contract string `json:"contract"`
	// HostAPI is the range of host versions that the package works with.
	HostAPI Range    `json:"host_api"`
	Roles   []string `json:"roles"`
	// Kinds are the credential kinds that its roles are about.
	Kinds []string `json:"kinds"`
	// Effects says whether making a credential changes anything outside of
	// Sallyport: none or remote.
	Effects    string     `json:"effects"`
	Revocation Revocation `json:"revocation"`
	// Tier and Audience say who may use the package. Only Free and any are
	// served by this version.
	Tier         string       `json:"tier"`
	Audience     string       `json:"audience"`
	Features     []string     `json:"features,omitempty"`
	Capabilities Capabilities `json:"capabilities"`
	// Config is the form of the configuration that the plugin takes.
	Config Fields `json:"config,omitempty"`
	// Params is the form of a scope's parameters, per kind. Where it is given,
	// the host checks requests itself and does not ask the plugin first.
	Params map[string]Fields `json:"params,omitempty"`
	Files  []File            `json:"files"`
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
	Network     []string `json:"network,omitempty"`     // host:port
	Files       []string `json:"files,omitempty"`       // absolute paths, read-only
	Environment []string `json:"environment,omitempty"` // names of variables
	Messages    string   `json:"messages,omitempty"`    // none, metadata, headers or full
}

// File is one file of the package. Platform files are executables; one per
// operating system and architecture.
type File struct {
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Path   string `json:"path"` // a plain name, without folders
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // lower-case hex
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
)

var (
	namePattern   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$`)
	filePattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)
	kindPattern   = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$`)
	digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
	semver        = regexp.MustCompile(`^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)
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
	case len(m.Version) > 64 || !semver.MatchString(m.Version):
		return fmt.Errorf("version must be a semantic version such as 1.2.3")
	case len(m.Summary) > maxText:
		return fmt.Errorf("summary must be at most %d bytes", maxText)
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
	switch m.Capabilities.Messages {
	case "", "none", "metadata", "headers", "full":
	default:
		return fmt.Errorf("capabilities.messages must be none, metadata, headers or full")
	}
	if err := m.validateOffer(); err != nil {
		return err
	}
	return m.validateFiles()
}

func (m Manifest) validateOffer() error {
	if len(m.Roles) == 0 || len(m.Kinds) == 0 || len(m.Kinds) > maxKinds {
		return fmt.Errorf("roles and kinds must name at least one each, and at most %d kinds", maxKinds)
	}
	if twice(m.Roles) || twice(m.Kinds) {
		return fmt.Errorf("roles and kinds must not repeat a name")
	}
	for _, r := range m.Roles {
		switch r {
		case RoleValidator, RoleAnalyzer, RoleSerializer:
			if m.Contract == ContractSallyport {
				return fmt.Errorf("role %s is part of credential-vender in contract %s", r, ContractSallyport)
			}
		case RoleVender:
		default:
			return fmt.Errorf("role %q is not known", r)
		}
	}
	if m.Contract != ContractSallyport && m.Contract != ContractAgentKMS {
		return fmt.Errorf("contract must be %s or %s", ContractSallyport, ContractAgentKMS)
	}
	if m.Contract == ContractAgentKMS && len(m.Kinds) != 1 {
		return fmt.Errorf("contract %s has exactly one kind in a package", ContractAgentKMS)
	}
	for _, k := range m.Kinds {
		if !ValidKind(k) {
			return fmt.Errorf("kind %q must be lower-case letters, digits, dots and hyphens", k)
		}
	}
	for kind, fields := range m.Params {
		if !contains(m.Kinds, kind) {
			return fmt.Errorf("params describes kind %q, which kinds does not name", kind)
		}
		if err := fields.validate(); err != nil {
			return fmt.Errorf("params.%s: %w", kind, err)
		}
	}
	if err := m.Config.validate(); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

func (m Manifest) validateFiles() error {
	if len(m.Files) == 0 || len(m.Files) > MaxFiles {
		return fmt.Errorf("files must name between 1 and %d files", MaxFiles)
	}
	var total int64
	paths, platforms := map[string]bool{}, map[string]bool{}
	for _, f := range m.Files {
		platform := f.OS + "/" + f.Arch
		switch {
		case !filePattern.MatchString(f.Path) || strings.Contains(f.Path, "..") || f.Path == "manifest.json" || f.Path == "signature.dat":
			return fmt.Errorf("file %q must have a plain lower-case name without folders", f.Path)
		case !digestPattern.MatchString(f.SHA256):
			return fmt.Errorf("file %q: sha256 must be 64 lower-case hex digits", f.Path)
		case f.Size < 1 || f.Size > MaxFileBytes:
			return fmt.Errorf("file %q: size must be between 1 and %d bytes", f.Path, MaxFileBytes)
		case !ValidName(f.OS) || !ValidName(f.Arch):
			return fmt.Errorf("file %q: os and arch must be given as Go writes them", f.Path)
		case paths[f.Path] || platforms[platform]:
			return fmt.Errorf("file %q: a name and a platform may stand only once", f.Path)
		}
		paths[f.Path], platforms[platform] = true, true
		if total += f.Size; total > MaxTotal {
			return fmt.Errorf("files must not be larger than %d bytes together", MaxTotal)
		}
	}
	return nil
}

// For returns the file of a platform.
func (m Manifest) For(goos, goarch string) (File, bool) {
	for _, f := range m.Files {
		if f.OS == goos && f.Arch == goarch {
			return f, true
		}
	}
	return File{}, false
}

// Has reports whether the package offers a role.
func (m Manifest) Has(role string) bool { return contains(m.Roles, role) }

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
