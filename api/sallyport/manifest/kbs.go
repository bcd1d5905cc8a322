package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// KBS says how requests reach a plugin of role kbs, beyond what the plugin
// itself answers to ValidateAuth and NeedsEncryption: floors, which the plugin
// can raise and never lower.
type KBS struct {
	// Routes are judged in order; the first that fits a request counts. A request
	// that none fits is the plugin's own decision.
	Routes []KBSRoute `json:"routes,omitempty"`
	// Encrypt is [EncryptAlways] or [EncryptAsk]; empty is [EncryptAsk].
	Encrypt string `json:"encrypt,omitempty"`
}

// KBSRoute gives a part of a plugin's requests a floor.
type KBSRoute struct {
	// Path begins the path after the plugin's name, by whole segments; empty is
	// every path.
	Path string `json:"path,omitempty"`
	// Methods are GET, POST, PUT and DELETE; none is all of them.
	Methods []string `json:"methods,omitempty"`
	// Floor is [FloorAdmin], [FloorAttested] or [FloorPublic].
	Floor string `json:"floor"`
}

// Who must have been let pass at least, before a request reaches the plugin's
// Handle, whatever the plugin says.
const (
	FloorAdmin    = "admin"    // an administrator
	FloorAttested = "attested" // an attested guest, whom the resource policy allows it
	FloorPublic   = "public"   // nobody: where the plugin does not ask for an administrator, the request is anybody's
)

// When a guest's answer is sealed to its key.
const (
	EncryptAlways = "always" // the plugin is not asked
	EncryptAsk    = "ask"    // as the plugin says
)

// KBSMethods are the methods that reach a plugin.
func KBSMethods() []string { return []string{"GET", "POST", "PUT", "DELETE"} }

// Fits reports whether a request is the route's.
func (r KBSRoute) Fits(method string, path []string) bool {
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
		return false
	}
	if r.Path == "" {
		return true
	}
	want := strings.Split(r.Path, "/")
	return len(path) >= len(want) && slices.Equal(want, path[:len(want)])
}

// Validate says what to change.
func (k *KBS) Validate() error {
	if k == nil {
		return nil
	}
	if k.Encrypt != "" && k.Encrypt != EncryptAlways && k.Encrypt != EncryptAsk {
		return fmt.Errorf("encrypt must be %s or %s", EncryptAlways, EncryptAsk)
	}
	if len(k.Routes) > maxList {
		return fmt.Errorf("routes must have at most %d entries", maxList)
	}
	for _, r := range k.Routes {
		if err := r.validate(); err != nil {
			return err
		}
		if r.Floor == FloorPublic && k.Encrypt == EncryptAlways {
			return fmt.Errorf("a route with floor %s has no key to seal answers to, so encrypt cannot be %s", FloorPublic, EncryptAlways)
		}
	}
	return nil
}

func (r KBSRoute) validate() error {
	if len(r.Path) > maxText || strings.HasPrefix(r.Path, "/") || strings.HasSuffix(r.Path, "/") || strings.Contains(r.Path, "//") || !plain(r.Path) {
		return fmt.Errorf("routes: path %q must be segments with one slash between them, without one at its ends", clip(r.Path))
	}
	for _, m := range r.Methods {
		if !slices.Contains(KBSMethods(), m) {
			return fmt.Errorf("routes: method %q must be one of %s", clip(m), strings.Join(KBSMethods(), ", "))
		}
	}
	switch r.Floor {
	case FloorAdmin, FloorAttested, FloorPublic:
		return nil
	default:
		return fmt.Errorf("routes: floor must be %s, %s or %s", FloorAdmin, FloorAttested, FloorPublic)
	}
}

// validateKBS checks what belongs to role kbs.
func (m Manifest) validateKBS() error {
	switch {
	case m.Has(RoleKBS) != (m.Contract == ContractKBS):
		return fmt.Errorf("role %s and contract %s belong together", RoleKBS, ContractKBS)
	case m.Contract == ContractKBS && len(m.RolesFor(ForServer)) > 1:
		return fmt.Errorf("contract %s has no role of a server but %s", ContractKBS, RoleKBS)
	case m.KBS != nil && !m.Has(RoleKBS):
		return fmt.Errorf("kbs is for packages with role %s", RoleKBS)
	case m.Has(RoleKBS) && len(m.Kinds) > 0:
		return fmt.Errorf("a package with role %s has no kinds", RoleKBS)
	}
	if err := m.KBS.Validate(); err != nil {
		return fmt.Errorf("kbs: %w", err)
	}
	return nil
}
