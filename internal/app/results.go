package app

import (
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/token"
)

// AttestationResults is what the attestation tokens of this server say of
// themselves. Every member has a default, which is what guests and relying parties
// of Trustee know.
type AttestationResults struct {
	Issuer    string `yaml:"issuer"`    // iss
	Developer string `yaml:"developer"` // of ear.verifier-id
	Build     string `yaml:"build"`     // of ear.verifier-id; this program and its version by default
	Profile   string `yaml:"profile"`   // eat_profile
	Life      string `yaml:"life"`      // 5m by default, at most 24h
	// Certificate puts a chain of the embedded authority into the header (x5c), so
	// that who trusts the root believes the tokens, whichever key signs them.
	Certificate bool `yaml:"certificate"`
}

const (
	longestName  = 256
	longestToken = 24 * time.Hour
)

func (r AttestationResults) validate() error {
	for name, text := range map[string]string{"issuer": r.Issuer, "developer": r.Developer, "build": r.Build, "profile": r.Profile} {
		if len(text) > longestName {
			return fault.Invalidf("kbs.attestation_results.%s has more than %d bytes", name, longestName)
		}
	}
	if d, ok := period(r.Life); r.Life != "" && (!ok || d > longestToken) {
		return fault.Invalidf("kbs.attestation_results.life is a number of minutes or hours, like 5m, and at most 24h")
	}
	return nil
}

// life is how long a token lives.
func (r AttestationResults) life() time.Duration {
	if d, ok := period(r.Life); ok {
		return d
	}
	return token.EARLife
}

// minter makes what signs attestation results, with the present key.
func (r AttestationResults) minter(ring *keyring, version string) (*token.Minter, error) {
	c := token.MinterConfig{
		Key: ring.results, Chain: ring.chain, Build: r.Build, Now: time.Now,
		Issuer: r.Issuer, Developer: r.Developer, Profile: r.Profile, Life: r.life(),
	}
	if c.Build == "" {
		c.Build = "sallyport " + version
	}
	m, err := token.NewMinter(c)
	return m, member("kbs.attestation_results", err)
}
