package project

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // git names its objects so; nothing is trusted by it
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
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

// git runs git in a folder, without configuration that runs programs and without
// asking anybody.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	args = append([]string{
		"-C", dir, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never",
	}, args...)
	cmd := exec.CommandContext(ctx, "git", args...) //nolint:gosec // fixed words, a folder, and what Fetch checked
	cmd.Env = append(cmd.Environ(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git: %w: %s", err, lastLine(errOut.Bytes()))
	}
	return out, nil
}

// Fetch gets one commit of a git repository into a fresh folder and returns the
// folder, which the caller removes, and the full name of the commit. source is
// what git accepts as a repository; ref is a branch, a tag or a full commit.
func Fetch(ctx context.Context, source, ref string) (dir, revision string, err error) {
	if source == "" || ref == "" || strings.HasPrefix(source, "-") || strings.HasPrefix(ref, "-") || strings.ContainsAny(source+ref, "\x00\n") || strings.Contains(source, "::") {
		return "", "", fault.Invalidf("name a repository and what to take from it: git+https://HOST/PATH@REF")
	}
	if dir, err = os.MkdirTemp("", "sallyport-git-*"); err != nil {
		return "", "", fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	for _, step := range [][]string{
		{"init", "--quiet", "."},
		{"fetch", "--quiet", "--depth", "1", "--no-tags", "--", source, ref},
		{"checkout", "--quiet", "--detach", "FETCH_HEAD"},
	} {
		if _, err = git(ctx, dir, step...); err != nil {
			_ = os.RemoveAll(dir)
			return "", "", fault.Unavailablef("git could not get %s of %s", ref, withoutUser(source)).Because(err)
		}
	}
	out, err := git(ctx, dir, "rev-parse", "HEAD")
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", "", fault.Unavailablef("git could not get %s of %s", ref, withoutUser(source)).Because(err)
	}
	return dir, strings.TrimSpace(string(out)), nil
}

// withoutUser takes a user and password from a URL.
func withoutUser(source string) string {
	scheme, rest, ok := strings.Cut(source, "://")
	if !ok {
		return source
	}
	host, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	return scheme + "://" + host + "/" + path
}

// ParseGit reads git+URL@REF. An at sign in front of a URL's host is no part of it.
func ParseGit(arg string) (source, ref string, err error) {
	rest, ok := strings.CutPrefix(arg, "git+")
	begin := 0
	if i := strings.Index(rest, "://"); i >= 0 {
		begin = i + 3 + max(0, strings.IndexByte(rest[i+3:], '/'))
	}
	i := strings.LastIndexByte(rest, '@')
	if !ok || i <= begin || i+1 == len(rest) {
		return "", "", fault.Invalidf("write the repository and what to take from it: git+https://HOST/PATH@REF")
	}
	return rest[:i], rest[i+1:], nil
}

// FromCommit records a fetched commit as where the package comes from.
func (c *Content) FromCommit(source, revision string) {
	c.Spec.Manifest.Provenance = &manifest.Provenance{Source: withoutUser(source), Revision: revision}
}
