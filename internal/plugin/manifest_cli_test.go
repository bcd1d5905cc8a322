package plugin

import (
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// toolManifest is a package that has nothing but a command.
func toolManifest() manifest.Manifest {
	m := withFile(testManifest("tags"))
	m.Roles, m.Kinds, m.Params = []string{manifest.RoleCLI}, nil, nil
	m.Commands = []manifest.Command{{Name: "tag", Help: "label machines"}}
	m.Capabilities = manifest.Capabilities{
		Scopes:      []string{"administer:grant", "release:ssh-*", "administer:subject/**", "*:*"},
		Environment: []string{"EDITOR", "ATTESTATION_TOKEN", "SALLYPORT_URL"},
	}
	return m
}

func TestManifest_HoldsCommandsToTheirForm(t *testing.T) {
	if err := toolManifest().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*manifest.Manifest){
		"none":               func(m *manifest.Manifest) { m.Commands = nil },
		"without the role":   func(m *manifest.Manifest) { m.Roles, m.Kinds = []string{manifest.RoleVender}, []string{"x"} },
		"upper case":         func(m *manifest.Manifest) { m.Commands[0].Name = "Tag" },
		"option":             func(m *manifest.Manifest) { m.Commands[0].Name = "-tag" },
		"cobra's own":        func(m *manifest.Manifest) { m.Commands[0].Name = "__complete" },
		"path":               func(m *manifest.Manifest) { m.Commands[0].Name = "../tag" },
		"long":               func(m *manifest.Manifest) { m.Commands[0].Name = strings.Repeat("t", 33) },
		"no help":            func(m *manifest.Manifest) { m.Commands[0].Help = "" },
		"help with colours":  func(m *manifest.Manifest) { m.Commands[0].Help = "a\x1b[31m" },
		"help of two lines":  func(m *manifest.Manifest) { m.Commands[0].Help = "a\nauth    log in" },
		"twice":              func(m *manifest.Manifest) { m.Commands = append(m.Commands, m.Commands[0]) },
		"scope without verb": func(m *manifest.Manifest) { m.Capabilities.Scopes = []string{"ssh"} },
		"empty segment":      func(m *manifest.Manifest) { m.Capabilities.Scopes = []string{"release:a//b"} },
		"stars inside":       func(m *manifest.Manifest) { m.Capabilities.Scopes = []string{"release:**/b"} },
		"scope twice":        func(m *manifest.Manifest) { m.Capabilities.Scopes = []string{"release:a", "release:a"} },
		"preload":            func(m *manifest.Manifest) { m.Capabilities.Environment = []string{"LD_PRELOAD"} },
		"python's path":      func(m *manifest.Manifest) { m.Capabilities.Environment = []string{"PYTHONPATH"} },
		"the user's home":    func(m *manifest.Manifest) { m.Capabilities.Environment = []string{"SALLYPORT_HOME"} },
	} {
		m := toolManifest()
		change(&m)
		if err := m.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestManifest_NamesACommandForEachEntryPoint(t *testing.T) {
	m := toolManifest()
	m.Commands = nil
	m.EntryPoints = map[string]map[string]string{manifest.GroupCLI: {"my-ext": "a.b:C", "other": "a.b:D"}}
	list := m.CommandList()
	if len(list) != 2 || list[0].Name != "my-ext" || list[1].Name != "other" || list[0].Help == "" {
		t.Fatalf("%+v", list)
	}
	m.EntryPoints[manifest.GroupCLI]["Not a command"] = "a.b:E"
	if err := m.Validate(); err == nil {
		t.Error("an entry point that cannot be a command was accepted")
	}
}

func TestAsks_ShowCommandsAndSession(t *testing.T) {
	all := strings.Join(Asks(toolManifest(), manifest.ForCLI), "\n")
	for _, want := range []string{"command tag", "session administer:grant", "environment ATTESTATION_TOKEN"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not shown in:\n%s", want, all)
		}
	}
}
