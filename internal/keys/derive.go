package keys

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// Password derives a password for a purpose and a name from the newest root: 64
// hex digits, the same on every replica, another one after a change of root.
func (v *Vault) Password(purpose, name string) (secret.Bytes, error) {
	root := v.roots[v.newest]
	raw, err := hkdf.Key(sha256.New, root.Reveal(), nil, "sallyport/password/v1\x00"+purpose+"\x00"+name, sha256.Size)
	if err != nil {
		return secret.Bytes{}, fault.Wrap(err, "derive password")
	}
	defer clear(raw)
	return secret.FromString(hex.EncodeToString(raw)), nil
}
