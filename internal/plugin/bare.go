package plugin

import (
	"crypto/ed25519"
	"encoding/base64"
	"os"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// AgentKMS signs a plugin by raw Ed25519 over the bytes of its executable: no
// name, version, kind or platform is bound, and no key id. Such an executable
// lies in the store like any other, behind a manifest that the host has made
// ([Store.InstallBare]), beside an envelope of a type of its own that holds that
// signature. The one path of verification finds the keys that may have signed
// ([Trust.verify]); whether they have is judged over the sealed bytes, since
// those are what was signed, before each of them runs.

// bareProof is a signature that the executable's bytes must bear out.
type bareProof struct {
	id  string
	key ed25519.PublicKey
	sig []byte
}

// asPackage refuses a package file with such a signature: it says nothing of the
// manifest, and has not been judged over the executable yet.
func (v vouched) asPackage() error {
	if v.use != UseAgentKMS {
		return nil
	}
	return refuse(ReasonBadSignature, "the package has a signature of AgentKMS over its executable, which says nothing of its manifest; install the executable itself")
}

// vouching returns the ids of the distinct keys that vouch for the manifest. For
// a signature over the executable that is not known yet: see [envelope.proofs].
func (e envelope) vouching(payload []byte, keys map[string]ed25519.PublicKey) []string {
	if uses[e.PayloadType] == UseAgentKMS {
		return e.distinct(keys, func(ed25519.PublicKey, []byte) bool { return true })
	}
	return e.verified(payload, keys)
}

// proofs are the signatures of the given keys, to be judged over bytes.
func (e envelope) proofs(keys map[string]ed25519.PublicKey) []bareProof {
	var out []bareProof
	for _, s := range e.Signatures {
		sig, err := base64.StdEncoding.Strict().DecodeString(s.Sig)
		if key, ok := keys[s.KeyID]; ok && err == nil {
			out = append(out, bareProof{s.KeyID, key, sig})
		}
	}
	return out
}

// proven judges every proof over a sealed image: all must hold.
func proven(img *image, proofs []bareProof) error {
	data, err := os.ReadFile(img.path())
	if err != nil {
		return fault.Wrap(err, "read plugin image")
	}
	for _, p := range proofs {
		if len(p.sig) != ed25519.SignatureSize || !ed25519.Verify(p.key, data, p.sig) {
			return refuse(ReasonBadSignature, "the signature beside the executable is not key %s's over these bytes; get the two again", p.id)
		}
	}
	return nil
}
