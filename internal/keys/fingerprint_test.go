package keys_test

import (
	"crypto/sha256"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/secret"
)

func TestPeppers_Candidates(t *testing.T) {
	v, _, _ := newVault(t)
	ctx := t.Context()
	old, err := v.Generate(ctx, keys.Pepper, keys.Random256)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(keys.Pepper, []keys.Key{old})
	if err != nil {
		t.Fatal(err)
	}
	before, err := keys.NewPeppers(ctx, v, ring)
	if err != nil {
		t.Fatal(err)
	}
	turn, err := v.Rotate(ctx, ring, keys.Random256, 0)
	if err != nil {
		t.Fatal(err)
	}
	ring, err = keys.NewRing(keys.Pepper, append(turn.Changed, turn.Fresh))
	if err != nil {
		t.Fatal(err)
	}
	p, err := keys.NewPeppers(ctx, v, ring)
	if err != nil {
		t.Fatal(err)
	}
	written := before.FingerprintValue(secret.FromString("ghp_abc"))
	reported := sha256.Sum256([]byte("ghp_abc"))
	got := p.Candidates(reported)
	if want := []string{p.Fingerprint(reported), written}; !cmp.Equal(got, want) {
		t.Errorf("candidates %v, want %v", got, want)
	}
	if old := turn.Changed[0]; old.State != keys.Retiring || !old.Usable(start.AddDate(50, 0, 0)) {
		t.Errorf("the old pepper ends at %s", old.NotAfter)
	}
	if p.ID() != turn.Fresh.ID {
		t.Errorf("writes with %s", p.ID())
	}
	for _, v := range []string{" ghp_abc", "ghp_abc\r\n", "\tghp_abc \v\f"} {
		if p.FingerprintValue(secret.FromString(v)) != got[0] {
			t.Errorf("%q has another fingerprint", v)
		}
	}
	for _, v := range []string{"ghp_ab", "ghp_abc\u00a0", "\x00ghp_abc", "ghp_ abc", ""} {
		if p.FingerprintValue(secret.FromString(v)) == got[0] {
			t.Errorf("%q has the same fingerprint", v)
		}
	}
}
