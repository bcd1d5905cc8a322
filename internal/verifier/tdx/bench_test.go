package tdx

import (
	"context"
	"testing"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx/tdxtest"
)

func BenchmarkVerify(b *testing.B) {
	n := tdxtest.New()
	v := verifierOf(n)
	e := evidence.Evidence{TEE: evidence.Tdx, Body: wrap(n.Quote(), nil)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(context.Background(), e, evidence.Binding{ReportData: bound}, evidencetest.Now); err != nil {
			b.Fatal(err)
		}
	}
}
