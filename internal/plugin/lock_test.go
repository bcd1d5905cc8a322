package plugin

import (
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// TestLock_NoticesDriftBothWays compares what is installed with a lock.
func TestLock_NoticesDriftBothWays(t *testing.T) {
	digest := func(c string) string { return digestPrefix + strings.Repeat(c, 64) }
	a := Installed{Name: "a", Package: "1.0.0", Digest: digest("a"), KeyIDs: []string{"k"}, State: Active}
	b := Installed{Name: "b", Package: "2.0.0", Digest: digest("b"), State: Active}
	text, err := LockOf([]Installed{b, a}).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	l, err := ParseLock(text)
	if err != nil || len(l.Plugins) != 2 || l.Plugins[0].Name != "a" || l.Plugins[0].KeyIDs[0] != "k" {
		t.Fatalf("%+v, %v", l, err)
	}
	other, gone, third := a, b, a
	other.Digest, gone.State, third.Name = digest("c"), Removed, "c"
	for name, c := range map[string]struct {
		rows []Installed
		says string
	}{
		"the same":    {[]Installed{a, b}, ""},
		"one unread":  {[]Installed{a, Unreadable("b")}, ""},
		"one more":    {[]Installed{a, b, third}, "c 1.0.0 is installed and not locked"},
		"one less":    {[]Installed{a, gone}, "b 2.0.0 is locked and not installed"},
		"another one": {[]Installed{other, b}, "a is locked as 1.0.0"},
	} {
		err := l.Drift(c.rows)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if ReasonOf(err) != ReasonNotLocked || !strings.Contains(fault.Public(err), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]string{
		"another schema": `{"schema":"x","plugins":[]}`,
		"twice":          strings.Replace(string(text), `"b"`, `"a"`, 1),
		"no digest":      strings.Replace(string(text), "sha256:", "sha512:", 1),
		"more":           strings.Replace(string(text), `"schema"`, `"more":1,"schema"`, 1),
	} {
		if _, err := ParseLock([]byte(bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzLock(f *testing.F) {
	f.Add([]byte(`{"schema":"sallyport.plugins.lock/v1","plugins":[{"name":"a","version":"1.0.0","digest":"sha256:` + strings.Repeat("a", 64) + `","key_ids":[]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLock(data)
		if err == nil && len(l.Digests()) != len(l.Plugins) {
			t.Fatal("a name is there twice")
		}
	})
}
