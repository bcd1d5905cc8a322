package conformance

import (
	"os"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// The page has every check, and every check says what to do.
func TestPage_HasEveryCheck(t *testing.T) {
	page, err := os.ReadFile("../../../docs/plugins/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	all := append([]expectation{hasSignature, isReproducible, isServed}, ofProcess()...)
	all = append(all, kbsAnswers, kbsSteady, kbsBody, kbsParallel, kbsCancel, kbsHealth, takesBack, takesBackAgain, tellsPeople, judges, refusesNoEvidence)
	all = append(all, checkedItems[manifest.RoleExtension]...)
	all = append(all, checkedItems[manifest.RoleCLI]...)
	seen := map[string]bool{}
	for _, e := range all {
		if !strings.Contains(string(page), "| `"+e.id+"` |") {
			t.Errorf("docs/plugins/conformance.md lacks %s", e.id)
		}
		if seen[e.id] || e.name == "" || e.do == "" && e.id != "cli/5" {
			t.Errorf("%s is there twice, or says nothing", e.id)
		}
		seen[e.id] = true
	}
	if rows := strings.Count(string(page), "\n| `"); rows != len(all) {
		t.Errorf("the page has %d checks, there are %d", rows, len(all))
	}
}
