package keys_test

import (
	"testing"

	"github.com/sallyport-project/sallyport/internal/keys"
)

func TestVault_Password(t *testing.T) {
	kek := newKEK(t)
	v, root, err := keys.Create(t.Context(), keys.Config{KEK: kek})
	if err != nil {
		t.Fatal(err)
	}
	again, err := keys.Load(t.Context(), keys.Config{KEK: kek}, []keys.Key{root})
	if err != nil {
		t.Fatal(err)
	}
	text := func(v *keys.Vault, purpose, name string) string {
		p, err := v.Password(purpose, name)
		if err != nil {
			t.Fatal(err)
		}
		return string(p.Reveal())
	}
	a := text(v, "extension", "a")
	if len(a) != 64 || a != text(again, "extension", "a") {
		t.Error("a replica has another password")
	}
	if a == text(v, "extension", "b") || a == text(v, "other", "a") {
		t.Error("two names have one password")
	}
}
