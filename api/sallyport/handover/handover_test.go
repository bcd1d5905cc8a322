package handover

import (
	"crypto/ed25519"
	"strings"
	"testing"
)

func TestParse_ReadsWhatBytesWrites(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	text, err := Document{Plugin: "tags", Version: "1.0.0", Command: "tag", Session: &Session{Token: "t", Key: NewKey(key)}}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse([]byte(strings.Replace(string(text), "{", `{"of_a_later_version": 1, `, 1)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Session.Key.Private()
	if err != nil || !got.Equal(key) || d.Plugin != "tags" || d.Command != "tag" {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"", "[]", "{}", `{"schema": "another"}`, strings.Repeat(" ", MaxBytes+1)} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%.20q was read", bad)
		}
	}
}

// FuzzParse reads whatever stands on the descriptor: what is read can be written and
// read again, and a key in it is one or an error.
func FuzzParse(f *testing.F) {
	text, err := Document{Plugin: "p", URL: "https://x", Session: &Session{Key: NewKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))}}.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"schema": 1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse(text)
		if err != nil {
			return
		}
		if d.Session != nil {
			if key, err := d.Session.Key.Private(); err == nil && len(key) != ed25519.PrivateKeySize {
				t.Errorf("a key of %d bytes", len(key))
			}
		}
		again, err := d.Bytes()
		if err != nil {
			return // escapes can make it longer than it may be
		}
		if _, err := Parse(again); err != nil {
			t.Errorf("%q cannot be read again: %v", again, err)
		}
	})
}
