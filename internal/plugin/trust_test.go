package plugin

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/semver"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

var today = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

// signer is a private key with the row of its public half.
type signer struct {
	private ed25519.PrivateKey
	row     Key
}

func newSigner(t testing.TB, publisher string, names ...string) signer {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	row, err := NewKey(pub, publisher, names, "test", today)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, row}
}

func (s signer) with(change func(*Key)) Key { change(&s.row); return s.row }

// envelopeOf signs a manifest by some keys, under a payload type.
func envelopeOf(t testing.TB, payloadType string, payload []byte, by ...signer) []byte {
	t.Helper()
	e := sealEnvelope(payloadType, payload)
	for _, s := range by {
		var err error
		if e, err = e.sign(s.private); err != nil {
			t.Fatal(err)
		}
	}
	data, err := e.bytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func manifestBytes(t testing.TB, m manifest.Manifest) []byte {
	t.Helper()
	data, err := encodeManifest(withFile(m))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestTrust_JudgesBySignatures is every way in which signatures do not suffice.
func TestTrust_JudgesBySignatures(t *testing.T) {
	a, b, other := newSigner(t, "tester"), newSigner(t, "tester"), newSigner(t, "another")
	narrow := newSigner(t, "tester", "aws-*")
	development := signer{private: b.private, row: b.with(func(k *Key) { k.Use = UseDevelopment })}
	m := manifestBytes(t, testManifest("x"))
	trust := func(threshold int, keys ...Key) Trust {
		return Trust{Keys: keys, Thresholds: map[string]int{"tester": threshold}, Now: func() time.Time { return today }}
	}
	for name, c := range map[string]struct {
		trust Trust
		by    []signer
		typ   string
		at    moment
		want  Reason
	}{
		"one of one":                        {trust: trust(1, a.row), by: []signer{a}},
		"two of two":                        {trust: trust(2, a.row, b.row), by: []signer{a, b}},
		"one of two":                        {trust: trust(2, a.row, b.row), by: []signer{a}, want: ReasonBadSignature},
		"one key twice":                     {trust: trust(2, a.row, b.row), by: []signer{a, a}, want: ReasonBadSignature},
		"two rows of one key":               {trust: trust(2, a.row, a.with(func(k *Key) { k.ID = "another" })), by: []signer{a}, want: ReasonBadSignature},
		"a key of another publisher":        {trust: trust(1, other.row), by: []signer{other}, want: ReasonBadSignature},
		"a name outside of the pattern":     {trust: trust(1, narrow.row), by: []signer{narrow}, want: ReasonBadSignature},
		"a revoked key":                     {trust: trust(1, a.with(func(k *Key) { k.State = Revoked })), by: []signer{a}, want: ReasonRevoked},
		"a revoked key, at a start":         {trust: trust(1, a.with(func(k *Key) { k.State = Revoked })), by: []signer{a}, at: forStart, want: ReasonRevoked},
		"a revoked key beside a good one":   {trust: trust(1, a.with(func(k *Key) { k.State = Revoked }), b.row), by: []signer{a, b}},
		"a removed key":                     {trust: trust(1, a.with(func(k *Key) { k.State = Removed })), by: []signer{a}, at: forStart, want: ReasonBadSignature},
		"a retired key, for something new":  {trust: trust(1, a.with(func(k *Key) { k.State = Retired })), by: []signer{a}, want: ReasonBadSignature},
		"a retired key, at a start":         {trust: trust(1, a.with(func(k *Key) { k.State = Retired })), by: []signer{a}, at: forStart},
		"a retired key past its time":       {trust: trust(1, a.with(func(k *Key) { k.State, k.Expires = Retired, today })), by: []signer{a}, at: forStart, want: ReasonStale},
		"an expired key":                    {trust: trust(1, a.with(func(k *Key) { k.Expires = today })), by: []signer{a}, want: ReasonStale},
		"an expired key, at a start":        {trust: trust(1, a.with(func(k *Key) { k.Expires = today })), by: []signer{a}, at: forStart, want: ReasonStale},
		"a key before its time":             {trust: trust(1, a.with(func(k *Key) { k.NotBefore = today.Add(1) })), by: []signer{a}, want: ReasonStale},
		"a key in its time":                 {trust: trust(1, a.with(func(k *Key) { k.NotBefore, k.Expires = today, today.Add(1) })), by: []signer{a}},
		"a key for executables":             {trust: trust(1, a.with(func(k *Key) { k.Use = UseAgentKMS })), by: []signer{a}, want: ReasonBadSignature},
		"a key for development":             {trust: trust(1, development.row), by: []signer{development}, want: ReasonBadSignature},
		"development where it is not":       {trust: trust(1, development.row), by: []signer{development}, typ: manifest.PayloadTypeDevelopment, want: ReasonBadSignature},
		"a publisher's key for development": {trust: trust(1, a.row), by: []signer{a}, typ: manifest.PayloadTypeDevelopment, want: ReasonBadSignature},
		"a rotation's signature":            {trust: trust(1, a.row), by: []signer{a}, typ: RotationType, want: ReasonBadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := c.trust.verify(m, envelopeOf(t, first(c.typ, manifest.PayloadType), m, c.by...), c.at)
			if c.want == "" {
				c.want = ReasonOK
			}
			if ReasonOf(err) != c.want {
				t.Fatalf("%v, want %s", err, c.want)
			}
			if err == nil && len(v.ids) < max(c.trust.Thresholds["tester"], 1) {
				t.Fatalf("accepted by %v", v.ids)
			}
		})
	}
	open := trust(2, development.row)
	open.Development = true
	data := envelopeOf(t, manifest.PayloadTypeDevelopment, m, development)
	if v, err := open.verify(m, data, forInstall); err != nil || v.use != UseDevelopment {
		t.Fatalf("development where it is allowed: %+v, %v", v, err)
	}
	// The same key's signature over the same bytes does not count as a publisher's.
	if _, err := open.verify(m, envelopeOf(t, manifest.PayloadType, m, development), forInstall); ReasonOf(err) != ReasonBadSignature {
		t.Fatalf("a development key satisfies a threshold: %v", err)
	}
}

func first(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return ""
}

// TestTrust_NoticesEveryFlippedByte changes each byte of manifest and envelope.
func TestTrust_NoticesEveryFlippedByte(t *testing.T) {
	a := newSigner(t, "tester")
	trust := Trust{Keys: []Key{a.row}}
	m := manifestBytes(t, testManifest("x"))
	data := envelopeOf(t, manifest.PayloadType, m, a)
	for i := range m {
		bad := bytes.Clone(m)
		bad[i] ^= 1
		if _, err := trust.verify(bad, data, forInstall); err == nil {
			t.Fatalf("byte %d of the manifest", i)
		}
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		v, err := trust.verify(m, bad, forInstall)
		if err == nil && !slices.Equal(v.ids, []string{a.row.ID}) {
			t.Fatalf("byte %d of the envelope: %v", i, v.ids)
		}
		if err == nil && !bytes.Equal(bytes.TrimSpace(bad), bytes.TrimSpace(data)) && !strings.ContainsAny(string(data[i:i+1]), " \n") {
			t.Fatalf("byte %d of the envelope, %q, is not noticed", i, data[i])
		}
	}
}

func TestTrust_AdmitsByVersionAndLock(t *testing.T) {
	m := testManifest("x")
	m.Version = "1.4.0"
	for name, c := range map[string]struct {
		trust Trust
		want  Reason
	}{
		"nothing demanded":  {Trust{}, ReasonOK},
		"at the floor":      {Trust{Floors: map[string]string{"x": "1.4.0"}}, ReasonOK},
		"below the floor":   {Trust{Floors: map[string]string{"x": "1.4.1-rc.1"}}, ReasonRollback},
		"another's floor":   {Trust{Floors: map[string]string{"y": "9.0.0"}}, ReasonOK},
		"locked":            {Trust{Locked: map[string]string{"x": "sha256:00"}}, ReasonOK},
		"locked otherwise":  {Trust{Locked: map[string]string{"x": "sha256:01"}}, ReasonNotLocked},
		"not in the lock":   {Trust{Locked: map[string]string{}}, ReasonNotLocked},
		"locked, and below": {Trust{Locked: map[string]string{"x": "sha256:00"}, Floors: map[string]string{"x": "2.0.0"}}, ReasonRollback},
	} {
		if err := c.trust.admits(m, "sha256:00"); ReasonOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOlder_AgreesWithTheModuleSystem compares the order of versions with that of
// golang.org/x/mod/semver.
func TestOlder_AgreesWithTheModuleSystem(t *testing.T) {
	part := rapid.StringMatching(`(0|[1-9][0-9]{0,2})`)
	version := rapid.Custom(func(t *rapid.T) string {
		v := part.Draw(t, "major") + "." + part.Draw(t, "minor") + "." + part.Draw(t, "patch")
		v += rapid.SampledFrom([]string{"", "-0", "-1", "-10", "-9", "-rc.1", "-rc.1.0", "-rc.10", "-a", "-a-1", "-1a"}).Draw(t, "pre")
		return v + rapid.SampledFrom([]string{"", "+b", "+1.a"}).Draw(t, "build")
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := version.Draw(t, "a"), version.Draw(t, "b")
		if got, want := Older(a, b), semver.Compare("v"+a, "v"+b) < 0; got != want {
			t.Fatalf("%s before %s: %v", a, b, got)
		}
	})
}

func TestKey_TermsAndStates(t *testing.T) {
	k := newSigner(t, "tester").row
	for name, c := range map[string]struct {
		use           Use
		from, expires time.Time
		names         []string
		kind          fault.Kind
	}{
		"an unknown use":         {use: "both", kind: fault.Invalid},
		"expired already":        {use: UsePackage, expires: today, kind: fault.Invalid},
		"over before it begins":  {use: UsePackage, from: today.AddDate(1, 0, 0), expires: today.AddDate(0, 6, 0), kind: fault.Invalid},
		"in the next century":    {use: UsePackage, expires: today.AddDate(80, 0, 0), kind: fault.Invalid},
		"patterns for agentkms":  {use: UseAgentKMS, kind: fault.Invalid},
		"a name with a wildcard": {use: UseAgentKMS, names: []string{"honey*"}, kind: fault.Invalid},
	} {
		k := k
		if c.names != nil {
			k.Names = c.names
		}
		if _, err := k.Limited(c.use, c.from, c.expires); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	revoked, err := k.Revoke("stolen", "op", today)
	if err != nil || revoked.State != Revoked || revoked.Version != 2 || revoked.Reason != "stolen" {
		t.Fatalf("%+v, %v", revoked, err)
	}
	if _, err := revoked.Again(k); !fault.Is(err, fault.Conflict) {
		t.Errorf("a revoked key is trusted again: %v", err)
	}
	for name, next := range map[string]func(Key) (Key, error){
		"remove": func(k Key) (Key, error) { return k.Remove("op", today) },
		"retire": func(k Key) (Key, error) { return k.Retire("op", today) },
		"revoke": func(k Key) (Key, error) { return k.Revoke("", "op", today) },
	} {
		if _, err := next(revoked); !fault.Is(err, fault.Conflict) {
			t.Errorf("%s of a revoked key: %v", name, err)
		}
	}
	removed, err := k.Remove("op", today)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := removed.Again(k); err != nil || again.State != Active || again.Version != 3 {
		t.Errorf("a removed key: %+v, %v", again, err)
	}
	if _, err := removed.Revoke("turned out to be stolen", "op", today); err != nil {
		t.Errorf("a removed key cannot be revoked: %v", err)
	}
	if _, err := k.Again(k); !fault.Is(err, fault.Conflict) {
		t.Errorf("trusting on the same terms: %v", err)
	}
}

// TestStore_NoMixAndMatch puts one package's files behind another's manifest: a
// manifest and its files only come together.
func TestStore_NoMixAndMatch(t *testing.T) {
	p := newPublisher(t)
	old, next := testManifest("x"), testManifest("x")
	next.Version = "1.1.0"
	touched := t.TempDir() + "/touched"
	data, err := os.ReadFile(fixtureBinary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(touched, append(data, 0), 0o755); err != nil { // an executable
		t.Fatal(err)
	}
	read := func(file string) []byte {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	a, b := read(p.pack(t, old, fixtureBinary)), read(p.pack(t, next, touched))
	file := bytes.Index(a, []byte("\x7fELF")) - tarBlock
	head := bytes.Index(b, []byte("\x7fELF")) - tarBlock
	mixed := append(bytes.Clone(b[:head]), a[file:]...)
	if _, err := newStore(t).Install(bytes.NewReader(mixed), p.trust); ReasonOf(err) != ReasonDigest {
		t.Fatalf("the old files behind the new manifest: %v", err)
	}
}

func TestAsks_SaysWhatIsNew(t *testing.T) {
	m := testManifest("x")
	before := Asks(m, manifest.ForServer)
	m.Capabilities.Network = []string{"sts.example.org:443"}
	m.Capabilities.MemoryMB, m.Effects = 256, manifest.EffectsRemote
	got := NewAsks(Asks(m, manifest.ForServer), before)
	if want := []string{"effects remote", "memory 256 MB", "network sts.example.org:443"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestBare_SignaturesStayApart takes an AgentKMS signature for a package's, and
// for another name.
func TestBare_SignaturesStayApart(t *testing.T) {
	s := newSigner(t, "tester", "akmslean")
	key, err := s.row.Limited(UseAgentKMS, time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(fixtureBinary)
	if err != nil {
		t.Fatal(err)
	}
	sig := ed25519.Sign(s.private, data)
	trust := Trust{Keys: []Key{key}}
	r := newRig(t, nil)
	good := Bare{
		Name: "akmslean", Publisher: "tester", Signature: sig, Kind: "fixture-akmslean",
		Roles: []string{manifest.RoleValidator, manifest.RoleVender},
	}
	e, err := r.InstallBare(t.Context(), bytes.NewReader(data), good, trust)
	if err != nil || e.Use != UseAgentKMS || !slices.Equal(e.KeyIDs, []string{key.ID}) {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := r.store.Verify(e.Digest, trust); err != nil {
		t.Fatalf("as at a start: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*Bare)
		data   []byte
		trust  Trust
		want   Reason
	}{
		"another name":          {change: func(b *Bare) { b.Name = "another" }, want: ReasonBadSignature},
		"another publisher":     {change: func(b *Bare) { b.Publisher = "another" }, want: ReasonBadSignature},
		"a flipped bit":         {data: append(bytes.Clone(data[:len(data)-1]), data[len(data)-1]^1), want: ReasonBadSignature},
		"a flipped signature":   {change: func(b *Bare) { b.Signature = append([]byte{sig[0] ^ 1}, sig[1:]...) }, want: ReasonBadSignature},
		"no signature":          {change: func(b *Bare) { b.Signature = nil }, want: ReasonBadSignature},
		"a publisher's key":     {trust: Trust{Keys: []Key{s.row}}, want: ReasonBadSignature},
		"a revoked key":         {trust: Trust{Keys: []Key{signer{row: key}.with(func(k *Key) { k.State = Revoked })}}, want: ReasonRevoked},
		"two that must sign":    {trust: Trust{Keys: []Key{key}, Thresholds: map[string]int{"tester": 2}}, want: ReasonBadSignature},
		"below the floor":       {trust: Trust{Keys: []Key{key}, Floors: map[string]string{"akmslean": "0.0.1"}}, want: ReasonRollback},
		"signed by nobody here": {trust: Trust{}, want: ReasonBadSignature},
	} {
		b := good
		if c.change != nil {
			c.change(&b)
		}
		if c.data == nil {
			c.data = data
		}
		if c.trust.Keys == nil && name != "signed by nobody here" {
			c.trust = trust
		}
		if _, err := r.InstallBare(t.Context(), bytes.NewReader(c.data), b, c.trust); ReasonOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	// As a package: the entry's own manifest and envelope in front of the file.
	h, err := r.store.head(e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir() + "/legacy.spk"
	if err := createPackage(out, h, func(w io.Writer) error {
		return writeEntry(w, e.Manifest.Files[0].Path, 0o755, e.Manifest.Files[0].Size, bytes.NewReader(data))
	}); err != nil {
		t.Fatal(err)
	}
	legacy, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Install(bytes.NewReader(legacy), trust); ReasonOf(err) != ReasonBadSignature {
		t.Errorf("as a package: %v", err)
	}
	if r, err := Verify(out, trust); ReasonOf(err) != ReasonBadSignature || r.Verified != nil {
		t.Errorf("as a package, before it is published: %+v, %v", r, err)
	}
	// The raw signature in a package's envelope, by a key for packages.
	m := manifestBytes(t, testManifest("x"))
	raw := sealEnvelope(manifest.PayloadType, m)
	raw.Signatures = []signature{{KeyID: s.row.ID, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(s.private, m))}}
	envelopeBytes, err := raw.bytes()
	if err != nil {
		t.Fatal(err)
	}
	wide := s.row
	wide.Names = []string{"*"}
	if _, err := (Trust{Keys: []Key{wide}}).verify(m, envelopeBytes, forInstall); ReasonOf(err) != ReasonBadSignature {
		t.Errorf("a raw signature over a manifest: %v", err)
	}
}

// TestBare_IsAskedForItsRoles installs an executable that says itself what it is.
func TestBare_IsAskedForItsRoles(t *testing.T) {
	s := newSigner(t, "tester", "akmslean")
	key, err := s.row.Limited(UseAgentKMS, time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(fixtureBinary)
	if err != nil {
		t.Fatal(err)
	}
	trust := Trust{Keys: []Key{key}, Locked: map[string]string{}}
	b := Bare{Name: "akmslean", Publisher: "tester", Signature: ed25519.Sign(s.private, data)}
	r := newRig(t, nil)
	if _, err := r.InstallBare(t.Context(), bytes.NewReader(data), b, trust); ReasonOf(err) != ReasonNotLocked {
		t.Fatalf("an executable that is not locked: %v", err)
	}
	trust.Locked = nil
	e, err := r.InstallBare(t.Context(), bytes.NewReader(data), b, trust)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(e.Manifest.Roles, []string{manifest.RoleValidator, manifest.RoleVender}) || e.Manifest.Kinds[0] != "fixture-akmslean" {
		t.Errorf("%v for %v", e.Manifest.Roles, e.Manifest.Kinds)
	}
	again, err := r.InstallBare(t.Context(), bytes.NewReader(data), b, trust)
	if err != nil || again.Digest != e.Digest {
		t.Errorf("the same once more: %s, %v", again.Digest, err)
	}
	if list, err := r.store.List(); err != nil || len(list) != 1 {
		t.Errorf("the draft is left: %+v, %v", list, err)
	}
	row, err := NewInstalled(e, nil, "test", today)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Sync(t.Context(), []Installed{row}, trust); err != nil {
		t.Fatal(err)
	}
	warm(t, r.provider(t, "fixture-akmslean"), "fixture-akmslean")
}

func FuzzBareManifest(f *testing.F) {
	f.Add([]byte(`{"services":["scope_validator","credential-vender"],"kind":"honeytoken","version":"v1.2.3","more":{"a":1}}`))
	f.Add([]byte(`{"roles":["x"],"roles":["y"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ReadBareManifest(data, Bare{})
		if err != nil {
			return
		}
		for _, r := range b.Roles {
			if !slices.Contains(bareRoles, r) {
				t.Fatalf("role %q", r)
			}
		}
	})
}
