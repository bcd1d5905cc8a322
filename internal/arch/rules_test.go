package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A rule gives one sentence for each breach.
type rule func(tree) []string

// climbs: imports go down the ladder only. Tests may look anywhere.
func climbs(t tree) (bad []string) {
	for _, f := range t {
		if _, _, ok := place(f.pkg); !ok {
			bad = append(bad, f.pkg+" has no room: name it in internal/arch/ladder.go")
			continue
		}
		if f.test {
			continue
		}
		for _, path := range f.imports() {
			to, ours := strings.CutPrefix(path, module+"/")
			if !ours {
				continue
			}
			if why := judge(f.pkg, to); why != "" {
				bad = append(bad, f.path+": "+f.pkg+" "+why)
			}
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}

// backDoors: a third-party library is imported by its doors only.
func backDoors(t tree) (bad []string) {
	for _, f := range t {
		for _, imported := range f.imports() {
			if !foreign(imported) {
				continue
			}
			name, lib, ok := libraryOf(imported)
			forTests := f.test || double(f.pkg) || strings.HasPrefix(f.pkg, "test/")
			switch {
			case !ok:
				bad = append(bad, f.path+" imports "+imported+", which internal/arch/library.go does not know: a new library needs its line in docs/dependencies.md first")
			case covers(lib.doors, f.pkg), double(f.pkg) && covers(lib.doors, path.Dir(f.pkg)), forTests && (lib.testing || covers(lib.tests, f.pkg)):
			case lib.testing:
				bad = append(bad, f.path+" imports "+name+", which is for tests only")
			default:
				bad = append(bad, fmt.Sprintf("%s imports %s, whose doors are %v: use one of them, or write down the exception in internal/arch/library.go and docs/decisions", f.path, name, lib.doors))
			}
		}
	}
	return bad
}

// impure: the rooms that must stand on the standard library alone.
func impure(t tree) (bad []string) {
	for _, f := range t {
		if f.test || !slices.Contains(plainRooms, f.pkg) && !slices.Contains(plainRooms, f.path) {
			continue
		}
		for _, path := range f.imports() {
			if foreign(path) {
				bad = append(bad, f.path+" imports "+path+", but "+f.pkg+" stands on the standard library alone")
			}
		}
	}
	return bad
}

// bans: packages that nobody imports outside tests.
func bans(t tree) (bad []string) {
	for _, f := range t {
		for _, path := range f.imports() {
			_, home, _ := place(f.pkg)
			if why, ok := banned[path]; ok && !f.test && excused[home][path] == "" {
				bad = append(bad, f.path+" imports "+path+": "+why)
			}
		}
	}
	return bad
}

// undocumented: each package says what it is, in the file named after it, in
// doc.go, or for commands in main.go.
func undocumented(t tree) (bad []string) {
	for _, files := range t.packages() {
		var docs []file
		for _, f := range files {
			if f.ast.Doc != nil && !f.generated && strings.TrimSpace(f.ast.Doc.Text()) != "" {
				docs = append(docs, f)
			}
		}
		name := strings.TrimSuffix(files[0].ast.Name.Name, "_test")
		switch {
		case len(docs) == 0:
			bad = append(bad, files[0].pkg+" has no package comment: say in "+name+".go what it is, and what it is not")
			continue
		case len(docs) > 1:
			bad = append(bad, docs[1].path+": "+files[0].pkg+" has two package comments, the other is in "+docs[0].path)
		}
		_, base, _ := cutLast(docs[0].path)
		want := "Package " + name + " "
		if name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(docs[0].ast.Doc.Text(), want) {
			bad = append(bad, docs[0].path+": the package comment begins with \""+want+"...\"")
		}
		if !slices.Contains([]string{name + ".go", "doc.go"}, base) && !docs[0].test {
			bad = append(bad, docs[0].path+": the package comment belongs into "+name+".go or doc.go")
		}
	}
	return bad
}

// oversized: a file is read in one sitting.
func oversized(t tree) (bad []string) {
	for _, f := range t {
		if !f.generated && f.lines > maxLines {
			bad = append(bad, fmt.Sprintf("%s has %d lines, more than %d: it holds two thoughts, cut it", f.path, f.lines, maxLines))
		}
	}
	return bad
}

// misnamed: a package is a noun or a verb of the domain.
func misnamed(t tree) (bad []string) {
	for _, files := range t.packages() {
		for elem := range strings.SplitSeq(files[0].pkg, "/") {
			if slices.Contains(badNames, elem) {
				bad = append(bad, files[0].pkg+": "+elem+" says nothing, name the thing")
			}
			if elem != strings.ToLower(elem) {
				bad = append(bad, files[0].pkg+": folders are lower-case")
			}
		}
	}
	return bad
}

// hiddenStarts: nothing happens by being imported.
func hiddenStarts(t tree) (bad []string) {
	for _, f := range t {
		if f.generated {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				bad = append(bad, f.at(fn.Pos())+": no init functions: wire it in internal/app")
			}
		}
	}
	return bad
}

// hiddenInputs: only app and cli read the environment.
func hiddenInputs(t tree) (bad []string) {
	for _, f := range t {
		r, _, _ := place(f.pkg)
		if _, listed := environment[f.pkg]; listed || f.test || double(f.pkg) || r == app || r == cli || r == command || r == proof {
			continue
		}
		where := f.quotes("os", "Getenv", "LookupEnv", "Environ", "ExpandEnv")
		where = append(where, f.quotes("syscall", "Getenv", "Environ")...)
		for _, p := range where {
			bad = append(bad, f.at(p)+": only internal/app and internal/cli read the environment: take it in the Config")
		}
	}
	return bad
}

// hiddenClocks: verbs and nouns are told the time.
func hiddenClocks(t tree) (bad []string) {
	for _, f := range t {
		r, home, _ := place(f.pkg)
		if _, listed := clocks[home]; listed || f.test || double(f.pkg) || r != flow && r != noun {
			continue
		}
		local := f.named("time")
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || local == "" {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || s.Sel.Name != "Now" && s.Sel.Name != "Since" && s.Sel.Name != "Until" {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local {
				bad = append(bad, f.at(call.Pos())+": calls time."+s.Sel.Name+": take now func() time.Time in the Config")
			}
			return true
		})
	}
	return bad
}

var (
	todo     = regexp.MustCompile(`\b(TODO|FIXME)\b`)
	numbered = regexp.MustCompile(`\bTODO\(#[0-9]+\)`)
)

// promises: a TODO names the issue where it is kept.
func promises(t tree) (bad []string) {
	for _, f := range t {
		if f.generated || f.pkg == "internal/arch" {
			continue
		}
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if todo.MatchString(c.Text) && !numbered.MatchString(c.Text) {
					bad = append(bad, f.at(c.Pos())+": a TODO carries the number of its issue: TODO(#12)")
				}
			}
		}
	}
	return bad
}

// revealers gives the packages that take bytes out of a secret, with a place.
func revealers(t tree) map[string]string {
	found := map[string]string{}
	for _, f := range t {
		if f.test || double(f.pkg) || f.pkg == "internal/secret" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Reveal" {
				note(found, f, s.Sel.Pos())
			}
			return true
		})
	}
	return found
}

func note(found map[string]string, f file, p token.Pos) {
	if _, known := found[f.pkg]; !known {
		found[f.pkg] = f.at(p)
	}
}
