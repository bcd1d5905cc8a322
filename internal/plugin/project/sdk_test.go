package project

import (
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/python"
)

const withSDK = `
[project]
name = "tags"
version = "1.0.0"
dependencies = ["NEED"]

[project.entry-points."attestation_extensions"]
tags = "tags.extension:Tags"
`

func sdkProject(t *testing.T, need string) (Content, error) {
	t.Helper()
	dir := t.TempDir()
	lay(t, dir, map[string]string{
		"pyproject.toml": strings.ReplaceAll(withSDK, "NEED", need), "src/tags/__init__.py": "", "src/tags/extension.py": "class Tags: pass\n",
	})
	return Python{Folder: Folder{Dir: dir, Manifest: Undeclared("acme")}}.Pack(t.Context())
}

// The SDK comes from this program where a project depends on it, and an extension
// that is an entry point is started by it.
func TestPython_CarriesTheSDK(t *testing.T) {
	list, err := python.SDKs()
	if err != nil {
		t.Fatal(err)
	}
	for _, need := range []string{"sallyport-sdk", "Sallyport_SDK[fastapi] == " + list[0].Version, "sallyport-sdk>=0.0.1", "sallyport-sdk~=0.1"} {
		c, err := sdkProject(t, need)
		if err != nil {
			t.Fatalf("%s: %v", need, err)
		}
		run := c.Spec.Manifest.Run
		if run.Command != starter || strings.Join(run.Args, " ") != "tags 1.0.0 tags.extension:Tags" || !slices.Equal(run.SearchPath, []string{"src", "vendor"}) {
			t.Errorf("%s: it runs as %+v", need, run)
		}
		for _, want := range []string{starter, "vendor/sallyport_sdk/__init__.py", "vendor/sallyport_sdk/pb/sallyport_pb2.py", "vendor/sallyport_sdk/cli/__main__.py"} {
			if !slices.Contains(paths(c), want) {
				t.Errorf("%s: the package has no %s", need, want)
			}
		}
	}
	c, err := sdkProject(t, "other")
	if err != nil || slices.Contains(paths(c), starter) || c.Spec.Manifest.Run.Command != "" {
		t.Errorf("without the dependency: %v, %+v", err, c.Spec.Manifest.Run)
	}
}

func TestPython_RefusesAnotherSDK(t *testing.T) {
	for _, need := range []string{"sallyport-sdk==0.0.9", "sallyport-sdk>=9", "sallyport-sdk~=9.1", "sallyport-sdk==0.1.0.1"} {
		if _, err := sdkProject(t, need); err == nil || !strings.Contains(err.Error(), "this version of sallyport has") {
			t.Errorf("%s: %v", need, err)
		}
	}
}
