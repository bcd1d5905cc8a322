package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-project/sallyport/internal/plugin/repository"
)

// repositoryRoot is the root of a new plugin repository.
func repositoryRoot(t testing.TB) []byte {
	t.Helper()
	var plan repository.Plan
	var private []ed25519.PrivateKey
	for _, h := range []*repository.Holders{&plan.Root, &plan.Targets, &plan.Snapshot, &plan.Timestamp} {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		h.Keys, private = append(h.Keys, pub), append(private, key)
	}
	folder := filepath.Join(t.TempDir(), "repository")
	_, _, err := repository.Init(t.Context(), folder, plan, repository.NewKeys(private...), nil)
	must(t, err)
	root, err := os.ReadFile(filepath.Join(folder, "metadata", "1.root.json"))
	must(t, err)
	return root
}
