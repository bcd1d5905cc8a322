package project

import (
	"context"
	"crypto/sha1" //nolint:gosec // git names its objects so; nothing is trusted by it
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Provenance fills in the commit that a package was made from: only if the
// manifest or the project says where the sources can be had, and every file from
// the folder is exactly the one of the commit. Without git, or with a change that
// is not committed, the revision stays empty. Where a clone lies and what it was
// cloned from does not get into a package, so that all clones give equal ones.
func (c *Content) Provenance(ctx context.Context, dir string) {
	p := c.Spec.Manifest.Provenance
	if p == nil || p.Source == "" {
		return
	}
	revision, tracked := headOf(ctx, dir)
	if revision == "" {
		return
	}
	own := []string{"plugin.json", "pyproject.toml", "requirements.lock"}
	for _, s := range c.Spec.Sources {
		if !strings.HasPrefix(s.Path, vendorFolder+"/") {
			own = append(own, s.Path)
		}
	}
	for _, file := range own {
		data, err := readFile(filepath.Join(dir, filepath.FromSlash(file)), manifest.MaxFileBytes)
		if fault.Is(err, fault.NotFound) && tracked[file] == "" {
			continue
		}
		if err != nil || tracked[file] == "" || blob(data, len(revision)) != tracked[file] {
			return
		}
	}
	c.Spec.Manifest.Provenance = &manifest.Provenance{Source: p.Source, Revision: revision}
}

// headOf gives the commit of a folder and its files there, with their objects.
func headOf(ctx context.Context, dir string) (revision string, tracked map[string]string) {
	out, err := git(ctx, dir, "rev-parse", "HEAD")
	if err != nil {
		return "", nil
	}
	revision = strings.TrimSpace(string(out))
	if out, err = git(ctx, dir, "ls-tree", "-r", "-z", "HEAD"); err != nil {
		return "", nil
	}
	tracked = map[string]string{}
	for _, line := range strings.Split(string(out), "\x00") {
		about, file, _ := strings.Cut(line, "\t")
		if words := strings.Fields(about); len(words) == 3 && words[1] == "blob" {
			tracked[path.Clean(file)] = words[2]
		}
	}
	return revision, tracked
}

// blob is the name of a file's content in git, of the length that the repository
// uses.
func blob(data []byte, length int) string {
	h := sha1.New() //nolint:gosec // see the import
	if length == 2*sha256.Size {
		h = sha256.New()
	}
	_, _ = fmt.Fprintf(h, "blob %d\x00", len(data))
	_, _ = h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}
