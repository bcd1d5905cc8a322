package repository

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"slices"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Keys are private keys by TUF's id. The caller wipes them.
type Keys map[string]ed25519.PrivateKey

// NewKeys makes the set of some keys.
func NewKeys(list ...ed25519.PrivateKey) Keys {
	k := Keys{}
	for _, key := range list {
		if pub, ok := key.Public().(ed25519.PublicKey); ok {
			k[KeyID(pub)] = key
		}
	}
	return k
}

// sign adds the signatures of those keys that are among ids, and takes away
// signatures of others. It reports whether anything changed.
func sign[T metadata.Roles](m *metadata.Metadata[T], keys Keys, ids []string) (bool, error) {
	payload, err := cjson.EncodeCanonical(m.Signed)
	if err != nil {
		return false, fault.Internalf("encode metadata").Because(err)
	}
	changed := false
	m.Signatures = slices.DeleteFunc(m.Signatures, func(s metadata.Signature) bool { return !slices.Contains(ids, s.KeyID) })
	for _, id := range ids {
		key, ok := keys[id]
		if !ok {
			continue
		}
		fresh := metadata.Signature{KeyID: id, Signature: ed25519.Sign(key, payload)}
		i := slices.IndexFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
		switch {
		case i < 0:
			m.Signatures = append(m.Signatures, fresh)
		case bytes.Equal(m.Signatures[i].Signature, fresh.Signature):
			continue
		default:
			m.Signatures[i] = fresh
		}
		changed = true
	}
	return changed, nil
}

// encode writes metadata for people too: the signature is over the canonical
// form, whatever stands between the members.
func encode[T metadata.Roles](m *metadata.Metadata[T]) ([]byte, error) {
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fault.Internalf("encode metadata").Because(err)
	}
	return append(data, '\n'), nil
}

// keysOf are the ids and the threshold of a role, which the root names, or the
// first one before it is in place, and for a delegated role the targets.
func (c *content) keysOf(role string) (ids []string, threshold int) {
	root := c.root
	if root == nil {
		root = c.staged
	}
	if topLevel(role) {
		r := root.Signed.Roles[role]
		return r.KeyIDs, r.Threshold
	}
	if t := c.newest(RoleTargets); t != nil && t.Signed.Delegations != nil {
		for _, r := range t.Signed.Delegations.Roles {
			if r.Name == role {
				return r.KeyIDs, r.Threshold
			}
		}
	}
	return nil, 0
}
