package project

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

const usage = "write the repository and what to take from it: git+https://HOST/PATH@REF"

// refPattern is a branch, a tag or a commit: no option, and no refspec, which
// would name two things.
var refPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}$`)

// rawAttributes go before those of a repository: its files arrive byte for byte
// as they were committed, and no filter runs, not even one that the user has.
const rawAttributes = "* -text -eol -ident -filter -working-tree-encoding\n"

// git runs git in a folder: without variables of the environment that change what
// it does, without configuration that runs programs of a repository, over no
// transport but the three that Fetch accepts, and without asking anybody.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	all := []string{"-C", dir}
	for _, c := range []string{
		"core.hooksPath=/dev/null", "core.fsmonitor=false", "core.symlinks=false", "submodule.recurse=false", "gc.auto=0", "maintenance.auto=false",
		"protocol.allow=never", "protocol.ext.allow=never", "protocol.http.allow=never", "protocol.git.allow=never",
		"protocol.https.allow=always", "protocol.ssh.allow=always", "protocol.file.allow=always",
	} {
		all = append(all, "-c", c)
	}
	cmd := exec.CommandContext(ctx, "git", append(all, args...)...) //nolint:gosec // fixed words, a folder, and what Fetch checked
	cmd.Env = slices.DeleteFunc(cmd.Environ(), func(v string) bool { return strings.HasPrefix(strings.ToUpper(v), "GIT_") })
	cmd.Env = append(cmd.Env, "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git: %w: %s", err, lastLine(errOut.Bytes()))
	}
	return out, nil
}

// Fetch gets one commit of a git repository into a fresh folder and returns the
// folder, which the caller removes, and the full name of the commit. source is an
// https, ssh or file URL, or a folder; ref is a branch, a tag or a full commit.
// Nothing of the repository runs: no hook, filter or submodule. Faults are
// Invalid; Denied if a commit has links or submodules, which no package has and
// which would lead out of the folder; and Unavailable.
func Fetch(ctx context.Context, source, ref string) (dir, revision string, err error) {
	if source, err = repository(source); err != nil {
		return "", "", err
	}
	if !refPattern.MatchString(ref) || strings.Contains(ref, "..") {
		return "", "", fault.Invalidf("what to take from a repository is a branch, a tag or a full commit; %s", usage)
	}
	if dir, err = os.MkdirTemp("", "sallyport-git-*"); err != nil {
		return "", "", fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	if revision, err = fetch(ctx, dir, source, ref); err != nil {
		_ = os.RemoveAll(dir)
		return "", "", err
	}
	return dir, revision, nil
}

// repository checks where sources come from and makes a folder's path absolute.
func repository(source string) (string, error) {
	if !strings.Contains(source, "://") {
		path, err := filepath.Abs(source)
		info, missing := os.Stat(path)
		if source == "" || strings.HasPrefix(source, "-") || err != nil || missing != nil || !info.IsDir() {
			return "", fault.Invalidf("%q is neither a folder nor a URL; %s", source, usage)
		}
		return path, nil
	}
	u, err := url.Parse(source)
	if err != nil {
		return "", fault.Invalidf("the repository's URL is not well-formed; %s", usage)
	}
	_, password := u.User.Password()
	switch {
	case !slices.Contains([]string{"https", "ssh", "file"}, u.Scheme):
		return "", fault.Invalidf("sources come over https, ssh, or from a file URL or folder, not over %q", u.Scheme)
	case password || u.RawQuery != "" || u.Fragment != "":
		return "", fault.Invalidf("a repository's URL has no password, query or fragment: give git the password by its credential helper")
	case strings.HasPrefix(u.Host, "-") || strings.HasPrefix(u.User.Username(), "-") || (u.Host == "") != (u.Scheme == "file"):
		return "", fault.Invalidf("the repository's URL names no host that git may be given; %s", usage)
	}
	return source, nil
}

func fetch(ctx context.Context, dir, source, ref string) (string, error) {
	var out []byte
	for _, step := range [][]string{
		{"init", "--quiet", "--template=", "."},
		{"fetch", "--quiet", "--depth", "1", "--no-tags", "--no-recurse-submodules", "--", source, ref},
		{"ls-tree", "-r", "-z", "FETCH_HEAD"},
	} {
		var err error
		if out, err = git(ctx, dir, step...); err != nil {
			return "", unreachable(source, ref, err)
		}
	}
	for _, line := range strings.Split(string(out), "\x00") {
		if strings.HasPrefix(line, "120000 ") || strings.HasPrefix(line, "160000 ") {
			_, name, _ := strings.Cut(line, "\t")
			return "", fault.Deniedf("%q of %s is a link or a submodule: no package has those; clone it, and use plugin build", name, ref)
		}
	}
	info := filepath.Join(dir, ".git", "info")
	err := os.MkdirAll(info, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(info, "attributes"), []byte(rawAttributes), 0o600)
	}
	if err != nil {
		return "", fault.Unavailablef("the temporary folder cannot be written").Because(err)
	}
	if _, err = git(ctx, dir, "checkout", "--quiet", "--detach", "FETCH_HEAD"); err != nil {
		return "", unreachable(source, ref, err)
	}
	if out, err = git(ctx, dir, "rev-parse", "HEAD"); err != nil {
		return "", unreachable(source, ref, err)
	}
	revision := strings.TrimSpace(string(out))
	if _, err := hex.DecodeString(ref); err == nil && len(ref) >= 40 && ref != revision {
		return "", fault.Deniedf("the repository gave another commit than %s", ref)
	}
	return revision, nil
}

func unreachable(source, ref string, err error) error {
	return fault.Unavailablef("git could not get %s; see whether it is there: git ls-remote %s (a commit must be given in full)", ref, withoutUser(source)).Because(err)
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
		return "", "", fault.Invalidf("%s", usage)
	}
	return rest[:i], rest[i+1:], nil
}

// FromCommit records a fetched commit as where the package comes from.
func (c *Content) FromCommit(source, revision string) {
	c.Spec.Manifest.Provenance = &manifest.Provenance{Source: withoutUser(source), Revision: revision}
}
