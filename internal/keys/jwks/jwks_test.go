package jwks_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys/jwks"
	"github.com/sallyport-project/sallyport/internal/token"
)

func keySet(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := token.MarshalKeySet([]token.SignerKey{{Public: k.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func open(t *testing.T, changes *int, client *http.Client, sources ...string) *jwks.Sets {
	t.Helper()
	s, err := jwks.New(jwks.Config{Sources: sources, Client: client, Log: slog.New(slog.DiscardHandler), Changed: func([]token.KeySet) { *changes++ }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSets_ReadEverySource(t *testing.T) {
	var text atomic.Value
	text.Store(keySet(t))
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	mux.HandleFunc("GET /set", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text.Load().(string))) })
	mux.HandleFunc("GET /issuer/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"issuer":"x","jwks_uri":"` + server.URL + `/set"}`))
	})
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/set", http.StatusFound) })
	mux.HandleFunc("GET /down", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"jwks_uri":"http://192.0.2.1/set"}`))
	})
	file := filepath.Join(t.TempDir(), "set.json")
	if err := os.WriteFile(file, []byte(keySet(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	changes := 0
	good := open(t, &changes, server.Client(), server.URL+"/set", server.URL+"/issuer", server.URL+"/issuer/.well-known/openid-configuration", file, "file://"+file)
	if err := good.Refresh(context.Background()); err != nil || len(good.Current()) != 5 || changes != 1 {
		t.Fatalf("%d sets, %d changes: %v", len(good.Current()), changes, err)
	}
	if err := good.Refresh(context.Background()); err != nil || changes != 1 {
		t.Errorf("what is the same counts as changed: %d %v", changes, err)
	}
	text.Store(keySet(t))
	if err := good.Refresh(context.Background()); err != nil || changes != 2 {
		t.Errorf("a rotation is not seen: %d %v", changes, err)
	}
	text.Store(`{"keys":[{"kty":"newer"}]}`)
	if err := good.Refresh(context.Background()); err == nil || len(good.Current()) != 5 || changes != 2 {
		t.Errorf("a source that went bad takes away what it said: %d sets, %v", len(good.Current()), err)
	}
	text.Store(`{"keys":[]}`)
	if err := good.Refresh(context.Background()); err == nil || len(good.Current()) != 2 || changes != 3 {
		t.Errorf("keys that were withdrawn are trusted: %d sets, %v", len(good.Current()), err)
	}
	for name, source := range map[string]string{
		"a redirect": server.URL + "/moved", "keys without TLS": server.URL + "/down", "nothing": server.URL + "/nothing", "no file": file + "x",
	} {
		s := open(t, &changes, server.Client(), source)
		if err := s.Refresh(context.Background()); err == nil || len(s.Current()) != 0 {
			t.Errorf("%s: %d sets, %v", name, len(s.Current()), err)
		}
	}
	if s := open(t, &changes, nil, server.URL+"/set"); s.Refresh(context.Background()) == nil {
		t.Error("a server of an unknown authority is believed")
	}
}

// A provider elsewhere cannot have the server ask for what is on its own loopback.
func TestSets_AreNotSentToLoopback(t *testing.T) {
	asked := atomic.Bool{}
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Store(true)
		_, _ = w.Write([]byte(keySet(t)))
	}))
	defer inside.Close()
	provider := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"jwks_uri":"` + inside.URL + `/set"}`))
	}))
	defer provider.Close()
	changes := 0
	s := open(t, &changes, provider.Client(), provider.URL)
	if err := s.Refresh(context.Background()); err == nil || asked.Load() || len(s.Current()) != 0 {
		t.Errorf("asked %v, %d sets, %v", asked.Load(), len(s.Current()), err)
	}
}

func TestNew_RefusesSourcesThatCannotBeBelieved(t *testing.T) {
	for _, source := range []string{"", "http://example.org/set", "ftp://example.org/set", "https://", "https://user:secret@example.org/", "http://127.0.0.1.example.org/"} {
		if _, err := jwks.New(jwks.Config{Sources: []string{source}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", source, err)
		}
	}
}
