package manifest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// Every expression of the package compiles, though nothing compiles it at start,
// and none has slipped back into the start of every plugin.
func TestExpressions_Compile(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			vars, ok := d.(*ast.GenDecl)
			if !ok || vars.Tok != token.VAR {
				continue
			}
			ast.Inspect(vars, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "regexp" {
						t.Errorf("%s: regexp.%s at the start of every plugin: use expression", name, n.Sel.Name)
					}
				case *ast.KeyValueExpr:
					if k, ok := n.Key.(*ast.Ident); !ok || k.Name != "text" {
						break
					}
					text, err := strconv.Unquote(n.Value.(*ast.BasicLit).Value)
					if err == nil {
						_, err = regexp.Compile(text)
					}
					if err != nil {
						t.Errorf("%s: %v", name, err)
					}
					found++
				}
				return true
			})
		}
	}
	if found < 10 {
		t.Fatalf("%d expressions found", found)
	}
}
