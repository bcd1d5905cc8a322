package manifest

import "fmt"

const maxEvidence = 16

// builtIn are the kinds of evidence that the host judges itself, whether or not
// they are switched on. No plugin takes the place of their verifiers.
var builtIn = []string{"az-snp-vtpm", "az-tdx-vtpm", "azsnpvtpm", "aztdxvtpm", "snp", "tdx", "tpm", "sample", "sampledevice"}

// ValidEvidence reports whether s may name a kind of evidence: like a credential
// kind, and at most 32 long.
func ValidEvidence(s string) bool { return len(s) <= 32 && ValidKind(s) }

// validateEvidence checks what concerns role verifier alone.
func (m Manifest) validateEvidence() error {
	if !m.Has(RoleVerifier) {
		if len(m.Evidence) > 0 {
			return fmt.Errorf("evidence needs role %s", RoleVerifier)
		}
		return nil
	}
	if len(m.Evidence) == 0 || len(m.Evidence) > maxEvidence || twice(m.Evidence) {
		return fmt.Errorf("role %s needs evidence: between 1 and %d names of kinds of evidence, each once", RoleVerifier, maxEvidence)
	}
	for _, e := range m.Evidence {
		if !ValidEvidence(e) {
			return fmt.Errorf("evidence: %s must be lower-case letters, digits, dots and hyphens, at most 32", clip(e))
		}
		if contains(builtIn, e) {
			return fmt.Errorf("evidence: %s is judged by the host itself, and no plugin takes its place", e)
		}
	}
	return nil
}
