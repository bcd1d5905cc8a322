package project

import (
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

func TestSides(t *testing.T) {
	for name, c := range map[string]struct {
		rules []string
		want  map[string]string // nil: refused
	}{
		"none":             {nil, map[string]string{"a.py": "", "cli/b.py": "", "cli/deep/c.py": ""}},
		"a folder":         {[]string{"cli=cli"}, map[string]string{"a.py": "", "cli/b.py": "cli", "cli/deep/c.py": "cli"}},
		"a pattern":        {[]string{"server=*.py", "cli=cli/*"}, map[string]string{"a.py": "server", "cli/b.py": "cli", "cli/deep/c.py": "cli"}},
		"twice the same":   {[]string{"cli=cli", "cli=cli/b.py"}, map[string]string{"a.py": "", "cli/b.py": "cli", "cli/deep/c.py": "cli"}},
		"no file":          {[]string{"cli=nothing/*"}, nil},
		"both sides":       {[]string{"cli=cli", "server=cli/b.py"}, nil},
		"another side":     {[]string{"guest=cli"}, nil},
		"no pattern":       {[]string{"cli="}, nil},
		"a broken pattern": {[]string{"cli=["}, nil},
		"no side":          {[]string{"cli"}, nil},
	} {
		var spec plugin.Spec
		for _, p := range []string{"a.py", "cli/b.py", "cli/deep/c.py"} {
			spec.Sources = append(spec.Sources, plugin.Source{File: manifest.File{Path: p}})
		}
		err := Sides(&spec, c.rules)
		if c.want == nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		for _, s := range spec.Sources {
			if err != nil || s.For != c.want[s.Path] {
				t.Errorf("%s: %s is for %q: %v", name, s.Path, s.For, err)
			}
		}
	}
}
