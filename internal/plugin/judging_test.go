package plugin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// What cannot be read counts as the worst that it may have been, for what it was
// about and for nothing else.
func TestTrust_FailsClosedWhereItIsDamaged(t *testing.T) {
	p := newPublisher(t)
	binary := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(binary, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := p.pack(t, testManifest("x"), binary)
	good := p.trust
	without := good
	without.Keys = nil
	for name, c := range map[string]struct {
		trust  Trust
		damage Damaged
		reason Reason
	}{
		"nothing":             {good, Damaged{}, ReasonOK},
		"its publisher":       {good, Damaged{Publishers: map[string]bool{"tester": true}}, ReasonDamaged},
		"another publisher":   {good, Damaged{Publishers: map[string]bool{"other": true}}, ReasonOK},
		"its key":             {without, Damaged{Keys: map[string]bool{good.Keys[0].ID: true}}, ReasonDamaged},
		"another key":         {good, Damaged{Keys: map[string]bool{"00": true}}, ReasonOK},
		"its lowest version":  {good, Damaged{Floors: map[string]bool{"x": true}}, ReasonDamaged},
		"another one's":       {good, Damaged{Floors: map[string]bool{"y": true}}, ReasonOK},
		"a key, and no other": {without, Damaged{Keys: map[string]bool{"00": true}}, ReasonBadSignature},
	} {
		trust := c.trust
		trust.Damaged = c.damage
		_, err := Verify(file, trust)
		if ReasonOf(err) != c.reason || err != nil && !fault.Is(err, fault.Denied) {
			t.Errorf("%s is damaged: %v", name, err)
		}
	}
}
