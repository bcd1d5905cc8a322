package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/secret"
)

const canary = "correct horse battery"

type holder struct {
	Name  string
	Value secret.Bytes
	Ptr   *secret.Bytes
	List  []secret.Bytes
	Any   any
}

func held() holder {
	s := secret.FromString(canary)
	return holder{"n", s, &s, []secret.Bytes{s}, s}
}

func TestBytes_PrintNothingAnywhere(t *testing.T) {
	h := held()
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%T", "%p", "%10.3v", "% x"} {
		fmt.Fprintf(&out, verb+"\n"+verb+"\n"+verb+"\n", h.Value, h, &h)
	}
	fmt.Fprintln(&out, h.Value.String(), h.Value.GoString(), fmt.Errorf("x: %v", h.Value))
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("m", slog.Any("v", h.Value), slog.Any("h", h), slog.Any("p", &h), slog.Group("g", slog.Any("v", h.Value)))
	}
	for _, v := range []any{h, h.Value, map[string]any{"k": h.Value}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	keyed, err := json.Marshal(map[string]secret.Bytes{"k": h.Value})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(keyed)
	text := out.String()
	for _, form := range []string{canary, canary[:8], hex.EncodeToString([]byte(canary))[:16], "99 111 114 114", fmt.Sprintf("%d", []byte(canary[:4]))[1:10]} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
			t.Errorf("printed %q", form)
		}
	}
	if !strings.Contains(text, secret.Redacted) {
		t.Error("nothing was redacted: the test saw nothing")
	}
	if err := gob.NewEncoder(&bytes.Buffer{}).Encode(h.Value); err == nil {
		t.Error("gob carried a secret")
	}
}

func TestBytes_WipeClearsAllCopies(t *testing.T) {
	s := secret.FromString(canary)
	c := s
	raw := s.Reveal()
	s.Wipe()
	if bytes.ContainsFunc(raw, func(r rune) bool { return r != 0 }) || c.Len() != len(canary) || !c.Equal(secret.New(make([]byte, len(canary)))) {
		t.Error("something is left")
	}
	var zero secret.Bytes
	zero.Wipe()
	if zero.Len() != 0 || len(zero.Reveal()) != 0 || !zero.Equal(secret.Bytes{}) || zero.Equal(c) {
		t.Error("the zero value is not empty")
	}
}

func TestBytes_EqualAndDigest(t *testing.T) {
	a, b := secret.FromString("abc"), secret.New([]byte("abc"))
	if !a.Equal(b) || a.Equal(secret.FromString("abd")) || a.Equal(secret.FromString("ab")) {
		t.Error("equality is wrong")
	}
	sum := a.SHA256()
	if hex.EncodeToString(sum[:]) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" { // FIPS 180-2, B.1
		t.Error("the digest is wrong")
	}
}
