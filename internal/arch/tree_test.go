package arch

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// file is a parsed Go file; paths are slash-separated and relative to the root.
type file struct {
	path, pkg string
	test      bool // a _test file
	generated bool
	lines     int
	fset      *token.FileSet
	ast       *ast.File
}

// tree is every Go file of the module, whatever system it is for.
type tree []file

func parse(path string, src []byte) (file, error) {
	f := file{path: path, fset: token.NewFileSet(), test: strings.HasSuffix(path, "_test.go")}
	f.pkg, _, _ = cutLast(path)
	var err error
	f.ast, err = parser.ParseFile(f.fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return f, err
	}
	f.generated = ast.IsGenerated(f.ast)
	f.lines = strings.Count(string(src), "\n")
	return f, nil
}

// house parses the whole module once.
var house = sync.OnceValues(func() (tree, error) {
	const root = "../.."
	var t tree
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "." {
				return nil
			}
			if strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" || d.Name() == "node_modules" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(rel), src)
		if err != nil {
			return err
		}
		t = append(t, f)
		return nil
	})
	return t, err
})

// whole gives the module's tree.
func whole(t *testing.T) tree {
	t.Helper()
	h, err := house()
	if err != nil {
		t.Fatal(err)
	}
	if len(h) < 20 {
		t.Fatalf("only %d files found: this does not look like the module", len(h))
	}
	return h
}

// imports gives the paths that a file imports.
func (f file) imports() []string {
	var paths []string
	for _, s := range f.ast.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// named gives the name under which a file imports a package, empty if it does
// not.
func (f file) named(path string) string {
	for _, s := range f.ast.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err == nil && p == path {
			if s.Name != nil {
				return s.Name.Name
			}
			_, last, _ := cutLast(path)
			return last
		}
	}
	return ""
}

// at gives file and line of a position.
func (f file) at(p token.Pos) string {
	return f.path + ":" + strconv.Itoa(f.fset.Position(p).Line)
}

// quotes reports where a file mentions names of a package, such as os.Getenv.
func (f file) quotes(path string, names ...string) []token.Pos {
	local := f.named(path)
	if local == "" {
		return nil
	}
	var found []token.Pos
	ast.Inspect(f.ast, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && x.Name == local && slices.Contains(names, s.Sel.Name) {
			found = append(found, s.Pos())
		}
		return true
	})
	return found
}

// packages gives the files of each package, sorted by path, without _test
// files unless there are no others.
func (t tree) packages() [][]file {
	groups := map[string][]file{}
	for _, f := range t {
		groups[f.pkg] = append(groups[f.pkg], f)
	}
	var all [][]file
	for _, fs := range groups {
		code := slices.DeleteFunc(slices.Clone(fs), func(f file) bool { return f.test })
		if len(code) == 0 {
			code = fs
		}
		slices.SortFunc(code, func(a, b file) int { return cmp.Compare(a.path, b.path) })
		all = append(all, code)
	}
	slices.SortFunc(all, func(a, b []file) int { return cmp.Compare(a[0].pkg, b[0].pkg) })
	return all
}
