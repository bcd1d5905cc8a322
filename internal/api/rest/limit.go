package rest

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// limits is how much each address may ask without authentication. Memory is
// bounded by two generations of addresses: when the young one is full it becomes
// the old one, and who is not seen again is forgotten with it.
type limits struct {
	rate  rate.Limit
	burst int
	now   func() time.Time

	mu         sync.Mutex
	young, old map[string]*rate.Limiter
}

// mostAddresses is the size of a generation.
const mostAddresses = 8192

func newLimits(perSecond float64, burst int, now func() time.Time) *limits {
	return &limits{rate: rate.Limit(perSecond), burst: burst, now: now, young: map[string]*rate.Limiter{}}
}

// take uses up one request of an address, or is Exhausted.
func (l *limits) take(address string) error {
	now := l.now()
	r := l.of(neighbourhood(address)).ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return fault.New(fault.Exhausted, "too many requests from this address").After(wait)
	}
	return nil
}

func (l *limits) of(key string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found := l.young[key]; found != nil {
		return found
	}
	found := l.old[key]
	if found == nil {
		found = rate.NewLimiter(l.rate, l.burst)
	}
	if len(l.young) >= mostAddresses {
		l.old, l.young = l.young, map[string]*rate.Limiter{}
	}
	l.young[key] = found
	return found
}

// neighbourhood is the address, or for IPv6 the network that one customer
// usually has to himself.
func neighbourhood(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Is4() {
		return address
	}
	p, err := a.Prefix(64)
	if err != nil {
		return address
	}
	return p.String()
}
