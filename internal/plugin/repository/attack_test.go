package repository

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// forgery is a repository whose every file can be made anew, by whoever has the
// keys for it.
type forgery struct {
	t         *testing.T
	files     map[string][]byte
	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	uploads   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]
}

// forge copies the repository as it is.
func (w *world) forge() *forgery {
	w.t.Helper()
	f := &forgery{t: w.t, files: map[string][]byte{}}
	names, err := filepath.Glob(filepath.Join(w.dir.path, "metadata", "*.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, n := range names {
		if f.files["metadata/"+filepath.Base(n)], err = os.ReadFile(n); err != nil {
			w.t.Fatal(err)
		}
	}
	c, err := w.dir.load()
	if err != nil {
		w.t.Fatal(err)
	}
	f.root, f.targets, f.uploads, f.snapshot, f.timestamp = c.root, c.roles[RoleTargets], c.roles[RoleUploads], c.snapshot, c.timestamp
	return f
}

func (f *forgery) get(_ context.Context, name string, limit int64) ([]byte, error) {
	data, ok := f.files[name]
	if !ok {
		return nil, fault.NotFoundf("no %s", name)
	}
	return bounded(bytes.NewReader(data), name, limit)
}

// put signs metadata with the keys of names and puts it in its place.
func put[T metadata.Roles](f *forgery, role string, version int64, m *metadata.Metadata[T], names ...string) []byte {
	f.t.Helper()
	keys := all(names...)
	var ids []string
	for id := range keys {
		ids = append(ids, id)
	}
	if _, err := sign(m, keys, ids); err != nil {
		f.t.Fatal(err)
	}
	data, err := encode(m)
	if err != nil {
		f.t.Fatal(err)
	}
	f.files[metadataName(role, version)] = data
	return data
}

// chain signs targets and uploads as they are now in their next version, and
// what is above them.
func (f *forgery) chain() {
	f.targets.Signed.Version++
	f.uploads.Signed.Version++
	f.describe(RoleTargets, f.targets.Signed.Version, put(f, RoleTargets, f.targets.Signed.Version, f.targets, "targets1", "targets2"))
	f.describe(RoleUploads, f.uploads.Signed.Version, put(f, RoleUploads, f.uploads.Signed.Version, f.uploads, "uploads"))
	f.top()
}

func (f *forgery) describe(role string, version int64, data []byte) {
	f.snapshot.Signed.Meta[role+".json"] = describe(version, data)
}

// top signs the snapshot as it is now in its next version, and the timestamp.
func (f *forgery) top() {
	f.snapshot.Signed.Version++
	data := put(f, RoleSnapshot, f.snapshot.Signed.Version, f.snapshot, "snapshot")
	f.timestamp.Signed.Version++
	f.timestamp.Signed.Meta[RoleSnapshot+".json"] = describe(f.snapshot.Signed.Version, data)
	put(f, RoleTimestamp, 0, f.timestamp, "timestamp")
}

// refused demands that a walk ends with a reason, and that nothing was seen.
func (w *world) refused(get Getter, want plugin.Reason) {
	w.t.Helper()
	v, err := w.walk(get)
	if reason, _ := plugin.Reasoned(err); reason != want {
		w.t.Fatalf("reason %q, want %q: %v", reason, want, err)
	}
	if v.Seen.Root != nil || len(v.Releases) > 0 {
		w.t.Fatal("a refused repository was seen")
	}
}

// seenWorld has two packages, of which a client has seen the second state; old
// is the first.
func seenWorld(t *testing.T) (w *world, old, now *forgery) {
	w = newWorld(t)
	w.publish("one", "1.0.0")
	old = w.forge()
	w.publish("one", "1.1.0")
	w.look()
	return w, old, w.forge()
}

func TestAttack_ForgeriesThatAreNoneAreFound(t *testing.T) { // the tools of the tests below work
	w, _, f := seenWorld(t)
	f.chain()
	if v, err := w.walk(f.get); err != nil || len(v.Releases) != 2 {
		t.Fatalf("%d releases, %v", len(v.Releases), err)
	}
}

func TestAttack_RollbackOfTimestamp(t *testing.T) {
	w, old, _ := seenWorld(t)
	w.refused(old.get, plugin.ReasonRollback)
}

func TestAttack_RollbackOfSnapshot(t *testing.T) {
	w, old, now := seenWorld(t)
	data := old.files[metadataName(RoleSnapshot, old.snapshot.Signed.Version)]
	now.timestamp.Signed.Version++
	now.timestamp.Signed.Meta[RoleSnapshot+".json"] = describe(old.snapshot.Signed.Version, data)
	put(now, RoleTimestamp, 0, now.timestamp, "timestamp")
	w.refused(now.get, plugin.ReasonRollback)
}

func TestAttack_RollbackOfTargets(t *testing.T) {
	w, old, now := seenWorld(t)
	v := old.targets.Signed.Version
	now.describe(RoleTargets, v, old.files[metadataName(RoleTargets, v)])
	now.top()
	w.refused(now.get, plugin.ReasonRollback)
}

func TestAttack_SameTimestampVersionWithAnotherContentIsNotBelieved(t *testing.T) {
	w, _, now := seenWorld(t)
	now.targets.Signed.Targets = map[string]*metadata.TargetFiles{}
	now.chain()
	now.timestamp.Signed.Version--
	put(now, RoleTimestamp, 0, now.timestamp, "timestamp")
	v, err := w.walk(now.get)
	if err != nil || len(v.Releases) != 2 {
		t.Fatalf("%d releases, %v", len(v.Releases), err)
	}
}

func TestAttack_Freeze(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		fresh func(f *forgery, at time.Time) // what the thief of some keys can renew
	}{
		"timestamp": {2 * day, func(*forgery, time.Time) {}},
		"snapshot": {8 * day, func(f *forgery, at time.Time) {
			f.timestamp.Signed.Version, f.timestamp.Signed.Expires = f.timestamp.Signed.Version+1, at.Add(day)
			put(f, RoleTimestamp, 0, f.timestamp, "timestamp")
		}},
		"targets": {91 * day, func(f *forgery, at time.Time) {
			f.timestamp.Signed.Expires, f.snapshot.Signed.Expires = at.Add(day), at.Add(day)
			f.top()
		}},
		"root": {366 * day, func(f *forgery, at time.Time) {
			f.timestamp.Signed.Expires, f.snapshot.Signed.Expires = at.Add(day), at.Add(day)
			f.targets.Signed.Expires, f.uploads.Signed.Expires = at.Add(day), at.Add(day)
			f.chain()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w, _, now := seenWorld(t)
			w.at = w.at.Add(c.after)
			c.fresh(now, w.at)
			w.refused(now.get, plugin.ReasonStale)
			w.seen = plugin.Seen{Root: w.seen.Root} // for a new client too
			w.refused(now.get, plugin.ReasonStale)
		})
	}
}

func TestAttack_MixAndMatch(t *testing.T) {
	w, _, now := seenWorld(t)
	for _, role := range []string{RoleTargets, RoleUploads, RoleSnapshot} {
		t.Run(role, func(t *testing.T) {
			w.t = t
			now.top()
			mixed := *now
			mixed.files = map[string][]byte{}
			for n, d := range now.files {
				mixed.files[n] = d
			}
			name := metadataName(role, map[string]int64{
				RoleTargets: now.targets.Signed.Version, RoleUploads: now.uploads.Signed.Version, RoleSnapshot: now.snapshot.Signed.Version,
			}[role])
			mixed.files[name] = bytes.Replace(now.files[name], []byte("\n"), []byte(" "), 1) // the same, otherwise written
			w.refused(mixed.get, plugin.ReasonDigest)
		})
	}
}

func TestAttack_FastForwardIsRecoveredByAnotherKey(t *testing.T) {
	w, _, thief := seenWorld(t)
	thief.timestamp.Signed.Version = 1 << 40
	thief.snapshot.Signed.Version = 1 << 40
	thief.top()
	v, err := w.walk(thief.get)
	if err != nil {
		t.Fatal(err)
	}
	w.seen = v.Seen
	w.refused(w.get, plugin.ReasonRollback) // the true one
	_, err = w.dir.Rekey(context.Background(), Rekey{Role: RoleTimestamp, Add: pub("timestamp2"), Remove: []string{KeyID(pub("timestamp")[0])}},
		all(append(every, "timestamp2")...))
	if err != nil {
		t.Fatal(err)
	}
	if v := w.look(); len(v.Releases) != 2 {
		t.Fatalf("%d releases", len(v.Releases))
	}
	w.refused(thief.get, plugin.ReasonBadSignature) // what the thief signs counts no more
}

func TestAttack_TargetsThatAreNotWhatTheyMustBe(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *metadata.TargetsType)
		want   plugin.Reason
	}{
		"oversized package": {func(s *metadata.TargetsType) { s.Targets["one/1.1.0.spk"].Length = MaxPackage + 1 }, plugin.ReasonIncompatible},
		"empty package":     {func(s *metadata.TargetsType) { s.Targets["one/1.1.0.spk"].Length = 0 }, plugin.ReasonIncompatible},
		"no sha256": {func(s *metadata.TargetsType) {
			s.Targets["one/1.1.0.spk"].Hashes = metadata.Hashes{"sha512": make([]byte, 64)}
		}, plugin.ReasonIncompatible},
		"another name in its description": {func(s *metadata.TargetsType) {
			s.Targets["two/1.1.0.spk"] = s.Targets["one/1.1.0.spk"]
		}, plugin.ReasonIncompatible},
		"no description": {func(s *metadata.TargetsType) { s.Targets["one/1.1.0.spk"].Custom = nil }, plugin.ReasonIncompatible},
		"control characters": {func(s *metadata.TargetsType) {
			raw := json.RawMessage(strings.Replace(string(*s.Targets["one/1.1.0.spk"].Custom), "The package", `The \u001b[2J`, 1))
			s.Targets["one/1.1.0.spk"].Custom = &raw
		}, plugin.ReasonIncompatible},
		"succinct delegations": {func(s *metadata.TargetsType) {
			s.Delegations.Roles, s.Delegations.SuccinctRoles = nil, &metadata.SuccinctRoles{KeyIDs: []string{"x"}, Threshold: 1, BitLength: 31, NamePrefix: "a"}
		}, plugin.ReasonIncompatible},
		"delegation without paths": {func(s *metadata.TargetsType) { s.Delegations.Roles[0].Paths = nil }, plugin.ReasonIncompatible},
		"delegation called root":   {func(s *metadata.TargetsType) { s.Delegations.Roles[0].Name = RoleRoot }, plugin.ReasonIncompatible},
		"delegation as a path":     {func(s *metadata.TargetsType) { s.Delegations.Roles[0].Name = "../x" }, plugin.ReasonIncompatible},
	} {
		t.Run(name, func(t *testing.T) {
			w, _, now := seenWorld(t)
			c.change(&now.targets.Signed)
			now.chain()
			w.refused(now.get, c.want)
		})
	}
	for _, path := range []string{
		"../one/1.0.0.spk", "/one/1.0.0.spk", "one/../1.0.0.spk", "one//1.0.0.spk", "one/1.0.0.spk/", `one\1.0.0.spk`, "one/1.0.0", "ONE/1.0.0.spk",
		"one/1.spk", "one/..spk", "one/1.0.0.spk\x00", "a/one/1.0.0.spk", "one%2f1.0.0.spk", "",
	} {
		t.Run(fmt.Sprintf("path %q", path), func(t *testing.T) {
			w, _, now := seenWorld(t)
			now.targets.Signed.Targets[path] = now.targets.Signed.Targets["one/1.1.0.spk"]
			now.chain()
			w.refused(now.get, plugin.ReasonIncompatible)
		})
	}
}

func TestAttack_DelegationOutsideOfItsPaths(t *testing.T) {
	w, _, now := seenWorld(t)
	now.uploads.Signed.Targets["one/1.1.0.spk"] = now.targets.Signed.Targets["one/1.1.0.spk"]
	now.chain()
	w.refused(now.get, plugin.ReasonBadSignature)
}

func TestAttack_DelegatedRoleDelegatesFurther(t *testing.T) {
	w, _, now := seenWorld(t)
	now.uploads.Signed.Delegations = now.targets.Signed.Delegations
	now.chain()
	w.refused(now.get, plugin.ReasonIncompatible)
}

func TestAttack_MissingTargetsInNewSnapshot(t *testing.T) {
	for _, role := range []string{RoleTargets, RoleUploads} {
		t.Run(role, func(t *testing.T) {
			w, _, now := seenWorld(t)
			delete(now.snapshot.Signed.Meta, role+".json")
			now.top()
			w.refused(now.get, plugin.ReasonRollback)
			w.seen = plugin.Seen{Root: w.seen.Root}
			w.refused(now.get, plugin.ReasonRollback)
		})
	}
}

func TestAttack_WrongKeys(t *testing.T) {
	for name, c := range map[string]func(f *forgery){
		"timestamp by the snapshot's key": func(f *forgery) {
			f.timestamp.Signed.Version++
			put(f, RoleTimestamp, 0, f.timestamp, "snapshot")
		},
		"targets by one of two": func(f *forgery) {
			f.targets.Signed.Version++
			f.describe(RoleTargets, f.targets.Signed.Version, put(f, RoleTargets, f.targets.Signed.Version, f.targets, "targets1"))
			f.top()
		},
		"targets by one key and a stranger": func(f *forgery) {
			f.targets.Signed.Version++
			f.describe(RoleTargets, f.targets.Signed.Version, put(f, RoleTargets, f.targets.Signed.Version, f.targets, "targets1", "mallory"))
			f.top()
		},
		"uploads by the targets' keys": func(f *forgery) {
			f.uploads.Signed.Version++
			f.describe(RoleUploads, f.uploads.Signed.Version, put(f, RoleUploads, f.uploads.Signed.Version, f.uploads, "targets1", "targets2"))
			f.top()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _, now := seenWorld(t)
			c(now)
			w.refused(now.get, plugin.ReasonBadSignature)
		})
	}
}

func TestAttack_Roots(t *testing.T) {
	three := []string{"root1", "root2", "root3"}
	for name, c := range map[string]struct {
		change func(s *metadata.RootType)
		by     []string
		want   plugin.Reason
	}{
		"not the next":   {func(s *metadata.RootType) { s.Version = 3 }, three, plugin.ReasonRollback},
		"the same again": {func(s *metadata.RootType) { s.Version = 1 }, three, plugin.ReasonRollback},
		"too few":        {func(*metadata.RootType) {}, three[:1], plugin.ReasonBadSignature},
		"by its own new keys": {func(s *metadata.RootType) {
			s.Roles[RoleRoot].KeyIDs = nil
			for _, n := range []string{"m1", "m2"} {
				k, _ := metadata.KeyFromPublicKey(pub(n)[0])
				_ = s.AddKey(k, RoleRoot)
			}
		}, []string{"m1", "m2"}, plugin.ReasonBadSignature},
		"one key in two roles": {func(s *metadata.RootType) {
			s.Roles[RoleTargets].KeyIDs = append(s.Roles[RoleTargets].KeyIDs, s.Roles[RoleTimestamp].KeyIDs[0])
		}, three, plugin.ReasonIncompatible},
		"one key under two ids": {func(s *metadata.RootType) {
			s.Keys[hex.EncodeToString(make([]byte, 32))] = s.Keys[s.Roles[RoleRoot].KeyIDs[0]]
		}, three, plugin.ReasonIncompatible},
		"one id twice": {func(s *metadata.RootType) {
			s.Roles[RoleRoot].KeyIDs = append(s.Roles[RoleRoot].KeyIDs, s.Roles[RoleRoot].KeyIDs[0])
		}, three, plugin.ReasonIncompatible},
		"threshold 0":           {func(s *metadata.RootType) { s.Roles[RoleTargets].Threshold = 0 }, three, plugin.ReasonIncompatible},
		"no consistent files":   {func(s *metadata.RootType) { s.ConsistentSnapshot = false }, three, plugin.ReasonIncompatible},
		"a key of another kind": {func(s *metadata.RootType) { s.Keys[s.Roles[RoleRoot].KeyIDs[0]].Scheme = "rsa" }, three, plugin.ReasonIncompatible},
		"expired":               {func(s *metadata.RootType) { s.Expires = s.Expires.Add(-400 * day) }, three, plugin.ReasonStale},
	} {
		t.Run(name, func(t *testing.T) {
			w, _, now := seenWorld(t)
			now.root.Signed.Version++
			now.root.Signatures = nil
			c.change(&now.root.Signed)
			put(now, RoleRoot, 2, now.root, c.by...)
			w.refused(now.get, c.want)
		})
	}
}

func TestAttack_NullsBreakNothing(t *testing.T) {
	w, _, now := seenWorld(t)
	for name, data := range now.files {
		if strings.Contains(name, ".root.") {
			continue
		}
		for _, from := range []string{`"meta": {`, `"targets": {`, `"delegations": {`, `"signatures": [`} {
			broken := *now
			broken.files = map[string][]byte{}
			for n, d := range now.files {
				broken.files[n] = d
			}
			add := map[byte]string{'{': `"x": null,`, '[': `null,`}[from[len(from)-1]]
			broken.files[name] = bytes.Replace(data, []byte(from), []byte(from+add), 1)
			if bytes.Equal(broken.files[name], data) {
				continue
			}
			if _, err := w.walk(broken.get); err == nil && strings.Contains(name, "timestamp") {
				t.Errorf("%s with a null in %s was accepted", name, from)
			}
		}
	}
}

func TestClient_FollowsRootsThatWereRotatedWhileItWasAway(t *testing.T) {
	w, _, _ := seenWorld(t)
	for i, n := range []string{"root4", "root5"} {
		_, err := w.dir.Rekey(context.Background(), Rekey{Role: RoleRoot, Add: pub(n), Remove: []string{KeyID(pub(fmt.Sprint("root", i+1))[0])}},
			all(append(every, "root3", "root4", "root5")...))
		if err != nil {
			t.Fatal(err)
		}
	}
	if v := w.look(); v.Versions[RoleRoot] != 3 || len(v.Releases) != 2 {
		t.Fatalf("root %d, %d releases", v.Versions[RoleRoot], len(v.Releases))
	}
}
