package keys_test

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/secret"
)

func TestVault_Advance(t *testing.T) {
	v, _, cfg := newVault(t)
	ctx := t.Context()
	token, err := v.Generate(ctx, keys.Token, keys.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	before, err := v.Signer(ctx, token)
	if err != nil {
		t.Fatal(err)
	}
	retiring, err := v.Advance(ctx, token, keys.Retiring, start.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	after, err := v.Signer(ctx, retiring)
	if err != nil {
		t.Fatal(err)
	}
	if public, ok := before.Public().(ed25519.PublicKey); !ok || !public.Equal(after.Public()) {
		t.Error("the key changed with its state")
	}
	if retiring.Version != 2 || !retiring.NotAfter.Equal(start.Add(time.Hour)) {
		t.Errorf("version %d until %s", retiring.Version, retiring.NotAfter)
	}
	t.Run("an old version's bytes do not open in the new one", func(t *testing.T) {
		stale := retiring
		stale.Sealed = token.Sealed
		_, err := v.Reveal(ctx, stale)
		wantInternal(t, err, token.ID)
	})
	t.Run("retired loses its bytes and never comes back", func(t *testing.T) {
		retired, err := v.Advance(ctx, retiring, keys.Retired, time.Time{})
		if err != nil || len(retired.Sealed) != 0 {
			t.Fatalf("%d bytes, %v", len(retired.Sealed), err)
		}
		if _, err := v.Advance(ctx, retired, keys.Active, time.Time{}); err == nil {
			t.Error("a retired key became active")
		}
		if _, err := v.Advance(ctx, retiring, keys.Active, time.Time{}); err == nil {
			t.Error("a retiring key became active")
		}
	})
	t.Run("a damaged seal keeps no key from being retired, only from the rest", func(t *testing.T) {
		damaged := retiring
		damaged.Sealed = []byte("damaged")
		if _, err := v.Advance(ctx, damaged, keys.Retiring, time.Time{}); err == nil {
			t.Error("a damaged key was sealed anew")
		}
		retired, err := v.Advance(ctx, damaged, keys.Retired, time.Time{})
		if err != nil || retired.State != keys.Retired || retired.Version != 3 || len(retired.Sealed) != 0 {
			t.Fatalf("%+v, %v", retired, err)
		}
		if _, err := v.Advance(ctx, retired, keys.Retired, time.Time{}); err == nil {
			t.Error("a retired key was retired again")
		}
	})
	t.Run("rewraps under a new KEK", func(t *testing.T) {
		dir := t.TempDir()
		first, err := file.Create(file.Config{Path: dir + "/one"})
		if err != nil {
			t.Fatal(err)
		}
		v, root, err := keys.Create(ctx, keys.Config{KEK: first, Now: cfg.Now})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Create(file.Config{Path: dir + "/two"}); err != nil {
			t.Fatal(err)
		}
		both, err := file.Load(file.Config{Path: dir + "/two", Old: []string{dir + "/one"}})
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := v.Seal("t", "r", 1, secret.FromString("kept"))
		if err != nil {
			t.Fatal(err)
		}
		turning, err := keys.Load(ctx, keys.Config{KEK: both, Now: cfg.Now}, []keys.Key{root})
		if err != nil {
			t.Fatal(err)
		}
		rewrapped, err := turning.Advance(ctx, root, keys.Active, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		alone, err := file.Load(file.Config{Path: dir + "/two"})
		if err != nil {
			t.Fatal(err)
		}
		last, err := keys.Load(ctx, keys.Config{KEK: alone, Now: cfg.Now}, []keys.Key{rewrapped})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := last.Open("t", "r", 1, sealed); err != nil || string(got.Reveal()) != "kept" {
			t.Fatal(err)
		}
		if _, err := keys.Load(ctx, keys.Config{KEK: alone, Now: cfg.Now}, []keys.Key{root}); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("the old wrap still opens: %v", err)
		}
	})
}
