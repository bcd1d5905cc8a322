package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// stage puts metadata among what waits, as whoever can write the folder does.
func stage[T metadata.Roles](w *world, role string, m *metadata.Metadata[T]) {
	w.t.Helper()
	m.Signatures = []metadata.Signature{}
	data, err := encode(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(w.dir.path, filepath.FromSlash(staged(role))), data, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestAttack_ServerSignsNothingThatAStrangerStaged: whoever writes the folder has
// not the keys, and gets no signature of a server that nobody watches. What the
// server has signed itself goes on, and so does what offers nothing else than before.
func TestAttack_ServerSignsNothingThatAStrangerStaged(t *testing.T) {
	w := newWorld(t)
	ctx, keys := context.Background(), all(online...)
	if _, _, err := w.dir.Publish(ctx, pack(t, "up-one", "1.0.0"), RoleUploads, keys); err != nil {
		t.Fatal(err)
	}
	depot, err := OpenDepot(ctx, w.dir.path, keys, w.now)
	if err != nil {
		t.Fatal(err)
	}
	f := w.forge()
	f.uploads.Signed.Version++
	f.uploads.Signed.Targets["up-evil/1.0.0.spk"] = evil(t, f)
	stage(w, RoleUploads, f.uploads)
	w.at = w.at.Add(50 * day) // uploads are due
	offers := func(want ...string) {
		t.Helper()
		var got []string
		for _, r := range w.look().Releases {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the repository offers %v, want %v", got, want)
		}
	}
	if err := depot.refresh(ctx); err != nil {
		t.Fatal(err)
	}
	offers("up-one")
	stage(w, RoleUploads, f.uploads)
	if _, _, err := depot.dir.Publish(ctx, pack(t, "up-two", "1.0.0"), RoleUploads, keys); err != nil {
		t.Fatal(err)
	}
	offers("up-one", "up-two")

	// A rotation of the server's own key waits unsigned, and goes on.
	if _, err := w.dir.Rekey(ctx, Rekey{Role: RoleUploads, Add: pub("uploads2")}, all("targets1", "targets2")); err != nil {
		t.Fatal(err)
	}
	depot, err = OpenDepot(ctx, w.dir.path, all("snapshot", "timestamp", "uploads2"), w.now)
	if err != nil {
		t.Fatal(err)
	}
	if err := depot.refresh(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := depot.dir.Publish(ctx, pack(t, "up-two", "1.1.0"), RoleUploads, depot.keys); err != nil {
		t.Fatal(err)
	}
	offers("up-one", "up-two", "up-two")
}

// evil describes a package that nobody brought.
func evil(t *testing.T, f *forgery) *metadata.TargetFiles {
	t.Helper()
	r, why := release("up-one/1.0.0.spk", f.uploads.Signed.Targets["up-one/1.0.0.spk"], RoleUploads)
	if why != "" {
		t.Fatal(why)
	}
	r.Name, r.SHA256 = "up-evil", strings.Repeat("e", 64)
	out, err := targetOf(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestStatus_ShowsAllThatASignatureWouldSay: of k holders one may be a thief, who
// stages something else than is talked about. Whatever it is, the others see it.
func TestStatus_ShowsAllThatASignatureWouldSay(t *testing.T) {
	mallory := pub("mallory")[0]
	stranger, err := metadata.KeyFromPublicKey(mallory)
	if err != nil {
		t.Fatal(err)
	}
	id := KeyID(mallory)
	described := func(f *forgery, path, old, by string) {
		t.Helper()
		custom := f.targets.Signed.Targets[path].Custom
		var plain bytes.Buffer
		if err := json.Compact(&plain, *custom); err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(plain.String(), old, by, 1)
		if text == plain.String() {
			t.Fatalf("there is no %s in %s", old, text)
		}
		*custom = []byte(text)
	}
	for name, c := range map[string]struct {
		change func(f *forgery)
		want   []string
	}{
		"nothing":         {func(*forgery) {}, nil},
		"a withdrawn one": {func(f *forgery) { described(f, "one/1.1.0.spk", `,"yanked":"it leaks"`, "") }, []string{"OFFER AGAIN one 1.1.0, which was withdrawn: it leaks"}},
		"another reason":  {func(f *forgery) { described(f, "one/1.1.0.spk", "it leaks", "it is old") }, []string{"withdraw one 1.1.0: it is old"}},
		"another summary": {func(f *forgery) { described(f, "one/1.0.0.spk", "The package one", "One") }, []string{"describe one 1.0.0 otherwise"}},
		"a floor": {
			func(f *forgery) { described(f, "one/1.0.0.spk", `"summary"`, `"min_secure_version":"0.9.0","summary"`) },
			[]string{`one 1.0.0 calls 0.9.0 the least secure version, not none`},
		},
		"a member that is not known": {func(f *forgery) { described(f, "one/1.0.0.spk", `"summary"`, `"more":1,"summary"`) }, []string{"describe one 1.0.0 otherwise"}},
		"another publisher":          {func(f *forgery) { described(f, "one/1.0.0.spk", `"acme"`, `"evil"`) }, []string{"say that one 1.0.0 is of publisher evil, not acme"}},
		"a key of uploads": {func(f *forgery) {
			d := f.targets.Signed.Delegations
			d.Keys[id], d.Roles[0].KeyIDs = stranger, append(d.Roles[0].KeyIDs, id)
		}, []string{"give role uploads to key " + id}},
		"names of uploads": {
			func(f *forgery) { f.targets.Signed.Delegations.Roles[0].Paths = []string{"*/*.spk"} },
			[]string{"give */*.spk to role uploads", "take up-*/*.spk from role uploads"},
		},
		"another role": {func(f *forgery) {
			d := f.targets.Signed.Delegations
			d.Keys[id] = stranger
			d.Roles = append(d.Roles, metadata.DelegatedRole{Name: "evil", KeyIDs: []string{id}, Threshold: 1, Paths: []string{"one/*.spk"}})
		}, []string{"give role evil to key " + id, "role evil needs 1 signatures, not 0", "give one/*.spk to role evil"}},
		"no delegation": {
			func(f *forgery) { f.targets.Signed.Delegations = nil },
			[]string{"take role uploads from key " + KeyID(pub("uploads")[0]), "role uploads needs 0 signatures, not 1", "take up-*/*.spk from role uploads"},
		},
		"what this program does not know": {
			func(f *forgery) { f.targets.Signed.UnrecognizedFields = map[string]any{"x": "y"} },
			[]string{"something that this program cannot show: do not sign it"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.publish("one", "1.0.0")
			w.publish("one", "1.1.0")
			if _, err := w.dir.Yank(context.Background(), "one", "1.1.0", "it leaks", all(every...)); err != nil {
				t.Fatal(err)
			}
			f := w.forge()
			f.targets.Signed.Version++
			c.change(f)
			stage(w, RoleTargets, f.targets)
			w.shows(c.want)
		})
	}
	root := func(change func(s *metadata.RootType)) func(t *testing.T, w *world) {
		return func(t *testing.T, w *world) {
			t.Helper()
			f := w.forge()
			f.root.Signed.Version++
			f.root.Signed.Expires = f.root.Signed.Expires.Add(time.Hour)
			change(&f.root.Signed)
			stage(w, RoleRoot, f.root)
		}
	}
	for name, c := range map[string]struct {
		stage func(t *testing.T, w *world)
		want  []string
	}{
		"a longer life": {root(func(*metadata.RootType) {}), nil},
		"a key": {root(func(s *metadata.RootType) {
			s.Keys[id], s.Roles[RoleRoot].KeyIDs = stranger, append(s.Roles[RoleRoot].KeyIDs, id)
		}), []string{"give role root to key " + id}},
		"a threshold":   {root(func(s *metadata.RootType) { s.Roles[RoleTargets].Threshold = 1 }), []string{"role targets needs 1 signatures, not 2"}},
		"one key fewer": {root(func(s *metadata.RootType) { s.Roles[RoleTargets].KeyIDs = s.Roles[RoleTargets].KeyIDs[1:] }), []string{"take role targets from key " + KeyID(pub("targets1")[0])}},
	} {
		t.Run("root: "+name, func(t *testing.T) {
			w := newWorld(t)
			c.stage(t, w)
			w.shows(append(slices.Clone(c.want), "good until "))
		})
	}
}

// shows demands what the holders of keys are shown of the one file that waits.
func (w *world) shows(want []string) {
	w.t.Helper()
	s, err := w.dir.Status(context.Background())
	if err != nil || len(s.Staged) != 1 {
		w.t.Fatalf("%+v, %v", s.Staged, err)
	}
	got := s.Staged[0].Changes
	if !slices.EqualFunc(got, want, func(g, w string) bool { return g == w || strings.HasSuffix(w, " ") && strings.HasPrefix(g, w) }) {
		w.t.Errorf("shown are %q, want %q", got, want)
	}
}
