package audit

import (
	"strings"
	"testing"
)

func TestClaimed(t *testing.T) {
	for text, same := range map[string]bool{
		"": true, "bob": true, "repo:acme/app:ref:refs/heads/main": true, "grün": true, strings.Repeat("a", 256): true,
		strings.Repeat("a", 257): false, "a\nb": false, "a\x1b[2J": false, "\xff": false, "a\u202eb": false,
	} {
		got := Claimed(text)
		if (got == text) != same || !same && (!strings.HasPrefix(got, "sha256:") || len(got) != 71) {
			t.Errorf("%q is recorded as %q", text, got)
		}
	}
}
