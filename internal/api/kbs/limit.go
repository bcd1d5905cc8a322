package kbs

import (
	"net/netip"
	"sync"
	"time"
)

// limiter bounds how many handshakes each address may begin, or answer. It is a bound on
// work, not on memory: a handshake is kept by the guest, in its cookie
// (docs/kbs.md), so that there is nothing to exhaust but the signatures and the
// records that answering it costs.
//
// Each address has a bucket that fills with rate per second and holds burst. A
// whole /64 of IPv6 counts as one address. Safe for concurrent use.
type limiter struct {
	rate, burst float64
	now         func() time.Time

	mu      sync.Mutex
	buckets map[netip.Prefix]bucket
	swept   time.Time
}

type bucket struct {
	level float64 // what is left
	at    time.Time
}

// mostBuckets bounds the limiter's memory to some MiB.
const mostBuckets = 1 << 16

func newLimiter(rate, burst int, now func() time.Time) *limiter {
	return &limiter{rate: float64(rate), burst: float64(burst), now: now, buckets: map[netip.Prefix]bucket{}}
}

// take reports whether an address may begin one more, and else after how long.
func (l *limiter) take(address string) (ok bool, wait time.Duration) {
	if l.rate <= 0 {
		return true, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now, key := l.now(), network(address)
	b, known := l.buckets[key]
	if !known {
		if len(l.buckets) >= mostBuckets && !l.sweep(now) {
			key = netip.Prefix{} // what has no room shares one bucket
			b, known = l.buckets[key]
		}
		if !known {
			b = bucket{l.burst, now}
		}
	}
	b.level = min(l.burst, b.level+now.Sub(b.at).Seconds()*l.rate)
	b.at = now
	if ok = b.level >= 1; ok {
		b.level--
	} else {
		wait = time.Duration((1 - b.level) / l.rate * float64(time.Second))
	}
	l.buckets[key] = b
	return ok, wait
}

// sweep forgets the buckets that are full again, and reports whether that made
// room. It looks once a second at most: a flood must not make it look for each.
func (l *limiter) sweep(now time.Time) bool {
	if now.Sub(l.swept) < time.Second {
		return false
	}
	l.swept = now
	for key, b := range l.buckets {
		if b.level+now.Sub(b.at).Seconds()*l.rate >= l.burst {
			delete(l.buckets, key)
		}
	}
	return len(l.buckets) < mostBuckets
}

// network is what counts as one address.
func network(address string) netip.Prefix {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap()
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits) // bits is in range
	return p
}
