package project

import (
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/python"
)

// sdkNeed is a requirement of PEP 508 as projects write it for an SDK.
var sdkNeed = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:(==|>=|~=)\s*([0-9][0-9.]*))?\s*$`)

// sdk adds the sources of each of our SDKs that the project needs and no wheel
// has, and says which. They come from this program, which the author trusts anyway, so that no
// index and no hash is needed; the package's signature covers them as all else.
func (c *Content) sdk(needs []string, wheels []*wheel) ([]string, error) {
	list, err := python.SDKs()
	if err != nil {
		return nil, fault.Internalf("the SDKs for Python are not in this program").Because(err)
	}
	var added []string
	for _, need := range needs {
		match := sdkNeed.FindStringSubmatch(need)
		if match == nil {
			continue
		}
		i := slices.IndexFunc(list, func(s python.SDK) bool { return s.Name == plainName(match[1]) })
		if i < 0 || slices.ContainsFunc(wheels, func(w *wheel) bool { return plainName(w.project) == list[i].Name }) {
			continue
		}
		if !meets(list[i].Version, match[2], match[3]) {
			return nil, fault.Invalidf("the project needs %s, and this version of sallyport has %s: change pyproject.toml, or lock its wheel in requirements.lock", need, list[i].Version)
		}
		if err := c.carry(list[i]); err != nil {
			return nil, err
		}
		added = append(added, list[i].Name)
	}
	return added, nil
}

// starter is what runs an extension that is named by its entry point alone.
const starter = vendorFolder + "/sallyport_sdk/__main__.py"

// start says how such a package runs, if it says nothing itself: by the SDK.
func (c *Content) start() error {
	m := c.Spec.Manifest
	points := m.EntryPoints[manifest.GroupExtensions]
	if m.Run.Command != "" || len(points) == 0 {
		return nil
	}
	if len(points) > 1 {
		return fault.Invalidf("a package has one extension, and this project has %d entry points in %s", len(points), manifest.GroupExtensions)
	}
	if !slices.ContainsFunc(c.Spec.Sources, func(s plugin.Source) bool { return s.Path == starter }) {
		return nil // it can be looked at; no host starts it
	}
	for _, ref := range points {
		m.Run.Command, m.Run.Args = starter, []string{m.Name, m.Version, ref}
	}
	return nil
}

func (c *Content) carry(s python.SDK) error {
	return fs.WalkDir(s.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(s.Files, name)
		if err != nil {
			return fault.Internalf("read %s", name).Because(err)
		}
		c.Spec.Sources = append(c.Spec.Sources, plugin.Source{File: manifest.File{Path: vendorFolder + "/" + name}, Open: held(data)})
		return nil
	})
}

// meets compares plain version numbers: at least that one, and for == and ~= of
// the same release or the same series.
func meets(have, operator, want string) bool {
	h, w := numbers(have), numbers(want)
	switch operator {
	case "":
		return true
	case "==":
		return slices.Equal(h, w)
	case "~=":
		if len(w) < 2 || !slices.Equal(h[:min(len(h), len(w)-1)], w[:len(w)-1]) {
			return false
		}
	}
	return slices.Compare(h, w) >= 0
}

func numbers(version string) []int {
	var out []int
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			n = 0
		}
		out = append(out, n)
	}
	for len(out) > 1 && out[len(out)-1] == 0 {
		out = out[:len(out)-1]
	}
	return out
}
