package rest

import (
	"encoding/base64"
	"testing"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

func encodeSecret(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// writeKey makes a publisher key and gives the file of its public half.
func writeKey(t *testing.T) string {
	t.Helper()
	files, err := plugin.Keygen(t.TempDir() + "/publisher")
	if err != nil {
		t.Fatal(err)
	}
	return files.Public
}

// recordID names some record of the ledger.
func recordID(t *testing.T, h *house) string {
	t.Helper()
	r, err := audit.ParseLeaf(h.gate.records.(*ledger).leaves[300])
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}
