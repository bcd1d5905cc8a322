package arch

import (
	"bytes"
	"flag"
	"go/ast"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/dependencies.txt anew")

// rules in the words of their tests.
var rules = map[string]rule{
	"imports go down the ladder":           climbs,
	"each library has its doors":           backDoors,
	"plain rooms use the standard library": impure,
	"banned packages":                      bans,
	"each package says what it is":         undocumented,
	"files stay readable":                  oversized,
	"packages have names":                  misnamed,
	"nothing starts by being imported":     hiddenStarts,
	"the environment is read in one place": hiddenInputs,
	"verbs and nouns are told the time":    hiddenClocks,
	"a promise has an issue":               promises,
	"secrets are revealed by those listed": unlisted,
}

func TestHouse_StandsAsPlanned(t *testing.T) {
	h := whole(t)
	for name, check := range rules {
		t.Run(name, func(t *testing.T) {
			for _, breach := range check(h) {
				t.Error(breach)
			}
		})
	}
}

// unlisted: testdata/reveal.txt names every package that reveals secrets.
func unlisted(t tree) (bad []string) {
	data, err := os.ReadFile("testdata/reveal.txt")
	if err != nil {
		return []string{err.Error()}
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		pkg, why, _ := strings.Cut(line, " ")
		if strings.TrimSpace(why) == "" {
			bad = append(bad, "testdata/reveal.txt: "+pkg+" has no reason")
		}
		listed[pkg] = true
	}
	reveals := revealers(t)
	for _, files := range t.packages() {
		pkg := files[0].pkg
		if _, still := reveals[pkg]; listed[pkg] && !still {
			bad = append(bad, "testdata/reveal.txt: "+pkg+" no longer reveals a secret: take it off")
		}
	}
	for pkg, where := range reveals {
		if !listed[pkg] {
			bad = append(bad, where+": "+pkg+" reveals a secret and is not in internal/arch/testdata/reveal.txt: say there why it must")
		}
	}
	slices.Sort(bad)
	return bad
}

// TestBinary_IsMadeOfWhatIsListed compares the modules in the product, on every
// system that it is released for, with the committed list, so that a new one is
// seen in review.
func TestBinary_IsMadeOfWhatIsListed(t *testing.T) {
	const list = "testdata/dependencies.txt"
	systems := []string{"linux/amd64", "linux/arm64", "darwin/arm64", "windows/amd64"}
	found := make([]string, len(systems))
	var wg sync.WaitGroup
	for i, system := range systems {
		wg.Go(func() {
			goos, goarch, _ := strings.Cut(system, "/")
			cmd := exec.CommandContext(t.Context(), "go", "list", "-deps",
				"-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/sallyport")
			cmd.Dir = "../.."
			cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("go list for %s: %v\n%s", system, err, stderr.Bytes())
			}
			found[i] = string(out)
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	modules := strings.Fields(strings.ReplaceAll(strings.Join(found, ""), " ", "@"))
	slices.Sort(modules)
	modules = slices.Compact(modules)
	want := strings.ReplaceAll(strings.Join(modules, "\n"), "@", " ") + "\n"

	if *update {
		if err := os.WriteFile(list, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Errorf("the binary is made of other modules than %s says; look at the difference, then run\n"+
			"\tgo test ./internal/arch -run Binary -update\n%s", list, difference(string(have), want))
	}
	for m := range strings.Lines(want) {
		name, _, _ := strings.Cut(m, " ")
		if lib, ok := libraries[name]; ok && lib.testing {
			t.Errorf("%s is for tests and is in the binary", name)
		}
	}
}

// TestDependencies_AreExplained wants a line with the exact version of each
// direct dependency in docs/dependencies.md.
func TestDependencies_AreExplained(t *testing.T) {
	doc, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct := regexp.MustCompile(`(?m)^(?:require)?\s+(\S+\.\S+) (v\S+)$`).FindAllStringSubmatch(string(mod), -1)
	if len(direct) < 10 {
		t.Fatalf("only %d direct requirements found in go.mod", len(direct))
	}
	used := map[string]bool{}
	for _, f := range whole(t) {
		for _, path := range f.imports() {
			name, _, _ := libraryOf(path)
			used[name] = true
		}
	}
	for _, d := range direct {
		if !used[d[1]] {
			t.Errorf("nothing imports %s: take it out of go.mod", d[1])
		}
		row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(d[1]) + ` \| ` + regexp.QuoteMeta(d[2]) + ` \|`)
		if !row.Match(doc) {
			t.Errorf("docs/dependencies.md has no row \"| %s | %s | ...\": say what it is for and what was compared", d[1], d[2])
		}
		if _, ok := libraries[d[1]]; !ok {
			t.Errorf("internal/arch/library.go does not say who may import %s", d[1])
		}
	}
}

// TestGuides_NameTestsThatExist wants each test that a guide calls a proof to be
// there under its name.
func TestGuides_NameTestsThatExist(t *testing.T) {
	there := map[string]bool{"TestNoun_Verb": true} // the pattern in CONTRIBUTING.md
	for _, f := range whole(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test {
				there[fn.Name.Name] = true
			}
		}
	}
	guides, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	plugins, err := filepath.Glob("../../docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	name, found := regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z0-9_]*)`"), 0
	for _, path := range append(append(guides, plugins...), "../../README.md", "../../CONTRIBUTING.md", "../../ARCHITECTURE.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllSubmatch(text, -1) {
			if found++; !there[string(m[1])] {
				t.Errorf("%s names the test %s, which does not exist", filepath.Base(path), m[1])
			}
		}
	}
	if found == 0 {
		t.Error("no guide names a test: is the pattern right?")
	}
}

// difference gives the lines that only one side has.
func difference(have, want string) string {
	var b strings.Builder
	for l := range strings.Lines(have) {
		if !strings.Contains(want, l) {
			b.WriteString("- " + l)
		}
	}
	for l := range strings.Lines(want) {
		if !strings.Contains(have, l) {
			b.WriteString("+ " + l)
		}
	}
	return b.String()
}
