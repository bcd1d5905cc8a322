package token

import (
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// A session whose signature was checked before is still held to everything
// that may have changed since.
func TestVerify_RemembersOnlyTheSignature(t *testing.T) {
	show := func(d *desk, raw []byte) error {
		_, err := d.Verify(string(raw), Presentation{Certificate: d.cert})
		return err
	}
	tests := []struct {
		name   string
		change func(t *testing.T, d *desk) Presentation
	}{
		{"time has passed", func(_ *testing.T, d *desk) Presentation {
			d.pass(MaxLife)
			return Presentation{Certificate: d.cert}
		}},
		{"its key was taken out of the ring", func(t *testing.T, d *desk) Presentation {
			if err := d.ring.Replace([]Key{monthKey("k2", 2)}); err != nil {
				t.Fatal(err)
			}
			return Presentation{Certificate: d.cert}
		}},
		{"the clock went back before it was made", func(_ *testing.T, d *desk) Presentation {
			d.pass(-5 * time.Minute)
			return Presentation{Certificate: d.cert}
		}},
		{"another certificate is shown", func(t *testing.T, d *desk) Presentation {
			return Presentation{Certificate: certificate(t, p256(t), start.Add(-time.Hour), start.Add(time.Hour))}
		}},
		{"no certificate is shown", func(*testing.T, *desk) Presentation { return Presentation{} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			raw := d.open(t).Token.Reveal()
			for range 2 {
				if err := show(d, raw); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := d.Verify(string(raw), tt.change(t, d)); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("got %v, want Unauthenticated", err)
			}
		})
	}
}
