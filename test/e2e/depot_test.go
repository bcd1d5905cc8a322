package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-project/sallyport/internal/plugin/repository"
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
