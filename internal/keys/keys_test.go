package keys_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/secret"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is a time that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newKEK(t testing.TB) *file.KEK {
	t.Helper()
	k, err := file.Create(file.Config{Path: t.TempDir() + "/kek"})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newVault(t testing.TB) (*keys.Vault, keys.Key, keys.Config) {
	t.Helper()
	c := &clock{start}
	cfg := keys.Config{KEK: newKEK(t), Now: c.now}
	v, root, err := keys.Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v, root, cfg
}

func wantInternal(t *testing.T, err error, part string) {
	t.Helper()
	if !fault.Is(err, fault.Internal) {
		t.Fatalf("got %v, want a fault of kind internal", err)
	}
	if !strings.Contains(err.Error(), part) {
		t.Errorf("the text %q does not name %q", err, part)
	}
}

func TestVault_Open(t *testing.T) {
	v, root, cfg := newVault(t)
	value := secret.FromString("the value")
	sealed, err := v.Seal("resources", "row-1", 3, value)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, value.Reveal()) {
		t.Fatal("the sealed value shows the plaintext")
	}
	if len(sealed) != value.Len()+keys.Overhead {
		t.Errorf("%d bytes sealed, want %d", len(sealed), value.Len()+keys.Overhead)
	}
	again, err := keys.Load(t.Context(), cfg, []keys.Key{root})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("opens after a restart", func(t *testing.T) {
		got, err := again.Open("resources", "row-1", 3, sealed)
		if err != nil || !got.Equal(value) {
			t.Fatalf("got %d bytes, %v", got.Len(), err)
		}
	})
	for name, open := range map[string]func() (secret.Bytes, error){
		"another table":   func() (secret.Bytes, error) { return v.Open("grants", "row-1", 3, sealed) },
		"another row":     func() (secret.Bytes, error) { return v.Open("resources", "row-2", 3, sealed) },
		"another version": func() (secret.Bytes, error) { return v.Open("resources", "row-1", 4, sealed) },
		"shifted names":   func() (secret.Bytes, error) { return v.Open("resourcesr", "ow-1", 3, sealed) },
		"cut":             func() (secret.Bytes, error) { return v.Open("resources", "row-1", 3, sealed[:len(sealed)-1]) },
		"extended": func() (secret.Bytes, error) {
			return v.Open("resources", "row-1", 3, append(bytes.Clone(sealed), 0))
		},
		"empty": func() (secret.Bytes, error) { return v.Open("resources", "row-1", 3, nil) },
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			_, err := open()
			if !fault.Is(err, fault.Internal) {
				t.Fatalf("got %v", err)
			}
		})
	}
	t.Run("refuses another store's value by name", func(t *testing.T) {
		other, _, _ := newVault(t)
		_, err := other.Open("resources", "row-1", 3, sealed)
		wantInternal(t, err, "resources row-1")
		wantInternal(t, err, root.ID)
	})
	t.Run("refuses a value beyond the limit", func(t *testing.T) {
		_, err := v.Seal("resources", "row-1", 1, secret.New(make([]byte, keys.MaxPlaintext+1)))
		if !fault.Is(err, fault.Invalid) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestVault_Open_refusesEveryMutant(t *testing.T) {
	v, _, _ := newVault(t)
	sealed, err := v.Seal("resources", "row", 1, secret.FromString("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(sealed) {
		mutant := bytes.Clone(sealed)
		mutant[bit/8] ^= 1 << (bit % 8)
		if _, err := v.Open("resources", "row", 1, mutant); !fault.Is(err, fault.Internal) {
			t.Fatalf("bit %d flipped: got %v", bit, err)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	opened := 0
	for range 1000 {
		mutant := bytes.Clone(sealed)
		for range 1 + random.IntN(8) {
			mutant[random.IntN(len(mutant))] = byte(random.Uint32())
		}
		if bytes.Equal(mutant, sealed) {
			continue
		}
		if _, err := v.Open("resources", "row", 1, mutant); err == nil {
			opened++
		}
	}
	if opened > 0 {
		t.Fatalf("%d of 1000 mutants opened", opened)
	}
}

func TestVault_Seal_neverRepeats(t *testing.T) {
	v, _, _ := newVault(t)
	seen := map[string]bool{}
	for range 1000 {
		sealed, err := v.Seal("t", "r", 1, secret.FromString("same"))
		if err != nil {
			t.Fatal(err)
		}
		if salt := string(sealed[27:59]); seen[salt] {
			t.Fatal("a salt, and with it a key and nonce, came twice")
		} else {
			seen[salt] = true
		}
	}
}

func TestVault_Seal_failsWithoutRandomness(t *testing.T) {
	cfg := keys.Config{KEK: newKEK(t), Rand: &ending{left: 33}}
	v, _, err := keys.Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Seal("t", "r", 1, secret.FromString("x")); err == nil {
		t.Fatal("sealed without randomness")
	}
}

// ending is a random source that dries up.
type ending struct{ left int }

func (e *ending) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, errors.New("no more")
	}
	n := min(len(p), e.left)
	e.left -= n
	for i := range n {
		p[i] = byte(i)
	}
	return n, nil
}

func TestVault_Open_isInverse(t *testing.T) {
	v, _, _ := newVault(t)
	rapid.Check(t, func(t *rapid.T) {
		table, row := rapid.String().Draw(t, "table"), rapid.String().Draw(t, "row")
		version, value := rapid.Int64().Draw(t, "version"), rapid.SliceOf(rapid.Byte()).Draw(t, "value")
		sealed, err := v.Seal(table, row, version, secret.New(bytes.Clone(value)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Open(table, row, version, sealed)
		if err != nil || !bytes.Equal(got.Reveal(), value) {
			t.Fatalf("got %v", err)
		}
		if _, err := v.Open(table, row, version+1, sealed); err == nil {
			t.Fatal("opened in another version")
		}
	})
}

func TestVault_Generate(t *testing.T) {
	v, root, _ := newVault(t)
	for _, c := range []struct {
		purpose   keys.Purpose
		algorithm keys.Algorithm
	}{{keys.RowMAC, keys.Random256}, {keys.Pepper, keys.Random256}, {keys.Token, keys.Ed25519}, {keys.EAR, keys.ECDSAP256}, {keys.Ledger, keys.Ed25519}} {
		t.Run(string(c.purpose), func(t *testing.T) {
			k, err := v.Generate(t.Context(), c.purpose, c.algorithm)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Validate(); err != nil {
				t.Fatal(err)
			}
			private, err := v.Reveal(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(k.Sealed, private.Reveal()) {
				t.Fatal("the row shows the private bytes")
			}
			if c.algorithm == keys.Random256 {
				if private.Len() != 32 || k.Public != "" {
					t.Errorf("%d bytes, public %q", private.Len(), k.Public)
				}
				return
			}
			signer, err := v.Signer(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			if public, err := keys.PublicPEM(signer.Public()); err != nil || public != k.Public {
				t.Errorf("public part %q, %v", public, err)
			}
		})
	}
	t.Run("refuses a private part of another key", func(t *testing.T) {
		a, errA := v.Generate(t.Context(), keys.Token, keys.Ed25519)
		b, errB := v.Generate(t.Context(), keys.Token, keys.Ed25519)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		a.Public = b.Public
		_, err := v.Signer(t.Context(), a)
		wantInternal(t, err, a.ID)
	})
	t.Run("refuses a row-MAC key that is passed off as a root", func(t *testing.T) {
		k, err := v.Generate(t.Context(), keys.RowMAC, keys.Random256)
		if err != nil {
			t.Fatal(err)
		}
		k.Purpose = keys.Root
		_, err = v.Reveal(t.Context(), k)
		wantInternal(t, err, k.ID)
	})
	t.Run("refuses the root under another id", func(t *testing.T) {
		k, err := v.Generate(t.Context(), keys.RowMAC, keys.Random256)
		if err != nil {
			t.Fatal(err)
		}
		moved := root
		moved.ID = k.ID
		_, err = v.Reveal(t.Context(), moved)
		wantInternal(t, err, "unwrap root key")
	})
}

func TestVault_Load(t *testing.T) {
	v, root, cfg := newVault(t)
	second, err := v.Generate(t.Context(), keys.Root, keys.Random256)
	if err != nil {
		t.Fatal(err)
	}
	old, err := v.Seal("t", "r", 1, secret.FromString("old"))
	if err != nil {
		t.Fatal(err)
	}
	turned, err := v.With(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := keys.Load(t.Context(), cfg, []keys.Key{second, root})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]*keys.Vault{"with": turned, "loaded": loaded} {
		t.Run(name+" opens old values and seals under the new root", func(t *testing.T) {
			if got, err := v.Open("t", "r", 1, old); err != nil || string(got.Reveal()) != "old" {
				t.Fatal(err)
			}
			fresh, err := v.Seal("t", "r", 2, secret.FromString("new"))
			if err != nil {
				t.Fatal(err)
			}
			if by, err := keys.SealedBy(fresh); err != nil || by != second.ID {
				t.Fatalf("sealed by %s, %v", by, err)
			}
		})
	}
	t.Run("refuses to start without a root", func(t *testing.T) {
		_, err := keys.Load(t.Context(), cfg, nil)
		wantInternal(t, err, "no active root key")
	})
	t.Run("refuses to start with a root of another KEK", func(t *testing.T) {
		_, err := keys.Load(t.Context(), keys.Config{KEK: newKEK(t)}, []keys.Key{root})
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), cfg.KEK.ID()) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("refuses to start with a changed root", func(t *testing.T) {
		bad := root
		bad.Sealed = bytes.Clone(root.Sealed)
		bad.Sealed[len(bad.Sealed)-1] ^= 1
		_, err := keys.Load(t.Context(), cfg, []keys.Key{second, bad})
		wantInternal(t, err, root.ID)
	})
}

func TestKey_Scan(t *testing.T) {
	v, _, _ := newVault(t)
	k, err := v.Generate(t.Context(), keys.EAR, keys.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	k.NotAfter = start.Add(time.Hour)
	var got keys.Key
	columns := k.Columns()
	err = got.Scan(func(dest ...any) error {
		if len(dest) != len(columns) {
			t.Fatalf("%d destinations for %d columns", len(dest), len(columns))
		}
		for i, d := range dest {
			switch d := d.(type) {
			case *string:
				*d = columns[i].(string)
			case *int64:
				*d = columns[i].(int64)
			case *[]byte:
				*d = columns[i].([]byte)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(k, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzVault_Open(f *testing.F) {
	v, _, _ := newVault(f)
	good, err := v.Seal("t", "r", 1, secret.FromString("value"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:60])
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		got, err := v.Open("t", "r", 1, sealed)
		if (err == nil) != bytes.Equal(sealed, good) {
			t.Fatalf("%d bytes opened to %d: %v", len(sealed), got.Len(), err)
		}
	})
}
