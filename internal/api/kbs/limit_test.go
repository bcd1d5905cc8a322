package kbs

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiter_CountsByAddress(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := newLimiter(2, 3, func() time.Time { return now })
	for i := range 3 {
		if ok, _ := l.take("192.0.2.1"); !ok {
			t.Fatalf("handshake %d of the burst is refused", i)
		}
	}
	ok, wait := l.take("192.0.2.1")
	if ok || wait != 500*time.Millisecond {
		t.Errorf("one more than the burst: %v, wait %s", ok, wait)
	}
	if ok, _ := l.take("::ffff:192.0.2.1"); ok {
		t.Error("another way to write the address has a bucket of its own")
	}
	if ok, _ := l.take("192.0.2.2"); !ok {
		t.Error("another address pays for the first")
	}
	now = now.Add(wait)
	if ok, _ := l.take("192.0.2.1"); !ok {
		t.Error("after the wait it is refused still")
	}
	for i := range 3 {
		l.take(fmt.Sprintf("2001:db8::%d", i))
	}
	if ok, _ := l.take("2001:db8::ffff%eth0"); ok {
		t.Error("addresses of one /64 have buckets of their own")
	}
}

// An attacker with many addresses cannot make the limiter grow, and cannot throw
// out what is remembered of others.
func TestLimiter_IsBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := newLimiter(1, 2, func() time.Time { return now })
	l.take("192.0.2.1")
	l.take("192.0.2.1")
	for i := range mostBuckets + 100 {
		l.take(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
	}
	if len(l.buckets) > mostBuckets+1 {
		t.Errorf("%d buckets", len(l.buckets))
	}
	if ok, _ := l.take("192.0.2.1"); ok {
		t.Error("a flood of others empties the memory of one")
	}
	now = now.Add(time.Minute)
	l.take("198.51.100.1")
	if len(l.buckets) > 2 {
		t.Errorf("%d buckets are left after a minute of silence", len(l.buckets))
	}
	if ok, _ := newLimiter(0, 0, nil).take("192.0.2.1"); !ok {
		t.Error("without a rate it refuses")
	}
}
