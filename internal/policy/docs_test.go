package policy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the guide shows compiles, and its tests of its first document pass.
func TestGuide_examplesHold(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "policy.md"))
	if err != nil {
		t.Fatal(err)
	}
	var first, tests string
	blocks := strings.Split(string(text), "```rego\n")[1:]
	for i, b := range blocks {
		source, _, _ := strings.Cut(b, "```")
		switch {
		case strings.HasPrefix(source, "package sallyport_test"):
			tests = source
			continue
		case !strings.HasPrefix(source, "package "):
			source = "package sallyport\n" + source
		}
		if i == 0 {
			first = source
		}
		if _, err := Compile([]Document{{Name: "guide", Version: 1, Kind: Sallyport, Source: source}}, clock); err != nil {
			t.Errorf("block %d: %v", i+1, Problems(err))
		}
	}
	r, err := Test(context.Background(), []Document{{Name: "ssh", Kind: Sallyport, Source: first}}, []Document{{Name: "ssh_test", Source: tests}}, 0)
	if err != nil || !r.OK() || r.Passed != 2 || r.Failed != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}
