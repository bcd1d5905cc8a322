package tdx

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx/tdxtest"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var bound = tdxtest.Bound

func wrap(quote, log []byte) json.RawMessage {
	m := map[string]any{"quote": base64.StdEncoding.EncodeToString(quote), "cc_eventlog": nil}
	if log != nil {
		m["cc_eventlog"] = base64.StdEncoding.EncodeToString(log)
	}
	return must(json.Marshal(m))
}

func verifierOf(n *tdxtest.Intel) *Verifier {
	return must(New(Config{Endorsements: n.Shelf(), Root: n.Root}))
}

func judge(t testing.TB, v *Verifier, body json.RawMessage, b evidence.Binding, at time.Time) (evidence.Claims, evidence.Checks, error) {
	t.Helper()
	claims, err := v.Verify(context.Background(), evidence.Evidence{TEE: evidence.Tdx, Body: body}, b, at)
	if err == nil {
		return claims, claims.Checks, nil
	}
	r, ok := errors.AsType[*evidence.RefusedError](err)
	if !ok || claims.Values != nil {
		t.Fatalf("no refusal: %v, %v", err, claims.Values)
	}
	return claims, r.Checks, err
}
