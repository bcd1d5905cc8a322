package app

import (
	"crypto/tls"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// TLS says what a further listener speaks. The zero value is the profile modern,
// as on the main listener.
type TLS struct {
	// Profile is modern (TLS 1.3), intermediate (1.2 and 1.3), old (from 1.0, a
	// switch that weakens), or custom.
	Profile string `yaml:"profile"`
	// The following count in the profile custom.
	MinVersion string   `yaml:"min_version"` // 1.2 (default) or 1.3
	MaxVersion string   `yaml:"max_version"` // 1.3 by default
	Ciphers    []string `yaml:"ciphers"`     // of TLS 1.2, by their IANA names; Go's choice if empty
	Groups     []string `yaml:"groups"`      // X25519MLKEM768, X25519, P-256, P-384, P-521, the preferred first; Go's choice if empty
}

// The profiles.
const (
	tlsModern       = "modern"
	tlsIntermediate = "intermediate"
	tlsOld          = "old"
	tlsCustom       = "custom"
)

var tlsVersions = map[string]uint16{"": 0, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

var tlsGroups = map[string]tls.CurveID{
	"x25519mlkem768": tls.X25519MLKEM768, "secp256r1mlkem768": tls.SecP256r1MLKEM768, "secp384r1mlkem1024": tls.SecP384r1MLKEM1024, "x25519": tls.X25519,
	"p-256": tls.CurveP256, "p-384": tls.CurveP384, "p-521": tls.CurveP521,
	"secp256r1": tls.CurveP256, "secp384r1": tls.CurveP384, "secp521r1": tls.CurveP521,
}

// apply sets versions, suites and groups; what is wrong is Invalid.
func (t TLS) apply(c *tls.Config) error {
	if t.Profile != tlsCustom && (t.MinVersion != "" || t.MaxVersion != "" || len(t.Ciphers) > 0 || len(t.Groups) > 0) {
		return fault.Invalidf("min_version, max_version, ciphers and groups count only in the profile custom")
	}
	switch t.Profile {
	case "", tlsModern:
		c.MinVersion = tls.VersionTLS13
		return nil
	case tlsIntermediate:
		c.MinVersion, c.CipherSuites = tls.VersionTLS12, authenticated()
		return nil
	case tlsOld:
		c.MinVersion = tls.VersionTLS10
		return nil
	case tlsCustom:
	default:
		return fault.Invalidf("the profile %q is unknown: use modern, intermediate, old or custom", t.Profile)
	}
	low, ok := tlsVersions[t.MinVersion]
	high, okHigh := tlsVersions[t.MaxVersion]
	if low == 0 {
		low = tls.VersionTLS12
	}
	if !ok || !okHigh || high != 0 && high < low {
		return fault.Invalidf("min_version and max_version are 1.2 or 1.3, the first not above the second")
	}
	c.MinVersion, c.MaxVersion = low, high
	for _, name := range t.Ciphers {
		id, err := suite(name)
		if err != nil {
			return err
		}
		if id != 0 {
			c.CipherSuites = append(c.CipherSuites, id)
		}
	}
	if len(t.Ciphers) > 0 && len(c.CipherSuites) == 0 && low < tls.VersionTLS13 {
		return fault.Invalidf("ciphers has none for TLS 1.2: add one, or set min_version to 1.3")
	}
	for _, name := range t.Groups {
		id, ok := tlsGroups[strings.ToLower(name)]
		if !ok {
			return fault.Invalidf("the group %q is unknown: use X25519MLKEM768, X25519, P-256, P-384 or P-521", name)
		}
		c.CurvePreferences = append(c.CurvePreferences, id)
	}
	return nil
}

// authenticated are the suites of TLS 1.2 that encrypt and authenticate in one.
func authenticated() []uint16 {
	var out []uint16
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS12) && !strings.Contains(s.Name, "_CBC_") {
			out = append(out, s.ID)
		}
	}
	return out
}

// suite finds a suite of TLS 1.2 by its name; zero for one of TLS 1.3, which is
// always there. Insecure ones are refused.
func suite(name string) (uint16, error) {
	for _, s := range tls.CipherSuites() {
		if s.Name == name {
			if slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
				return s.ID, nil
			}
			return 0, nil
		}
	}
	for _, s := range tls.InsecureCipherSuites() {
		if s.Name == name {
			return 0, fault.Invalidf("the cipher %s is not secure and cannot be switched on", name)
		}
	}
	return 0, fault.Invalidf("the cipher %q is unknown: use names like TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", name)
}
