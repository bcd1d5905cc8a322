package notify_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/notify"
)

func TestBackoff_DoublesUpToAQuarterOfAnHour(t *testing.T) {
	for attempts, want := range map[int64]time.Duration{
		-1: 2 * time.Second, 0: 2 * time.Second, 1: 2 * time.Second, 2: 4 * time.Second, 3: 8 * time.Second,
		9: 512 * time.Second, 10: 15 * time.Minute, 11: 15 * time.Minute, 1 << 62: 15 * time.Minute,
	} {
		if got := notify.Backoff(attempts); got != want {
			t.Errorf("after %d attempts: %v, want %v", attempts, got, want)
		}
	}
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.Int64().Draw(r, "attempts")
		if d := notify.Backoff(n); d < 2*time.Second || d > 15*time.Minute {
			r.Fatalf("after %d attempts: %v", n, d)
		}
	})
}

func TestDelivery_ComesBackAsItWas(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_123_456).UTC()
	d := notify.Delivery{
		ID: "1/phone", Version: 2, Channel: "phone", Attempts: 3, Due: now, Error: "busy",
		Message: notify.Notification{ID: "1", Type: "grant.revoked", At: now, Urgency: notify.High, Title: "t", Subject: "s", Grant: "g", Address: "a", Tags: []string{"x"}, Data: map[string]string{"k": "v"}},
	}
	columns := d.Columns()
	scan := func(dest ...any) error {
		for i, x := range dest {
			switch x := x.(type) {
			case *string:
				*x = columns[i].(string)
			case *int64:
				*x = columns[i].(int64)
			}
		}
		return nil
	}
	var back notify.Delivery
	if err := back.Scan(scan); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, back); diff != "" {
		t.Fatal(diff)
	}
	columns[3] = "{"
	if err := back.Scan(scan); !fault.Is(err, fault.Internal) {
		t.Fatalf("got %v", err)
	}
}
