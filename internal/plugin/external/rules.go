package external

import "github.com/sallyport-project/sallyport/api/sallyport/manifest"

// Rules are the floors of a backend: what its manifest declares, and what the
// operator has configured. Where both say something of a request, both count.
type Rules struct {
	Declared   *manifest.KBS // nil for none
	Configured *manifest.KBS
	// Rich passes the plugin's status and content type on. Without it every
	// failure is the same to guests, as in existing brokers.
	Rich bool
}

// Needs is who must have been let pass for a request.
type Needs struct {
	Admin bool // an administrator
	Guest bool // an attested guest, and policy
}

// Floor is what a request needs before the plugin is asked. Silent says that
// nobody has declared anything, so that the plugin's answer alone decides, as in
// existing brokers.
func (r Rules) Floor(method string, path []string) (n Needs, silent bool) {
	silent = true
	for _, k := range []*manifest.KBS{r.Declared, r.Configured} {
		if k == nil {
			continue
		}
		for _, route := range k.Routes {
			if !route.Fits(method, path) {
				continue
			}
			silent = false
			n.Admin = n.Admin || route.Floor == manifest.FloorAdmin
			n.Guest = n.Guest || route.Floor == manifest.FloorAttested
			break
		}
	}
	return n, silent
}

// Raise adds what the plugin answered to ValidateAuth: an administrator where it
// asks for one. Where nothing is declared, the guest's attestation is needed
// exactly when it does not.
func (n Needs) Raise(silent, admin bool) Needs {
	if silent {
		n.Guest = !admin
	}
	n.Admin = n.Admin || admin
	return n
}

// AlwaysSealed reports whether a guest's answer is sealed without asking.
func (r Rules) AlwaysSealed() bool {
	for _, k := range []*manifest.KBS{r.Declared, r.Configured} {
		if k != nil && k.Encrypt == manifest.EncryptAlways {
			return true
		}
	}
	return false
}
