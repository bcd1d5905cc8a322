package project

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// committed makes a repository with the files of a folder.
func committed(t *testing.T, dir string) {
	t.Helper()
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "x"}} {
		if args[0] == "add" {
			args = append([]string{"-c", "core.symlinks=true"}, args...)
		}
		if _, err := git(t.Context(), dir, args...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFetch_Refuses(t *testing.T) {
	for _, bad := range [][2]string{
		{"--upload-pack=evil", "x"},
		{"ext::sh -c evil", "x"},
		{"", "x"},
		{"http://h/p", "x"},
		{"git://h/p", "x"},
		{"ext://h/p", "x"},
		{"ssh://-oProxyCommand=evil/p", "x"},
		{"ssh://-u@h/p", "x"},
		{"https://u:secret@h/p", "x"},
		{"https://h/p?token=secret", "x"},
		{"https:///p", "x"},
		{"file://h/p", "x"},
		{"host:path", "x"},
		{"https://h/p\n", "x"},
		{".", ""},
		{".", "--evil"},
		{".", "a:b"},
		{".", "+a"},
		{".", "a..b"},
		{".", "a b"},
		{".", "^x"},
	} {
		_, _, err := Fetch(t.Context(), bad[0], bad[1])
		if !fault.Is(err, fault.Invalid) || strings.Contains(fault.Public(err), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Neither the environment, nor the user's configuration and templates, nor the
// repository make a fetch run anything or change a byte.
func TestFetch_RunsNothing(t *testing.T) {
	home, repo := t.TempDir(), t.TempDir()
	ran := filepath.Join(home, "ran")
	lay(t, home, map[string]string{
		".gitconfig":                   "[init]\n\ttemplateDir = " + home + "/template\n[filter \"evil\"]\n\tsmudge = touch " + ran + "\n\trequired = true\n[core]\n\tautocrlf = true\n",
		"template/hooks/post-checkout": "#!/bin/sh\ntouch " + ran + "\n",
	})
	if err := os.Chmod(filepath.Join(home, "template/hooks/post-checkout"), 0o700); err != nil {
		t.Fatal(err)
	}
	lay(t, repo, map[string]string{"x.py": "$Id$\nprint(1)\n", ".gitattributes": "*.py filter=evil ident eol=crlf\n"})
	committed(t, repo)
	t.Setenv("HOME", home)
	t.Setenv("GIT_DIR", "/nowhere")
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "core.sshCommand")
	t.Setenv("GIT_CONFIG_VALUE_0", "touch "+ran)
	dir, _, err := Fetch(t.Context(), "file://"+repo, "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if got, err := os.ReadFile(filepath.Join(dir, "x.py")); err != nil || string(got) != "$Id$\nprint(1)\n" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("something ran")
	}
}

func TestFetch_RefusesLinks(t *testing.T) {
	repo := t.TempDir()
	lay(t, repo, map[string]string{"x.py": ""})
	if err := os.Symlink("/etc/passwd", filepath.Join(repo, "plugin.json")); err != nil {
		t.Fatal(err)
	}
	committed(t, repo)
	if _, _, err := Fetch(t.Context(), repo, "HEAD"); !fault.Is(err, fault.Denied) || !strings.Contains(fault.Public(err), "plugin.json") {
		t.Errorf("%v", err)
	}
}
