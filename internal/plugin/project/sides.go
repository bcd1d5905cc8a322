package project

import (
	"path"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Sides says of files of a package that one side alone needs them: each rule is
// SIDE=PATTERN, where a pattern (path.Match) is held against the path of a file and
// of each folder above it. What fits no file, or a file that fits two sides, is
// Invalid: it is more often a slip than a plan.
func Sides(spec *plugin.Spec, rules []string) error {
	for _, rule := range rules {
		side, pattern, ok := strings.Cut(rule, "=")
		if _, err := path.Match(pattern, ""); !ok || err != nil || pattern == "" || side != manifest.ForServer && side != manifest.ForCLI {
			return fault.Invalidf("--only is server=PATTERN or cli=PATTERN, for example 'cli=src/cli/*'")
		}
		found := false
		for i := range spec.Sources {
			f := &spec.Sources[i]
			switch {
			case !under(f.Path, pattern):
				continue
			case f.For != "" && f.For != side:
				return fault.Invalidf("the file %s is for the %s and for the %s alone: leave one of --only out", f.Path, f.For, side)
			}
			f.For, found = side, true
		}
		if !found {
			return fault.Invalidf("no file of the package fits --only %s", rule)
		}
	}
	return nil
}

// under reports whether a pattern fits a path or a folder above it.
func under(file, pattern string) bool {
	for at := file; at != "."; at = path.Dir(at) {
		if ok, err := path.Match(pattern, at); err == nil && ok {
			return true
		}
	}
	return false
}
