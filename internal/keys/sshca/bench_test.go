package sshca_test

import (
	"testing"

	"github.com/sallyport-project/sallyport/internal/keys/sshca"
)

func BenchmarkIssuer_Sign(b *testing.B) {
	i, d := newIssuer(b), newDecision(b)
	tbs := toBeSigned(compose(b, i, d))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.Sign(tbs, d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFreshPair(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := sshca.FreshPair("builder"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParsePublicKey(b *testing.B) {
	d := newDecision(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sshca.ParsePublicKey(d.PublicKey); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIssuer_Params(b *testing.B) {
	i, d := newIssuer(b), newDecision(b)
	b.ReportAllocs()
	for b.Loop() {
		i.Params(d)
	}
}
