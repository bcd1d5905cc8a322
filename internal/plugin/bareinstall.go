package plugin

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// Bare describes an executable that AgentKMS has signed. What the signature does
// not bind is the operator's decision: everything here.
type Bare struct {
	Name      string
	Publisher string
	Version   string   // 0.0.0 if empty
	Signature []byte   // raw Ed25519 over the executable, 64 bytes
	Kind      string   // empty: asked of the executable
	Roles     []string // empty: those of the four services that it has
	Network   []string // what it may reach, as [manifest.Capabilities]
}

// bareRoles are the services of agentkms.plugin.v1.
var bareRoles = []string{manifest.RoleValidator, manifest.RoleAnalyzer, manifest.RoleSerializer, manifest.RoleVender}

const maxBareManifest = 64 << 10

// ReadBareManifest reads the JSON file that lies beside an executable as
// {binary}.manifest and says which of the four services it has: services (or
// roles), kind and version, each optional. Services are written like
// scope_validator or scope-validator. Other members are ignored. It is not
// signed: a wrong one makes a plugin that does not start.
func ReadBareManifest(data []byte, b Bare) (Bare, error) {
	var m struct {
		Services []string `json:"services"`
		Roles    []string `json:"roles"`
		Kind     string   `json:"kind"`
		Version  string   `json:"version"`
	}
	if err := canon.Lenient(data, maxBareManifest, 8, &m); err != nil {
		return b, fault.Wrap(err, "read the executable's manifest")
	}
	for _, s := range append(m.Services, m.Roles...) {
		role := strings.ReplaceAll(s, "_", "-")
		if !slices.Contains(bareRoles, role) {
			return b, fault.Invalidf("the executable's manifest names service %q; the four are %s", clip(s, 64), strings.Join(bareRoles, ", "))
		}
		if !slices.Contains(b.Roles, role) {
			b.Roles = append(b.Roles, role)
		}
	}
	if b.Kind == "" {
		b.Kind = m.Kind
	}
	if b.Version == "" {
		b.Version = strings.TrimPrefix(m.Version, "v")
	}
	return b, nil
}

// InstallBare verifies an executable by the keys that are trusted for AgentKMS's
// signatures and its name, and puts it into the store behind a manifest made
// here. Only then, if its roles or kind are not given, it is started once, as
// every plugin is, and asked. Equal executables and answers give equal manifests
// on every node. Faults are as of [Store.Install].
func (h *Host) InstallBare(ctx context.Context, executable io.Reader, b Bare, trust Trust) (Entry, error) {
	m, work, err := h.store.unpackBare(executable, b)
	if err != nil {
		return Entry{}, err
	}
	defer func() { _ = os.RemoveAll(work) }() //nolint:gosec // our folder, named by us
	if len(b.Roles) > 0 && b.Kind != "" {
		return h.store.placeBare(work, m, b, trust)
	}
	// The draft lies in the store while it is asked, by the one path on which
	// anything starts, and leaves it again.
	open := trust
	open.Locked = nil // names what is installed in the end
	draft, err := h.store.placeBare(work, m, b, open)
	if err != nil {
		return Entry{}, err
	}
	roles, kind, err := h.probe(ctx, draft, open)
	if back := h.store.takeBack(draft.Digest, work); err == nil {
		err = back
	}
	if err != nil {
		return Entry{}, err
	}
	m.Roles, m.Kinds = roles, []string{kind}
	return h.store.placeBare(work, m, b, trust)
}

// unpackBare copies an executable into a folder of its own and writes its
// manifest, as far as it is known.
func (s *Store) unpackBare(executable io.Reader, b Bare) (m manifest.Manifest, work string, err error) {
	if err := s.check(); err != nil {
		return m, "", err
	}
	m = manifest.Manifest{
		Schema: manifest.Schema, Name: b.Name, Version: b.Version, Publisher: b.Publisher,
		Summary:  "a bare executable, signed as AgentKMS does",
		Contract: manifest.ContractAgentKMS, HostAPI: manifest.Range{Min: manifest.HostAPI, Max: manifest.HostAPI},
		Roles: b.Roles, Kinds: []string{b.Kind}, Effects: manifest.EffectsRemote,
		Revocation: manifest.Revocation{Needs: manifest.NeedsNone}, Tier: manifest.TierFree, Audience: manifest.AudienceAny,
		Capabilities: manifest.Capabilities{Network: b.Network},
		Files:        []manifest.File{{OS: runtime.GOOS, Arch: runtime.GOARCH, Path: b.Name, Size: 1, SHA256: strings.Repeat("0", 64)}},
	}
	if m.Version == "" {
		m.Version = "0.0.0"
	}
	if len(m.Roles) == 0 {
		m.Roles = bareRoles
	}
	if b.Kind == "" {
		m.Kinds = []string{"unknown"}
	}
	if err := m.Validate(); err != nil {
		return m, "", fault.Invalidf("the executable cannot be installed: %s", err)
	}
	work = filepath.Join(s.temp(), id.New())
	if err := os.Mkdir(work, 0o700); err != nil {
		return m, "", fault.Wrap(err, "make folder")
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(work)
		}
	}()
	out, err := os.OpenFile(filepath.Join(work, m.Files[0].Path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o500) //nolint:gosec // a plain name, checked by the manifest
	if err != nil {
		return m, "", fault.Wrap(err, "unpack executable")
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(executable, manifest.MaxFileBytes+1))
	if err == nil {
		err = out.Sync()
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return m, "", fault.Wrap(err, "unpack executable")
	}
	if n == 0 || n > manifest.MaxFileBytes {
		return m, "", fault.Invalidf("an executable has 1 to %d bytes", manifest.MaxFileBytes)
	}
	m.Files[0].Size, m.Files[0].SHA256 = n, hex.EncodeToString(sum.Sum(nil))
	return m, work, nil
}

// placeBare writes manifest and envelope beside an executable, judges the three
// by the same functions as at every start, and puts them in place.
func (s *Store) placeBare(work string, m manifest.Manifest, b Bare, trust Trust) (Entry, error) {
	manifestBytes, err := encodeManifest(m)
	if err != nil {
		return Entry{}, err
	}
	data, err := os.ReadFile(filepath.Join(work, m.Files[0].Path)) //nolint:gosec // below our folder
	if err != nil {
		return Entry{}, fault.Wrap(err, "read executable")
	}
	e := sealEnvelope(manifest.PayloadTypeAgentKMS, manifestBytes)
	e.Signatures = []signature{{KeyID: trust.bareSigner(data, b.Signature), Sig: base64.StdEncoding.EncodeToString(b.Signature)}}
	envelopeBytes, err := e.bytes()
	if err != nil {
		return Entry{}, err
	}
	v, err := trust.verify(manifestBytes, envelopeBytes, forInstall)
	if err != nil {
		return Entry{}, err
	}
	out := Entry{Digest: Digest(manifestBytes), Manifest: m, KeyIDs: v.ids, Use: v.use, Reason: ReasonOK, bare: v.bare}
	if err := trust.admits(m, out.Digest); err != nil {
		return Entry{}, err
	}
	if err := Supported(m); err != nil {
		return Entry{}, err
	}
	for name, content := range map[string][]byte{manifestName: manifestBytes, signatureName: envelopeBytes} {
		_ = os.Remove(filepath.Join(work, name)) //nolint:gosec // that of the draft, below our folder
		if err := writeNew(filepath.Join(work, name), content, 0o400); err != nil {
			return Entry{}, err
		}
	}
	if err := syncDir(work); err != nil {
		return Entry{}, err
	}
	return out, s.place(work, out.Digest)
}

// bareSigner is the id of the key, in whatever state, whose signature it is;
// empty for none. AgentKMS's signatures do not name their key.
func (t Trust) bareSigner(data, sig []byte) string {
	if len(sig) != ed25519.SignatureSize {
		return ""
	}
	for _, k := range t.Keys {
		if k.Use == UseAgentKMS && len(k.Public) == ed25519.PublicKeySize && ed25519.Verify(k.Public, data, sig) {
			return KeyID(k.Public)
		}
	}
	return ""
}

// takeBack moves an entry out of the store into a working folder.
func (s *Store) takeBack(digest, work string) error {
	name, _ := hexDigest(digest)
	_ = os.RemoveAll(work)                                                 //nolint:gosec // our folder
	if err := os.Rename(filepath.Join(s.root(), name), work); err != nil { //nolint:gosec // a digest
		return fault.Wrap(err, "take the executable back")
	}
	return syncDir(s.root())
}

// probe starts an executable and asks each of the four services for its kind.
func (h *Host) probe(ctx context.Context, draft Entry, trust Trust) (roles []string, kind string, err error) {
	e, err := h.store.judge(draft.Digest, trust)
	if err != nil {
		return nil, "", err
	}
	i, err := h.launchAs(ctx, e, beginning{handshake: handshake(e.Manifest), introduce: func(ctx context.Context, i *instance) error {
		for _, role := range bareRoles {
			found, err := i.kind(ctx, role)
			switch {
			case status.Code(err) == codes.Unimplemented:
				continue
			case err != nil:
				return &reasoned{fault.Unavailablef("the executable does not say whether it is a %s", role).Because(err), ReasonStart}
			case kind != "" && kind != found:
				return refuse(ReasonIncompatible, "the executable serves two kinds, %s and %s", clip(kind, 64), clip(found, 64))
			}
			kind, roles = found, append(roles, role)
		}
		return nil
	}})
	if err != nil {
		return nil, "", err
	}
	i.stop(true)
	if !manifest.ValidKind(kind) {
		return nil, "", refuse(ReasonIncompatible, "the executable has none of the four services, or a kind that is no name")
	}
	return roles, kind, nil
}
