package tpm

import (
	"testing"

	"github.com/sallyport-project/sallyport/internal/evidence"
)

func BenchmarkVerify(b *testing.B) {
	body, q := vector(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := judge(b, body, evidence.Binding{ReportData: q.Nonce}); err != nil {
			b.Fatal(err)
		}
	}
}
