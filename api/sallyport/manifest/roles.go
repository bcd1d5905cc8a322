package manifest

import (
	"fmt"
)

// The roles; see docs/plugins for what each does, and for which of them a host
// serves.
const (
	RoleValidator   = "scope-validator"
	RoleAnalyzer    = "scope-analyzer"
	RoleSerializer  = "scope-serializer"
	RoleVender      = "credential-vender"
	RoleKBS         = "kbs"
	RoleVerifier    = "verifier"
	RoleRevoker     = "revoker"
	RoleNotifier    = "notifier"
	RoleExtension   = "extension"
	RoleObserver    = "observer"
	RoleInterceptor = "interceptor"
	RoleCLI         = "cli" // the only one of the command line; all others are a server's
)

// The groups of [Manifest.EntryPoints], as projects in Python name them.
const (
	GroupExtensions = "attestation_extensions"  // of role extension
	GroupCLI        = "attestation_cli_plugins" // of role cli
)

// The sides that a package may have parts for; see [File.For].
const (
	ForServer = "server"
	ForCLI    = "cli"
)

var (
	entryNamePattern = expression{text: `^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$`}
	referencePattern = expression{text: `^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*(:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*)?$`}
)

// Has reports whether the package offers a role.
func (m Manifest) Has(role string) bool { return contains(m.Roles, role) }

// RolesFor lists the roles of one side, [ForServer] or [ForCLI].
func (m Manifest) RolesFor(side string) []string {
	var out []string
	for _, r := range m.Roles {
		if (r == RoleCLI) == (side == ForCLI) {
			out = append(out, r)
		}
	}
	return out
}

func (m Manifest) validateOffer() error {
	if len(m.Roles) == 0 || len(m.Kinds) > maxKinds {
		return fmt.Errorf("roles must name at least one, and kinds at most %d", maxKinds)
	}
	if twice(m.Roles) || twice(m.Kinds) {
		return fmt.Errorf("roles and kinds must not repeat a name")
	}
	if m.Contract != ContractSallyport && m.Contract != ContractAgentKMS && m.Contract != ContractKBS {
		return fmt.Errorf("contract must be %s, %s or %s", ContractSallyport, ContractAgentKMS, ContractKBS)
	}
	for _, r := range m.Roles {
		if err := m.validateRole(r); err != nil {
			return err
		}
	}
	if m.Extension != nil && (!m.Has(RoleExtension) || m.Contract != ContractSallyport) {
		return fmt.Errorf("extension needs role %s and contract %s", RoleExtension, ContractSallyport)
	}
	if m.Contract == ContractAgentKMS && len(m.Kinds) != 1 {
		return fmt.Errorf("contract %s has exactly one kind in a package", ContractAgentKMS)
	}
	for _, k := range m.Kinds {
		if !ValidKind(k) {
			return fmt.Errorf("kind %q must be lower-case letters, digits, dots and hyphens", k)
		}
	}
	for _, kind := range sorted(m.Params) {
		if !contains(m.Kinds, kind) {
			return fmt.Errorf("params describes kind %q, which kinds does not name", kind)
		}
		if err := m.Params[kind].validate(); err != nil {
			return fmt.Errorf("params.%s: %w", kind, err)
		}
	}
	if err := m.Config.validate(); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

func (m Manifest) validateRole(role string) error {
	switch role {
	case RoleValidator, RoleAnalyzer, RoleSerializer:
		if m.Contract == ContractSallyport {
			return fmt.Errorf("role %s is part of credential-vender in contract %s", role, ContractSallyport)
		}
	case RoleVender:
	case RoleRevoker, RoleNotifier, RoleVerifier, RoleExtension:
		return m.validateNative(role)
	case RoleKBS, RoleObserver, RoleInterceptor, RoleCLI:
		return nil
	default:
		return fmt.Errorf("role %q is not known", role)
	}
	if len(m.Kinds) == 0 {
		return fmt.Errorf("role %s needs kinds: the credential kinds that it is about", role)
	}
	return nil
}

// validateNative checks a role that only our own contract has.
func (m Manifest) validateNative(role string) error {
	switch {
	case role == RoleExtension && m.Extension == nil && len(m.EntryPoints[GroupExtensions]) == 0:
		return fmt.Errorf("role %s needs extension: its routes, migrations, hooks and gates", role)
	case m.Contract != ContractSallyport:
		return fmt.Errorf("role %s needs contract %s", role, ContractSallyport)
	case role == RoleRevoker && m.Revocation.Needs != NeedsHandle && m.Revocation.Needs != NeedsValue:
		return fmt.Errorf("role %s needs revocation.needs: handle or value", role)
	case role == RoleRevoker && len(m.Kinds) == 0:
		return fmt.Errorf("role %s needs kinds: the credential kinds that it is about", role)
	}
	return nil
}

func (m Manifest) validateEntryPoints() error {
	for _, group := range sorted(m.EntryPoints) {
		role := map[string]string{GroupExtensions: RoleExtension, GroupCLI: RoleCLI}[group]
		points := m.EntryPoints[group]
		switch {
		case role == "":
			return fmt.Errorf("entry_points: group %s is not known; known are %s and %s", clip(group), GroupExtensions, GroupCLI)
		case !m.Has(role):
			return fmt.Errorf("entry_points: group %s needs role %s", group, role)
		case len(points) == 0 || len(points) > maxList:
			return fmt.Errorf("entry_points: group %s must have between 1 and %d entries", group, maxList)
		}
		for _, name := range sorted(points) {
			if ref := points[name]; !entryNamePattern.MatchString(name) || len(ref) > maxText || !referencePattern.MatchString(ref) {
				return fmt.Errorf("entry_points: %s in group %s must be a name and module.path:object", clip(name), group)
			}
		}
	}
	return nil
}
