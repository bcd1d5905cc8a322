package main

import (
	"crypto/ed25519"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// signbare KEY FILE writes FILE.sig as AgentKMS does: the raw signature over the
// bytes of an executable.
func signbare(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signbare KEY FILE")
	}
	key, err := plugin.ParsePrivateKey([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	sig := ed25519.Sign(key, []byte(ts.ReadFile(args[1])))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]+".sig"), sig, 0o600))
}
