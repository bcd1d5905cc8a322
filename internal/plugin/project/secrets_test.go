package project

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// The values are put together here, so that this file is no finding itself.
var planted = map[string]string{
	"private key":            "-----BEGIN " + "PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hxY3kZ0mZ2mZ2mZ2mZ2mZ2mZ2mZ2mZ2mZ2mZ2\n",
	"age key":                "AGE-SECRET-" + "KEY-1" + strings.Repeat("QPZRY9X8", 8)[:58],
	"AWS access key":         "AKIA" + "J5QK7ZX2W4LM6N8P",
	"AWS secret key":         "aws_secret_access_key = " + "wJalrXUtnFEMIK7MDENGbPxRfiCYzzzzzzz1KEYs",
	"GitHub token":           "ghp_" + "a8Fk2LmQ9xZ7cVb3NwE5rTy6UiOpAsDfGhJk",
	"GitLab token":           "glpat-" + "x7Kf92LmQ0zVb3NwE5rT",
	"Slack token":            "xoxb-" + "123456789012-abcDEF123ghiJKL456mno",
	"Google API key":         "AIza" + "SyD4fK8mQ2xZ7cVb3NwE5rTy6UiOpAsDf1G",
	"Stripe key":             "sk_live" + "_4eC39HqLyjWDarjtT1zdp7dc",
	"package registry token": "npm_" + "a8Fk2LmQ9xZ7cVb3NwE5rTy6UiOpAsDfGhJk",
	"JSON web token":         "eyJhbGciOiJIUzI1NiIs" + ".eyJzdWIiOiIxMjM0NTY3ODkw" + ".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV",
	"assigned secret":        `API_TOKEN = "` + "q7Zk2LmX9bVc4NwE5rTy8UiOp1AsDfGh" + `"`,
}

func specOf(text string) plugin.Spec {
	return plugin.Spec{Sources: []plugin.Source{{File: manifest.File{Path: "a/b.py"}, Open: held([]byte(text))}}}
}

func TestSecrets_FindsEveryKind(t *testing.T) {
	for kind, value := range planted {
		found, err := Secrets(specOf("first line\n# "+value+"\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 1 || found[0].Kind != kind || found[0].File != "a/b.py" || found[0].Line != 2 {
			t.Errorf("%s: %+v", kind, found)
			continue
		}
		refusal := Refused(found)
		if !fault.Is(refusal, fault.Denied) || strings.Contains(refusal.Error(), value) {
			t.Errorf("%s: %v", kind, refusal)
		}
		for n := 0; n+12 <= len(value); n++ {
			if kind != "private key" && strings.Contains(refusal.Error(), value[n:n+12]) && n > 20 {
				t.Errorf("%s: the refusal has a part of the value", kind)
			}
		}
		// Who has looked names the fingerprint; it stands for this value alone.
		if left, err := Secrets(specOf(value), []string{found[0].Fingerprint}); err != nil || len(left) != 0 {
			t.Errorf("%s accepted: %v %v", kind, left, err)
		}
	}
	if _, err := Secrets(specOf("nothing"), []string{"0123456789abcdef"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a fingerprint of nothing: %v", err)
	}
	binary := "\x7fELF\x00\x00" + planted["private key"] + planted["assigned secret"]
	if found, err := Secrets(specOf(binary), nil); err != nil || len(found) != 1 || found[0].Kind != "private key" {
		t.Errorf("in a binary: %v %v", found, err)
	}
	escaped := `{"private_key": "` + strings.ReplaceAll(planted["private key"], "\n", `\n`) + `"}`
	if found, err := Secrets(specOf(escaped), nil); err != nil || len(found) != 1 {
		t.Errorf("in JSON: %v %v", found, err)
	}
}

func TestSecrets_LeavesOrdinaryTextAlone(t *testing.T) {
	for _, text := range []string{
		"-----BEGIN PRIVATE KEY-----", // as in a program that reads keys
		"-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ\n",
		"AKIAIOSFODNN7EXAMPLE",
		`token = "the-name-of-an-environment-variable"`,
		`password: "changeme"`,
		`secret_name = "projects/demo/secrets/database-password"`,
		`api_key = os.environ["SERVICE_API_KEY_FOR_PRODUCTION"]`,
		"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		`key = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1"`,
	} {
		if found, err := Secrets(specOf(text), nil); err != nil || len(found) != 0 {
			t.Errorf("%s: %v %v", text, found, err)
		}
	}
}

// TestSecrets_LooksAroundHintsAlone compares the search around hints with one of
// all bytes.
func TestSecrets_LooksAroundHintsAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = "\x00 \n-_.=:aZ9Gk"[r.IntN(13)]
	}
	at := 0
	for range 200 {
		for _, kind := range slices.Sorted(maps.Keys(planted)) {
			at += 1 + r.IntN(600)
			if at+1000 > len(data) {
				break
			}
			at += copy(data[at:], " "+planted[kind]+" ")
		}
	}
	for _, p := range patterns {
		want := p.find.FindAllSubmatchIndex(data, -1)
		if got := p.matches(data); len(got) < 50 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d matches, of %d", p.kind, len(got), len(want))
		}
	}
}
