package app

import (
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
)

// Keys says how the keys of the house are looked after.
type Keys struct {
	Rotate Rotate `yaml:"rotate"`
}

// Rotate has, for each purpose, after how long its key is replaced by itself: a
// number of days, hours or minutes (30d, 12h, 90m), or off, which leaves it to
// `sallyport key rotate`.
type Rotate struct {
	Token          string `yaml:"token"`           // signs session tokens; 30d by default
	EAR            string `yaml:"ear"`             // signs attestation results; 30d by default
	Cookie         string `yaml:"cookie"`          // seals handshakes of guests; 30d by default
	Context        string `yaml:"context"`         // signs what plugins are told of callers; 30d by default
	CAIntermediate string `yaml:"ca_intermediate"` // issues certificates; 300d by default, at most 305d
	// Those below concern others too, who have a copy of the public key or a file
	// to fetch, and are off by default.
	CARoot string `yaml:"ca_root"`
	SSHCA  string `yaml:"ssh_ca"`
	Ledger string `yaml:"ledger"`
	Pepper string `yaml:"pepper"`
	RowMAC string `yaml:"row_mac"`
}

const off = "off"

// The bounds of a period. A key that was replaced is held until nothing needs it;
// some are for ever, so that they must not become many.
const (
	shortest     = time.Minute
	shortestKept = 24 * time.Hour
)

// read gives the periods by purpose; those that are off are left out.
func (r Rotate) read() (map[keys.Purpose]time.Duration, error) {
	out := map[keys.Purpose]time.Duration{}
	for _, m := range []struct {
		name, text string
		purpose    keys.Purpose
		least      time.Duration
		most       time.Duration
	}{
		{"token", r.Token, keys.Token, shortest, 0},
		{"ear", r.EAR, keys.EAR, shortest, 0},
		{"cookie", r.Cookie, keys.Cookie, shortest, 0},
		{"context", r.Context, keys.Context, shortest, 0},
		{"ca_intermediate", r.CAIntermediate, keys.CAIntermediate, shortestKept, ca.IntermediateLife - ca.RenewBefore},
		{"ca_root", r.CARoot, keys.CARoot, shortestKept, ca.RootLife - 2*ca.IntermediateLife},
		{"ssh_ca", r.SSHCA, keys.SSHCA, shortestKept, 0},
		{"ledger", r.Ledger, keys.Ledger, shortestKept, 0},
		{"pepper", r.Pepper, keys.Pepper, shortestKept, 0},
		{"row_mac", r.RowMAC, keys.RowMAC, shortestKept, 0},
	} {
		if m.text == off || m.text == "" {
			continue
		}
		d, ok := period(m.text)
		if !ok || d < m.least || m.most > 0 && d > m.most {
			text := "a period of at least " + m.least.String()
			if m.most > 0 {
				text += " and at most " + strconv.Itoa(int(m.most/(24*time.Hour))) + "d"
			}
			return nil, fault.Invalidf("keys.rotate.%s is %q: use %s, like 30d or 720h, or off", m.name, m.text, text)
		}
		out[m.purpose] = d
	}
	return out, nil
}

// periods is read for a configuration that was validated.
func (k Keys) periods() map[keys.Purpose]time.Duration {
	all, err := k.Rotate.read()
	if err != nil {
		return nil
	}
	return all
}

// period reads a whole number of days, hours or minutes.
func period(text string) (time.Duration, bool) {
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "h": time.Hour, "m": time.Minute} {
		number, found := strings.CutSuffix(text, unit)
		if !found {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > 100_000 || strconv.Itoa(n) != number {
			return 0, false
		}
		return time.Duration(n) * length, true
	}
	return 0, false
}
