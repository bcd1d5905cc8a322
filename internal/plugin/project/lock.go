package project

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// requirement is one locked dependency.
type requirement struct {
	name, version string
	optional      bool // it has a marker, and is not for every platform
	hashes        []string
}

var (
	requirementPattern = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[A-Za-z0-9,._ -]*\])?\s*==\s*([A-Za-z0-9.!+_-]+)\s*(;.*)?$`)
	hashPattern        = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

const maxRequirements = 512

// parseLock reads a requirements file in which every line is NAME==VERSION with
// its SHA-256 digests, as pip-compile --generate-hashes and uv export write it.
// Options are refused: where wheels come from is no part of what they are.
func parseLock(text []byte) ([]requirement, error) {
	joined := strings.NewReplacer("\r\n", "\n", "\\\r\n", " ", "\\\n", " ").Replace(string(text))
	var out []requirement
	for _, line := range strings.Split(joined, "\n") {
		if line = stripComment(line); line == "" {
			continue
		}
		if strings.HasPrefix(line, "-") {
			return nil, fault.Invalidf("the lock file has the option %q; it may only list requirements with their hashes", firstWord(line))
		}
		head, tail, _ := strings.Cut(line, " --hash=")
		match := requirementPattern.FindStringSubmatch(strings.TrimSpace(head))
		if match == nil {
			return nil, fault.Invalidf("the lock file has the line %q; each must be NAME==VERSION --hash=sha256:...", firstWord(line))
		}
		r := requirement{name: plainName(match[1]), version: match[2], optional: match[3] != ""}
		if tail != "" {
			r.hashes = strings.Split(tail, " --hash=")
		}
		for i, h := range r.hashes {
			if r.hashes[i] = strings.TrimSpace(h); !hashPattern.MatchString(r.hashes[i]) {
				return nil, fault.Invalidf("the lock file has for %s something else than --hash=sha256: and 64 hex digits", r.name)
			}
			r.hashes[i] = strings.TrimPrefix(r.hashes[i], "sha256:")
		}
		if len(r.hashes) == 0 {
			return nil, fault.Invalidf("the lock file has no hash for %s: make it with pip-compile --generate-hashes, or uv export", r.name)
		}
		if slices.ContainsFunc(out, func(o requirement) bool { return o.name == r.name }) {
			return nil, fault.Invalidf("the lock file lists %s twice", r.name)
		}
		if out = append(out, r); len(out) > maxRequirements {
			return nil, fault.Invalidf("the lock file lists more than %d requirements", maxRequirements)
		}
	}
	return out, nil
}

func stripComment(line string) string {
	if strings.HasPrefix(strings.TrimSpace(line), "#") {
		return ""
	}
	line, _, _ = strings.Cut(line, " #")
	return strings.TrimSpace(line)
}

func firstWord(line string) string {
	word, _, _ := strings.Cut(line, " ")
	return word[:min(len(word), 64)]
}

// wheels reads the wheels of the lock file, each of which has a hash that the
// lock file names.
func (p Python) wheels(ctx context.Context) ([]*wheel, error) {
	lock := p.Lock
	if lock == "" {
		lock = filepath.Join(p.Dir, "requirements.lock")
		if _, err := os.Stat(lock); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	text, err := readFile(lock, maxProjectFile)
	if err != nil {
		return nil, err
	}
	required, err := parseLock(text)
	if err != nil || len(required) == 0 {
		return nil, err
	}
	dir := p.Wheels
	if dir == "" {
		if dir, err = p.download(ctx, lock); err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
	}
	var list []*wheel
	for _, r := range required {
		w, err := r.find(dir)
		if err != nil {
			return nil, err
		}
		if w != nil {
			list = append(list, w)
		}
	}
	return list, nil
}

// find is the one wheel of a folder that is what was locked.
func (r requirement) find(dir string) (*wheel, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil {
		return nil, fault.Wrap(err, "look for wheels")
	}
	for _, file := range found {
		name, err := parseWheelName(filepath.Base(file))
		if err != nil || plainName(name.project) != r.name {
			continue
		}
		data, err := readFile(file, maxWheel)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		if !slices.Contains(r.hashes, hex.EncodeToString(sum[:])) {
			return nil, fault.Deniedf("%s is not a file that the lock file names: its SHA-256 is another", filepath.Base(file))
		}
		return openWheel(filepath.Base(file), data)
	}
	if r.optional {
		return nil, nil
	}
	return nil, fault.NotFoundf("there is no wheel for %s %s", r.name, r.version)
}

// download lets pip fetch the locked wheels. What it fetches is checked again.
func (p Python) download(ctx context.Context, lock string) (string, error) {
	dir, err := os.MkdirTemp("", "sallyport-wheels-*")
	if err != nil {
		return "", fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	python := p.Python
	if python == "" {
		python = "python3"
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", //nolint:gosec // fixed words, and files that the user names
		"--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", dir, "--requirement", lock)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return dir, nil
	}
	_ = os.RemoveAll(dir)
	if errors.Is(err, exec.ErrNotFound) {
		return "", fault.Unavailablef("there is no %s here: install it, name another with --python, or give the wheels with --wheels DIR", python).Because(err)
	}
	return "", fault.Unavailablef("pip could not download the locked wheels: %s", lastLine(out)).Because(err)
}

// lastLine is the end of a tool's output, without what a terminal would act on.
func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return -1
		}
		return r
	}, lines[len(lines)-1])
}
