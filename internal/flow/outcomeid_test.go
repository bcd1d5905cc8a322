package flow

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestOutcomeID_KeepsNeighboursInTimeTogether: ids of keys that begin with the
// time sort by it, and everything that must not be confused is told apart.
func TestOutcomeID_KeepsNeighboursInTimeTogether(t *testing.T) {
	part := rapid.StringMatching(`[!-~]{0,12}`)
	rapid.Check(t, func(r *rapid.T) {
		time, random := rapid.StringMatching(`[0-9A-Za-z]{10}`).Draw(r, "time"), part.Draw(r, "random")
		operation, subject, delegate := part.Draw(r, "operation"), part.Draw(r, "subject"), part.Draw(r, "delegate")
		got := outcomeID(time+random, operation, subject, delegate)
		if len(got) != 35 || !strings.HasPrefix(got, time+".") {
			r.Fatalf("key %s%s became %s", time, random, got)
		}
		if got != outcomeID(time+random, operation, subject, delegate) {
			r.Fatal("the id changes")
		}
		for what, other := range map[string]string{
			"key":       outcomeID(time+random+"x", operation, subject, delegate),
			"operation": outcomeID(time+random, operation+"x", subject, delegate),
			"subject":   outcomeID(time+random, operation, subject+"x", delegate),
			"delegate":  outcomeID(time+random, operation, subject, delegate+"x"),
			"boundary":  outcomeID(time+random, operation+"x", subject[min(1, len(subject)):], delegate),
		} {
			if other == got {
				r.Fatalf("another %s has the same id %s", what, got)
			}
		}
	})
	for _, key := range []string{"a", "short-key", "01ARZ-NDEKTSV", "ключключключ", strings.Repeat("%", 128)} {
		if got := outcomeID(key, "o", "s", ""); len(got) != 35 || !strings.HasPrefix(got, "0000000000.") {
			t.Errorf("key %q became %s", key, got)
		}
	}
}
