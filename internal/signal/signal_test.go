package signal_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
)

func TestSum_IsOfTheTrimmedValue(t *testing.T) {
	wanted := sha256.Sum256([]byte("to ken"))
	for _, s := range []signal.Signal{
		{Value: secret.FromString("to ken")},
		{Value: secret.FromString(" \t\r\n\v\fto ken\n")},
		{Digest: hex.EncodeToString(wanted[:])},
	} {
		got, err := s.Sum()
		if err != nil || got != wanted {
			t.Errorf("got %x, %v", got, err)
		}
		if s.Bare() != (s.Digest != "") {
			t.Error("bare is wrong")
		}
	}
	if got, _ := (signal.Signal{Value: secret.FromString("\u00a0to ken")}).Sum(); got == wanted {
		t.Error("more than ASCII space was trimmed")
	}
}

func TestSum_RefusesWhatNamesNoValue(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for name, s := range map[string]signal.Signal{
		"nothing":   {},
		"both":      {Value: secret.FromString("x"), Digest: sum},
		"too long":  {Value: secret.New(make([]byte, signal.MaxValue+1))},
		"short":     {Digest: sum[2:]},
		"long":      {Digest: sum + "ab"},
		"not hex":   {Digest: "x" + sum[1:]},
		"with mark": {Digest: "sha256:" + sum},
	} {
		if _, err := s.Sum(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := s.Validate(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestValidate_BoundsWhatIsRecorded(t *testing.T) {
	value := secret.FromString(" long-enough-value\n")
	good := signal.Signal{Value: value, Source: strings.Repeat("s", 512), Location: "l", Reason: "r"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{strings.Repeat("x", 513), "see long-enough-value here"} {
		for i := range 3 {
			s := good
			*[]*string{&s.Source, &s.Location, &s.Reason}[i] = text
			if err := s.Validate(); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "long-enough") {
				t.Errorf("got %v", err)
			}
		}
	}
	if err := (signal.Signal{Value: secret.FromString("ab"), Source: "a lab"}).Validate(); err != nil {
		t.Errorf("a short value is in many texts: %v", err)
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte("value"), "")
	f.Add([]byte(nil), strings.Repeat("0", 64))
	f.Add([]byte(" "), "zz")
	f.Fuzz(func(t *testing.T, value []byte, digest string) {
		s := signal.Signal{Value: secret.New(value), Digest: digest}
		sum, err := s.Sum()
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %v", err)
			}
			return
		}
		if digest != "" && hex.EncodeToString(sum[:]) != strings.ToLower(digest) {
			t.Fatal("another digest")
		}
		if digest == "" && sum != sha256.Sum256(signal.Trim(value)) {
			t.Fatal("another value")
		}
	})
}
