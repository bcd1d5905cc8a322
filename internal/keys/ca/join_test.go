package ca_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/secret"
)

func newJoinToken(t testing.TB) (ca.JoinToken, []byte) {
	t.Helper()
	j, err := ca.NewJoinToken(nil, "sallyport.example.org:8443", [32]byte{1, 2, 3}, "developer", start)
	if err != nil {
		t.Fatal(err)
	}
	text, err := j.Text()
	if err != nil {
		t.Fatal(err)
	}
	return j, text.Reveal()
}

func TestParseJoinToken(t *testing.T) {
	j, text := newJoinToken(t)
	got, err := ca.ParseJoinToken(secret.New(text))
	if err != nil {
		t.Fatal(err)
	}
	if got.Address != j.Address || got.KeyHash != j.KeyHash || !got.Secret.Equal(j.Secret) || got.Role != j.Role || !got.Expires.Equal(j.Expires) {
		t.Errorf("got %v", got)
	}
	if got.SecretHash() != j.SecretHash() || len(j.SecretHash()) != 64 {
		t.Errorf("secret hash %s", got.SecretHash())
	}
	if j.Expired(start.Add(-time.Second)) || !j.Expired(start) {
		t.Error("expires at another moment")
	}
	t.Run("prints without its secret", func(t *testing.T) {
		encoded, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		for _, printed := range []string{fmt.Sprint(j), fmt.Sprintf("%v %+v %s %q", j, j, j, j), fmt.Sprintf("%#v", j), string(encoded)} {
			if bytes.Contains([]byte(printed), text[20:60]) || strings.Contains(printed, string(j.Secret.Reveal())) {
				t.Errorf("shows the secret: %s", printed)
			}
		}
	})
	t.Run("refuses each other text", func(t *testing.T) {
		for n := range text {
			mutant := bytes.Clone(text)
			mutant[n] ^= 1
			if _, err := ca.ParseJoinToken(secret.New(mutant)); !fault.Is(err, fault.Invalid) {
				t.Fatalf("character %d changed: %v", n, err)
			}
			if _, err := ca.ParseJoinToken(secret.New(bytes.Clone(text[:n]))); !fault.Is(err, fault.Invalid) {
				t.Fatalf("cut at %d: %v", n, err)
			}
		}
		// 113 bytes leave two bits over in the last character, which must be zero.
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		loose := bytes.Clone(text)
		loose[len(loose)-1] = alphabet[strings.IndexByte(alphabet, text[len(text)-1])+1]
		if _, err := ca.ParseJoinToken(secret.New(loose)); !fault.Is(err, fault.Invalid) {
			t.Fatalf("bits left over: %v", err)
		}
		for _, other := range []string{"", "spjoin1_", "spjoin2_" + string(text[8:]), string(text) + "=", string(text) + "\n", " " + string(text), string(text[:30]) + "\n" + string(text[30:]), strings.Repeat("A", ca.MaxJoinToken+1)} {
			if _, err := ca.ParseJoinToken(secret.FromString(other)); !fault.Is(err, fault.Invalid) {
				t.Fatalf("%d characters: %v", len(other), err)
			} else if len(other) > 60 && strings.Contains(err.Error(), other[20:50]) {
				t.Fatal("the error repeats the token")
			}
		}
	})
}

func TestNewJoinToken_refuses(t *testing.T) {
	for _, c := range []struct{ address, role string }{
		{"", "r"},
		{"host", "r"},
		{"host:0", "r"},
		{"host:65536", "r"},
		{"host:08443", "r"},
		{":8443", "r"},
		{"https://host:8443", "r"},
		{"host:http", "r"},
		{"ho st:1", "r"},
		{"host/x:1", "r"},
		{"-host:1", "r"},
		{"[host]:1", "r"},
		{strings.Repeat("a", 255) + ":1", "r"},
		{"host:1", ""},
		{"host:1", "Role"},
		{"host:1", "a b"},
		{"host:1", strings.Repeat("a", 64)},
	} {
		if _, err := ca.NewJoinToken(nil, c.address, [32]byte{}, c.role, start); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q, %q: %v", c.address, c.role, err)
		}
	}
	if _, err := ca.NewJoinToken(nil, "host:1", [32]byte{}, "r", time.Time{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("without an end: %v", err)
	}
	for _, good := range []string{"localhost:1", "127.0.0.1:65535", "[::1]:8443", "a.b-c.example:443"} {
		if _, err := ca.NewJoinToken(nil, good, [32]byte{}, "r", start); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestJoinToken_Text_isInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		address := rapid.StringMatching(`[a-z0-9]{1,20}(\.[a-z0-9]{1,9}){0,5}:[1-9][0-9]{0,3}`).Draw(t, "address")
		role := rapid.StringMatching(`[a-z][a-z0-9-]{0,62}`).Draw(t, "role")
		j, err := ca.NewJoinToken(nil, address, [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash")), role, time.Unix(rapid.Int64Range(1, 253402300799).Draw(t, "end"), 0))
		if err != nil {
			t.Fatal(err)
		}
		text, err := j.Text()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ca.ParseJoinToken(text)
		if err != nil || got.String() != j.String() || got.KeyHash != j.KeyHash || !got.Secret.Equal(j.Secret) {
			t.Fatalf("got %v, %v", got, err)
		}
	})
}

func FuzzParseJoinToken(f *testing.F) {
	_, text := newJoinToken(f)
	f.Add(text)
	f.Add([]byte("spjoin1_AAAA"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := ca.ParseJoinToken(secret.New(b))
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := j.Text()
		if err != nil || !bytes.Equal(again.Reveal(), b) {
			t.Fatalf("another text for the same token: %v", err)
		}
	})
}

func newUploadToken(t testing.TB) (ca.UploadToken, []byte) {
	t.Helper()
	u := ca.UploadToken{Address: "plugins.example:8443", KeyHash: [32]byte{1}, Secret: secret.New(bytes.Repeat([]byte{7}, 32)), ID: id.New(), Expires: start}
	text, err := u.Text()
	if err != nil {
		t.Fatal(err)
	}
	return u, text.Reveal()
}

func TestParseUploadToken(t *testing.T) {
	u, text := newUploadToken(t)
	got, err := ca.ParseUploadToken(secret.New(text))
	if err != nil || got.Address != u.Address || got.KeyHash != u.KeyHash || !got.Secret.Equal(u.Secret) || got.ID != u.ID || !got.Expires.Equal(u.Expires) {
		t.Fatalf("got %v, %v", got, err)
	}
	if !ca.IsUploadToken(string(text)) || strings.Contains(fmt.Sprintf("%v %+v %#v", u, u, u), string(u.Secret.Reveal())) {
		t.Error("is not known for one, or shows its secret")
	}
	_, join := newJoinToken(t)
	for _, other := range []string{string(join), strings.Replace(string(join), "spjoin1_", "spupload1_", 1), strings.Replace(string(text), "spupload1_", "spjoin1_", 1), "spupload1_"} {
		if _, err := ca.ParseUploadToken(secret.FromString(other)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.12s...: %v", other, err)
		}
	}
	if _, err := ca.ParseJoinToken(secret.New(text)); !fault.Is(err, fault.Invalid) {
		t.Errorf("as a join token: %v", err)
	}
	for _, id := range []string{"", "x", strings.ToLower(u.ID)} {
		bad := u
		bad.ID = id
		if _, err := bad.Text(); !fault.Is(err, fault.Invalid) {
			t.Errorf("id %q: %v", id, err)
		}
	}
}

func FuzzParseUploadToken(f *testing.F) {
	_, text := newUploadToken(f)
	f.Add(text)
	f.Add([]byte("spupload1_AAAA"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := ca.ParseUploadToken(secret.New(b))
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := u.Text()
		if err != nil || !bytes.Equal(again.Reveal(), b) {
			t.Fatalf("another text: %v", err)
		}
	})
}
