package template

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// With the SDK every role, and all of them, give a manifest that a host reads and
// sources that Python reads.
func TestProject_BySDK(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	sets := [][]string{sdkRoles, sdkRoles[:2], {manifest.RoleKBS}}
	for _, r := range sdkRoles {
		sets = append(sets, []string{r})
	}
	for _, roles := range sets {
		t.Run(strings.Join(roles, ","), func(t *testing.T) {
			files, err := Project{Name: "my-plugin", Publisher: "acme", Kind: "my.token", Language: Python, Roles: roles}.Files()
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			parse := []string{"-B", "-c", "import ast,sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]"}
			for _, f := range files {
				if strings.Contains(string(f.Text), "[[ ") || strings.Contains(string(f.Text), "<no value>") || !strings.HasSuffix(string(f.Text), "\n") {
					t.Errorf("%s is not rendered:\n%s", f.Path, f.Text)
				}
				path := filepath.Join(dir, f.Path)
				if err := os.WriteFile(path, f.Text, 0o600); err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(f.Path, ".py") {
					parse = append(parse, path)
				}
				if f.Path == "plugin.json" {
					if _, err := plugin.ReadSpec(f.Text); err != nil {
						t.Errorf("plugin.json: %v\n%s", err, f.Text)
					}
				}
			}
			if out, err := exec.CommandContext(t.Context(), python, parse...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
