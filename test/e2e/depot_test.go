package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/repository"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// newRepository makes a plugin repository whose uploads may have every name, and
// returns the folder, and the member of a configuration by which a server keeps it.
func newRepository(t testing.TB) (folder string, config map[string]any) {
	t.Helper()
	var plan repository.Plan
	var private []ed25519.PrivateKey
	keys := filepath.Join(t.TempDir(), "keys")
	must(t, os.Mkdir(keys, 0o700))
	for role, h := range map[string]*repository.Holders{
		repository.RoleRoot: &plan.Root, repository.RoleTargets: &plan.Targets, repository.RoleSnapshot: &plan.Snapshot,
		repository.RoleTimestamp: &plan.Timestamp, repository.RoleUploads: &plan.Uploads,
	} {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		h.Keys, private = append(h.Keys, pub), append(private, key)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(keys, role+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	}
	plan.UploadNames = []string{"*"}
	folder = filepath.Join(t.TempDir(), "repository")
	_, _, err := repository.Init(t.Context(), folder, plan, repository.NewKeys(private...), nil)
	must(t, err)
	return folder, map[string]any{"dir": folder, "keys": keys}
}

// repositoryRoot is the root of a new plugin repository.
func repositoryRoot(t testing.TB) []byte {
	t.Helper()
	folder, _ := newRepository(t)
	root, err := os.ReadFile(filepath.Join(folder, "metadata", "1.root.json"))
	must(t, err)
	return root
}

// press makes packages of one publisher, all signed by one key. Nobody runs them.
type press struct {
	t       testing.TB
	dir     string
	private ed25519.PrivateKey
	public  string
}

func newPress(t testing.TB) *press {
	t.Helper()
	p := &press{t: t, dir: t.TempDir()}
	keys, err := plugin.Keygen(filepath.Join(p.dir, "key"))
	must(t, err)
	text, err := os.ReadFile(keys.Private)
	must(t, err)
	p.private, err = plugin.ParsePrivateKey(text)
	must(t, err)
	public, err := os.ReadFile(keys.Public)
	must(t, err)
	p.public = string(public)
	return p
}

// print makes a package whose one file has the given content.
func (p *press) print(version, content string) []byte {
	p.t.Helper()
	program, err := os.CreateTemp(p.dir, "program")
	must(p.t, err)
	must(p.t, done(program.WriteString(content)))
	must(p.t, program.Close())
	file := program.Name() + ".spk"
	_, err = plugin.Build(plugin.Spec{Manifest: manifest.Manifest{
		Schema: manifest.Schema, Name: "printed", Version: version, Publisher: "press", Contract: manifest.ContractSallyport,
		HostAPI: manifest.Range{Min: 1, Max: 1}, Roles: []string{manifest.RoleVender}, Kinds: []string{"printed-token"},
		Effects: manifest.EffectsNone, Revocation: manifest.Revocation{Needs: manifest.NeedsNone}, Tier: "Free", Audience: "any",
	}, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: program.Name()}}}, file)
	must(p.t, err)
	must(p.t, done(plugin.Sign(file, p.private)))
	pack, err := os.ReadFile(file)
	must(p.t, err)
	return pack
}

// token lets the press upload at a server.
func (p *press) token(w *world) sallyport.Secret {
	p.t.Helper()
	must(p.t, done(w.admin.TrustPublisher(p.t.Context(), sallyport.TrustRequest{Publisher: "press", PublicKey: p.public})))
	made, err := w.admin.CreateUploadToken(p.t.Context(), sallyport.UploadTokenRequest{Publisher: "press", Names: []string{"printed"}, TTL: time.Hour})
	must(p.t, err)
	return made.Token
}

// bring uploads a package once.
func (w *world) bring(token sallyport.Secret, body io.Reader, kind string) (reply, error) {
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "https://"+w.Main+"/plugins/upload", body)
	must(w.t, err)
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	client := w.HTTP(nil)
	defer client.CloseIdleConnections()
	return exchange(client, req)
}

// packed is the form of an upload.
func packed(t testing.TB, pack []byte) (text, kind string) {
	t.Helper()
	var b strings.Builder
	form := multipart.NewWriter(&b)
	part, err := form.CreateFormFile("plugin", "x.spk")
	must(t, err)
	must(t, done(part.Write(pack)))
	must(t, form.Close())
	return b.String(), form.FormDataContentType()
}

// bringTo uploads a package wherever it is taken, for as long as that takes, and
// returns the last answer.
func bringTo(t testing.TB, token sallyport.Secret, pack []byte, replicas ...*world) reply {
	text, kind := packed(t, pack)
	var got reply
	for n := range 600 {
		var err error
		got, err = replicas[n%len(replicas)].bring(token, strings.NewReader(text), kind)
		if err == nil && got.status != http.StatusServiceUnavailable && got.status != http.StatusTooManyRequests {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return got
}

// look reads the repository at the server.
func (w *world) look(seen *plugin.Seen) (repository.View, error) {
	client := w.HTTP(nil)
	defer client.CloseIdleConnections()
	return lookAt(w.t, "https://"+w.Main+"/plugins/repository", client, seen)
}

// lookAt reads a repository as a client does that has seen it before.
func lookAt(t testing.TB, place string, client *http.Client, seen *plugin.Seen) (repository.View, error) {
	source, err := repository.At(place, client)
	if err != nil {
		return repository.View{}, err
	}
	var v repository.View
	for late := time.Now().Add(30 * time.Second); ; time.Sleep(3 * time.Second) {
		v, err = repository.Walk(t.Context(), *seen, repository.From(source), time.Now())
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "answers 429") || time.Now().After(late) { // who looks too often waits
			return v, err
		}
	}
	*seen = v.Seen
	for _, r := range v.Releases { // each is there as a whole
		if err := repository.Download(t.Context(), source, r, io.Discard); err != nil {
			return v, fmt.Errorf("%s %s: %w", r.Name, r.Version, err)
		}
	}
	return v, nil
}

func versions(v repository.View) []string {
	var out []string
	for _, r := range v.Releases {
		out = append(out, r.Version)
	}
	slices.Sort(out)
	return out
}

// TestUploads_AtTwoReplicas brings packages to two replicas of one house at once,
// which share the repository's folder; then the one that writes is killed.
func TestUploads_AtTwoReplicas(t *testing.T) {
	databaseStarted = true
	p, reason := database()
	p.Need(t, reason)
	must(t, p.Exec(t.Context(), "postgres", "CREATE DATABASE uploads"))
	folder, own := newRepository(t)
	h := found(t, Options{DSN: p.DSN("uploads"), Config: map[string]any{"plugins": map[string]any{"repository": own}}})
	a := start(t, h)
	twin, err := h.Replica(filepath.Join(t.TempDir(), "twin"), p.DSN("uploads"))
	must(t, err)
	b := start(t, twin)
	press := newPress(t)
	token := press.token(a)
	root, err := os.ReadFile(filepath.Join(folder, "metadata", "1.root.json"))
	must(t, err)

	// Meanwhile a reader sees no version go back, and nothing by half.
	var readers, writers sync.WaitGroup
	stop := make(chan struct{})
	readers.Go(func() {
		seen := plugin.Seen{Root: root}
		for {
			if _, err := lookAt(t, folder, nil, &seen); err != nil {
				t.Errorf("a reader: %v", err)
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	const each = 4
	var mu sync.Mutex
	won := map[string]int{}
	for n := range each {
		version := fmt.Sprintf("1.%d.0", n)
		for i, first := range []*world{a, b} { // the same version twice, with other content
			other := []*world{b, a}[i]
			pack := press.print(version, fmt.Sprint("program of writer ", i))
			writers.Go(func() {
				got := bringTo(t, token, pack, first, other)
				mu.Lock()
				defer mu.Unlock()
				switch got.status {
				case http.StatusCreated:
					won[version]++
				case http.StatusConflict:
				default:
					t.Errorf("version %s is answered %d: %s", version, got.status, got.body)
				}
			})
		}
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	want := slices.Sorted(maps.Keys(won))
	if len(want) != each {
		t.Errorf("of %d versions these were taken: %v", each, want)
	}
	for v, n := range won {
		if n != 1 {
			t.Errorf("version %s was taken %d times", v, n)
		}
	}
	seen := plugin.Seen{Root: root}
	for _, w := range []*world{a, b} {
		if v, err := w.look(&seen); err != nil || !slices.Equal(versions(v), want) || v.Versions[repository.RoleUploads] != int64(each+1) {
			t.Errorf("offers %v in version %d, not %v: %v", versions(v), v.Versions[repository.RoleUploads], want, err)
		}
	}
	a.Kill() // it started first and has the lease
	if got := bringTo(t, token, press.print("2.0.0", "after the kill"), b); got.status != http.StatusCreated {
		t.Errorf("the survivor answers %d: %s", got.status, got.body)
	}
	if v, err := b.look(&seen); err != nil || len(v.Releases) != each+1 {
		t.Errorf("the survivor offers %v: %v", versions(v), err)
	}
	must(t, b.admin.RevokeUploadToken(t.Context(), tokenID(t, token), "test"))
	if got := bringTo(t, token, press.print("2.1.0", "revoked"), b); got.status != http.StatusUnauthorized {
		t.Errorf("a revoked token is answered %d: %s", got.status, got.body)
	}
}

func tokenID(t testing.TB, token sallyport.Secret) string {
	t.Helper()
	parsed, err := sallyport.ParseUploadToken(token.Reveal())
	must(t, err)
	return parsed.ID
}

// TestUpload_SurvivesKill kills the server while a package comes, and while it is
// put in place.
func TestUpload_SurvivesKill(t *testing.T) {
	folder, own := newRepository(t)
	w := start(t, found(t, Options{Config: map[string]any{"plugins": map[string]any{"repository": own}}}))
	press := newPress(t)
	token := press.token(w)
	root, err := os.ReadFile(filepath.Join(folder, "metadata", "1.root.json"))
	must(t, err)
	seen := plugin.Seen{Root: root}

	// Half of it has come.
	pack := press.print("1.0.0", strings.Repeat("a program that is long enough", 40000))
	text, kind := packed(t, pack)
	var lost sync.WaitGroup
	reader, writer := io.Pipe()
	lost.Go(func() {
		if got, err := w.bring(token, reader, kind); err == nil {
			t.Errorf("half a package is answered %d: %s", got.status, got.body)
		}
		_ = reader.CloseWithError(errors.New("the server is gone"))
	})
	must(t, done(io.WriteString(writer, text[:len(text)/2])))
	must(t, Eventually(10*time.Second, func() error {
		list, _ := filepath.Glob(filepath.Join(folder, "incoming", "*.spk"))
		for _, file := range list {
			if info, err := os.Stat(file); err == nil && info.Size() > 0 {
				return nil
			}
		}
		return errors.New("nothing has come")
	}))
	w.Kill()
	_ = writer.CloseWithError(errors.New("the server is gone"))
	lost.Wait()
	w = start(t, w.House)
	if v, err := w.look(&seen); err != nil || len(v.Releases) != 0 {
		t.Fatalf("after half a package: %v, %v", versions(v), err)
	}
	if got := bringTo(t, token, pack, w); got.status != http.StatusCreated {
		t.Fatalf("sent again it is answered %d: %s", got.status, got.body)
	}

	// It has come, and is being put in place: at whatever file the kill meets it.
	for n := range 3 {
		pack := press.print(fmt.Sprintf("1.%d.0", n+1), "short")
		text, kind := packed(t, pack)
		var out reply
		var answered atomic.Bool
		lost.Go(func() {
			out, _ = w.bring(token, strings.NewReader(text), kind)
			answered.Store(out.status != 0)
		})
		at := filepath.Join(folder, []string{"targets/printed/*", "staged/uploads.json", fmt.Sprintf("metadata/%d.uploads.json", n+3)}[n])
		before, _ := filepath.Glob(at)
		must(t, Eventually(10*time.Second, func() error {
			if now, _ := filepath.Glob(at); len(now) <= len(before) && !answered.Load() {
				return errors.New("nothing is put in place")
			}
			return nil
		}))
		w.Kill()
		lost.Wait()
		w = start(t, w.House)
		v, err := w.look(&seen)
		if err != nil || len(v.Releases) < n+1 || out.status == http.StatusCreated && len(v.Releases) != n+2 {
			t.Fatalf("after kill %d (answered %d): %v, %v", n, out.status, versions(v), err)
		}
		if got := bringTo(t, token, pack, w); got.status != http.StatusCreated {
			t.Fatalf("after kill %d it is answered %d: %s", n, got.status, got.body)
		}
		if v, err := w.look(&seen); err != nil || len(v.Releases) != n+2 {
			t.Fatalf("after kill %d and again: %v, %v", n, versions(v), err)
		}
	}
	must(t, w.Stop())
}
