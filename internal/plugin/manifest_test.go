package plugin

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestManifest_Refuses(t *testing.T) {
	good := withFile(testManifest("x"))
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*manifest.Manifest){
		"schema":            func(m *manifest.Manifest) { m.Schema = "v0" },
		"upper-case name":   func(m *manifest.Manifest) { m.Name = "X" },
		"path as name":      func(m *manifest.Manifest) { m.Name = "../x" },
		"long name":         func(m *manifest.Manifest) { m.Name = strings.Repeat("x", 65) },
		"no publisher":      func(m *manifest.Manifest) { m.Publisher = "" },
		"version":           func(m *manifest.Manifest) { m.Version = "v1" },
		"leading zero":      func(m *manifest.Manifest) { m.Version = "01.0.0" },
		"control in text":   func(m *manifest.Manifest) { m.Revocation.Address = "a\x1b[2J" },
		"host api":          func(m *manifest.Manifest) { m.HostAPI = manifest.Range{Min: 2, Max: 1} },
		"effects":           func(m *manifest.Manifest) { m.Effects = "" },
		"revocation":        func(m *manifest.Manifest) { m.Revocation.Needs = "" },
		"no role":           func(m *manifest.Manifest) { m.Roles = nil },
		"unknown role":      func(m *manifest.Manifest) { m.Roles = []string{"root"} },
		"role of a stage":   func(m *manifest.Manifest) { m.Roles = append(m.Roles, manifest.RoleAnalyzer) },
		"kind twice":        func(m *manifest.Manifest) { m.Kinds = []string{"a", "a"} },
		"kind with slash":   func(m *manifest.Manifest) { m.Kinds = []string{"a/b"} },
		"contract":          func(m *manifest.Manifest) { m.Contract = "x" },
		"no file":           func(m *manifest.Manifest) { m.Files = nil },
		"role without kind": func(m *manifest.Manifest) { m.Kinds = nil },
		"min secure":        func(m *manifest.Manifest) { m.MinSecureVersion = "1.x" },
		"forbids itself":    func(m *manifest.Manifest) { m.MinSecureVersion = "1.0.1" },
		"network":           func(m *manifest.Manifest) { m.Capabilities.Network = []string{"example.com"} },
		"capability twice":  func(m *manifest.Manifest) { m.Capabilities.Network = []string{"*:443", "*:443"} },
		"files":             func(m *manifest.Manifest) { m.Capabilities.Files = []string{"/etc/../root"} },
		"whole system":      func(m *manifest.Manifest) { m.Capabilities.Files = []string{"/"} },
		"environment":       func(m *manifest.Manifest) { m.Capabilities.Environment = []string{"A=1"} },
		"memory":            func(m *manifest.Manifest) { m.Capabilities.MemoryMB = -1 },
		"processes":         func(m *manifest.Manifest) { m.Capabilities.Processes = 1 << 20 },
		"provenance":        func(m *manifest.Manifest) { m.Provenance = &manifest.Provenance{Source: "x", Revision: "main"} },
		"no source":         func(m *manifest.Manifest) { m.Provenance = &manifest.Provenance{} },
		"no platform":       func(m *manifest.Manifest) { m.Files[0].OS, m.Files[0].Arch = "", "" },
		"half a platform":   func(m *manifest.Manifest) { m.Files[0].Arch = "" },
		"side":              func(m *manifest.Manifest) { m.Files[0].For = "both" },
		"empty executable":  func(m *manifest.Manifest) { m.Files[0].Size = 0 },
		"file from root":    func(m *manifest.Manifest) { m.Files[0].Path = "/x" },
		"file over the top": func(m *manifest.Manifest) { m.Files[0].Path = ".." },
		"manifest as file":  func(m *manifest.Manifest) { m.Files[0].Path = "manifest.json" },
		"file too large":    func(m *manifest.Manifest) { m.Files[0].Size = manifest.MaxFileBytes + 1 },
		"digest":            func(m *manifest.Manifest) { m.Files[0].SHA256 = strings.ToUpper(m.Files[0].SHA256) },
		"file twice":        func(m *manifest.Manifest) { m.Files = append(m.Files, m.Files[0]) },
		"params of nothing": func(m *manifest.Manifest) { m.Params = map[string]manifest.Fields{"other": {}} },
		"field type":        func(m *manifest.Manifest) { m.Config = manifest.Fields{"a": {Type: "float"}} },
		"field default":     func(m *manifest.Manifest) { m.Config = manifest.Fields{"a": {Type: "string", Default: 1.0}} },
	} {
		t.Run(name, func(t *testing.T) {
			m := good
			m.Files = append([]manifest.File(nil), good.Files...)
			change(&m)
			data, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseManifest(data); !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %v", err)
			}
		})
	}
	data, err := encodeManifest(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"unknown member":   bytes.Replace(data, []byte(`"name"`), []byte(`"evil": 1, "name"`), 1),
		"duplicate member": bytes.Replace(data, []byte(`"name"`), []byte(`"name": "y", "name"`), 1),
		"other case":       bytes.Replace(data, []byte(`"name"`), []byte(`"Name"`), 1),
		"trailing data":    append(bytes.Clone(data), '{'),
		"oversized":        append(bytes.Clone(data), bytes.Repeat([]byte(" "), manifest.MaxBytes)...),
	} {
		if _, err := ParseManifest(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSupported_SaysWhyNot(t *testing.T) {
	for reason, change := range map[Reason]func(*manifest.Manifest){
		ReasonIncompatible: func(m *manifest.Manifest) { m.HostAPI = manifest.Range{Min: 2, Max: 3} },
		ReasonTier:         func(m *manifest.Manifest) { m.Tier = "Pro" },
		ReasonAudience:     func(m *manifest.Manifest) { m.Audience = "customer-7" },
	} {
		m := withFile(testManifest("x"))
		change(&m)
		if err := Supported(m); !fault.Is(err, fault.Denied) || ReasonOf(err) != reason {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

func TestSupported_RefusesRolesOfLaterVersions(t *testing.T) {
	for _, role := range []string{manifest.RoleObserver, manifest.RoleInterceptor} {
		m := withFile(testManifest("x"))
		m.Roles = []string{role}
		if err := m.Validate(); err != nil {
			t.Errorf("%s: %v", role, err)
		}
		if err := Supported(m); ReasonOf(err) != ReasonIncompatible {
			t.Errorf("%s: %v", role, err)
		}
	}
	m := withFile(testManifest("x"))
	m.Roles, m.Commands = append(m.Roles, manifest.RoleCLI), []manifest.Command{{Name: "x", Help: "do x"}}
	if err := Supported(m); err != nil {
		t.Errorf("a part for the command line is no server's affair: %v", err)
	}
}

func TestManifest_OfRoleKBS(t *testing.T) {
	good := func() manifest.Manifest {
		m := withFile(testManifest("x"))
		m.Contract, m.Roles, m.Kinds, m.Params = manifest.ContractKBS, []string{manifest.RoleKBS}, nil, nil
		m.KBS = &manifest.KBS{Routes: []manifest.KBSRoute{{Path: "models/open", Methods: []string{"GET"}, Floor: manifest.FloorPublic}, {Floor: manifest.FloorAttested}}}
		return m
	}
	if m := good(); m.Validate() != nil || Supported(m) != nil {
		t.Fatal(m.Validate(), Supported(m))
	}
	want := []string{"kbs attested every method /", "kbs public GET /models/open"}
	if asks := Asks(good(), manifest.ForServer); len(NewAsks(want, asks)) > 0 {
		t.Errorf("it asks for %v, without %v", asks, NewAsks(want, asks))
	}
	for name, change := range map[string]func(*manifest.Manifest){
		"another contract":      func(m *manifest.Manifest) { m.Contract = manifest.ContractSallyport },
		"another role":          func(m *manifest.Manifest) { m.Roles = []string{manifest.RoleVerifier}; m.KBS = nil },
		"a further role":        func(m *manifest.Manifest) { m.Roles = append(m.Roles, manifest.RoleVerifier) },
		"kinds":                 func(m *manifest.Manifest) { m.Kinds = []string{"k"} },
		"an unknown floor":      func(m *manifest.Manifest) { m.KBS.Routes[0].Floor = "open" },
		"no floor":              func(m *manifest.Manifest) { m.KBS.Routes[0].Floor = "" },
		"a small method":        func(m *manifest.Manifest) { m.KBS.Routes[0].Methods[0] = "get" },
		"a method not passed":   func(m *manifest.Manifest) { m.KBS.Routes[0].Methods[0] = "PATCH" },
		"a slash before":        func(m *manifest.Manifest) { m.KBS.Routes[0].Path = "/models" },
		"a slash after":         func(m *manifest.Manifest) { m.KBS.Routes[0].Path = "models/" },
		"two slashes":           func(m *manifest.Manifest) { m.KBS.Routes[0].Path = "a//b" },
		"an unknown encryption": func(m *manifest.Manifest) { m.KBS.Encrypt = "never" },
		"sealed for nobody":     func(m *manifest.Manifest) { m.KBS.Encrypt = manifest.EncryptAlways },
	} {
		m := good()
		change(&m)
		if err := m.Validate(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	m := withFile(testManifest("x"))
	m.KBS = &manifest.KBS{}
	if m.Validate() == nil {
		t.Error("kbs without the role is accepted")
	}
}

func TestReadSpec_ReadsTheFirstPartyPlugin(t *testing.T) {
	data, err := os.ReadFile("../../plugins/sshcert/plugin.json")
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadSpec(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := withFile(m).Validate(); err != nil {
		t.Fatal(err)
	}
}

func FuzzManifest(f *testing.F) {
	data, err := encodeManifest(withFile(testManifest("x")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"schema":"sallyport.plugin/v1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		again, err := encodeManifest(m)
		if err != nil {
			t.Skip() // larger than allowed once it is indented
		}
		if _, err := ParseManifest(again); err != nil {
			t.Fatalf("an accepted manifest does not read back: %v", err)
		}
	})
}
