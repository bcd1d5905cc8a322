package repository

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/internal/canon"
)

const (
	maxDepth      = 12
	maxKeys       = 32
	maxSignatures = 32
)

// parse reads one metadata file and checks its form, before the library sees
// it. Nothing is verified yet. Null has no place in metadata, and the library
// would trip over it.
func parse[T metadata.Roles](data []byte, limit int, what string) (*metadata.Metadata[T], error) {
	var form any
	if err := canon.Lenient(data, limit, maxDepth, &form); err != nil {
		return nil, malformed(what, "it is not acceptable JSON, or larger than allowed")
	}
	if hasNull(form) {
		return nil, malformed(what, "it has a null")
	}
	m := &metadata.Metadata[T]{}
	if _, err := m.FromBytes(data); err != nil {
		return nil, malformed(what, "it is no metadata of this kind")
	}
	if len(m.Signatures) > maxSignatures {
		return nil, malformed(what, "it has too many signatures")
	}
	return m, nil
}

func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	}
	return false
}

// common are the rules for every file.
func common(what, spec string, version int64) error {
	if !strings.HasPrefix(spec, "1.") || version < 1 {
		return malformed(what, "its version, or that of the specification, is not one that this program knows")
	}
	return nil
}

// parseRoot reads a root and checks who it gives which role.
func parseRoot(data []byte) (*metadata.Metadata[metadata.RootType], error) {
	const what = "the root"
	m, err := parse[metadata.RootType](data, maxRoot, what)
	if err != nil {
		return nil, err
	}
	s := m.Signed
	if err := common(what, s.SpecVersion, s.Version); err != nil {
		return nil, err
	}
	switch {
	case !s.ConsistentSnapshot:
		return nil, malformed(what, "it does without consistent snapshots")
	case len(s.Roles) != len(metadata.TOP_LEVEL_ROLE_NAMES) || len(s.Keys) > maxKeys:
		return nil, malformed(what, "it must have the four roles, and at most 32 keys")
	}
	if err := checkKeys(what, s.Keys); err != nil {
		return nil, err
	}
	owner := map[string]string{}
	for _, name := range metadata.TOP_LEVEL_ROLE_NAMES {
		r := s.Roles[name]
		if r == nil {
			return nil, malformed(what, "it has no role "+name)
		}
		if err := checkRole(what, name, r.KeyIDs, r.Threshold, s.Keys, owner); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// checkKeys demands Ed25519 keys under their own ids: with another id one key
// could count as two.
func checkKeys(what string, keys map[string]*metadata.Key) error {
	for id, k := range keys {
		raw, err := hex.DecodeString(k.Value.PublicKey)
		if k.Type != metadata.KeyTypeEd25519 || k.Scheme != metadata.KeySchemeEd25519 || err != nil ||
			len(raw) != ed25519.PublicKeySize || k.Value.PublicKey != strings.ToLower(k.Value.PublicKey) {
			return malformed(what, "it has a key that is not Ed25519")
		}
		if id != KeyID(raw) {
			return malformed(what, "it has a key under another id than its own")
		}
	}
	return nil
}

// checkRole demands a threshold that can be met, of known keys that have no
// other role: who holds an online key must not be able to do more with it.
func checkRole(what, name string, ids []string, threshold int, keys map[string]*metadata.Key, owner map[string]string) error {
	if threshold < 1 || threshold > len(ids) {
		return malformed(what, "role "+name+" has a threshold that cannot be met")
	}
	for _, id := range ids {
		if keys[id] == nil {
			return malformed(what, "role "+name+" names a key that is not there")
		}
		if owner[id] != "" {
			return malformed(what, "one key has the roles "+owner[id]+" and "+name+", or stands twice")
		}
		owner[id] = name
	}
	return nil
}

// parseTimestamp demands that the snapshot is described completely.
func parseTimestamp(data []byte) (*metadata.Metadata[metadata.TimestampType], error) {
	const what = "the timestamp"
	m, err := parse[metadata.TimestampType](data, maxTimestamp, what)
	if err != nil {
		return nil, err
	}
	if err := common(what, m.Signed.SpecVersion, m.Signed.Version); err != nil {
		return nil, err
	}
	if len(m.Signed.Meta) != 1 || !described(m.Signed.Meta[RoleSnapshot+".json"], maxSnapshot) {
		return nil, malformed(what, "it must describe the snapshot, with length and SHA-256, and nothing else")
	}
	return m, nil
}

func parseSnapshot(data []byte) (*metadata.Metadata[metadata.SnapshotType], error) {
	const what = "the snapshot"
	m, err := parse[metadata.SnapshotType](data, maxSnapshot, what)
	if err != nil {
		return nil, err
	}
	if err := common(what, m.Signed.SpecVersion, m.Signed.Version); err != nil {
		return nil, err
	}
	if len(m.Signed.Meta) > maxDelegated+1 {
		return nil, malformed(what, "it describes too many files")
	}
	for file, d := range m.Signed.Meta {
		role, ok := strings.CutSuffix(file, ".json")
		if !ok || !rolePattern.MatchString(role) || !described(d, maxTargets) {
			return nil, malformed(what, "each file must be a role's, with length and SHA-256")
		}
	}
	return m, nil
}

func described(d *metadata.MetaFiles, limit int64) bool {
	return d != nil && d.Version >= 1 && d.Length > 0 && d.Length <= limit && len(d.Hashes) == 1 && len(d.Hashes["sha256"]) == 32
}

// parseTargets reads the file of targets, or of a delegated role.
func parseTargets(data []byte, role string) (*metadata.Metadata[metadata.TargetsType], error) {
	what := "the file of role " + role
	m, err := parse[metadata.TargetsType](data, maxTargets, what)
	if err != nil {
		return nil, err
	}
	s := m.Signed
	if err := common(what, s.SpecVersion, s.Version); err != nil {
		return nil, err
	}
	if len(s.Targets) > maxReleases {
		return nil, malformed(what, "it lists too many packages")
	}
	if s.Delegations == nil {
		return m, nil
	}
	if role != RoleTargets {
		return nil, malformed(what, "a delegated role must not delegate further")
	}
	if s.Delegations.SuccinctRoles != nil || len(s.Delegations.Roles) > maxDelegated || len(s.Delegations.Keys) > maxKeys {
		return nil, malformed(what, "its delegations are too many, or of a kind that is not used here")
	}
	return m, checkDelegations(what, s.Delegations)
}

func checkDelegations(what string, d *metadata.Delegations) error {
	if err := checkKeys(what, d.Keys); err != nil {
		return err
	}
	owner, seen := map[string]string{}, map[string]bool{}
	for _, r := range d.Roles {
		switch {
		case !rolePattern.MatchString(r.Name) || topLevel(r.Name) || seen[r.Name]:
			return malformed(what, "a delegated role has a name that it cannot have")
		case len(r.Paths) == 0 || len(r.PathHashPrefixes) > 0:
			return malformed(what, "a delegated role must be bound to paths")
		}
		seen[r.Name] = true
		if err := checkRole(what, r.Name, r.KeyIDs, r.Threshold, d.Keys, owner); err != nil {
			return err
		}
	}
	return nil
}

func topLevel(role string) bool {
	for _, name := range metadata.TOP_LEVEL_ROLE_NAMES {
		if role == name {
			return true
		}
	}
	return false
}

// KeyID is TUF's id of an Ed25519 key: SHA-256 over the key's canonical JSON.
// It is not the id of a publisher's key.
func KeyID(pub ed25519.PublicKey) string {
	k, err := metadata.KeyFromPublicKey(pub)
	if err != nil {
		return "" // unreachable: the type is known
	}
	id, err := k.ID()
	if err != nil {
		return "" // unreachable: strings always encode
	}
	return id
}

// custom is what our metadata says of a package, besides length and digest.
type custom struct {
	Name             string   `json:"name"`
	Version          string   `json:"version"`
	Digest           string   `json:"digest"`
	Publisher        string   `json:"publisher"`
	Roles            []string `json:"roles"`
	Kinds            []string `json:"kinds"`
	Summary          string   `json:"summary,omitempty"`
	MinSecureVersion string   `json:"min_secure_version,omitempty"`
	Yanked           string   `json:"yanked,omitempty"`
}

// maxCustom bounds one of them; unknown members are let through, so that later
// versions can say more.
const maxCustom = 8 << 10

func parseCustom(raw *json.RawMessage) (custom, bool) {
	var c custom
	if raw == nil || canon.Lenient(*raw, maxCustom, 3, &c) != nil {
		return custom{}, false
	}
	return c, true
}
