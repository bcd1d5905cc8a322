package sshca

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Decision is what was granted: the widest certificate that may be signed.
type Decision struct {
	PublicKey   string    // authorized_keys line of the holder's key
	Principals  []string  // at least one
	ValidAfter  time.Time // whole seconds
	ValidBefore time.Time // whole seconds
	// SourceAddresses are addresses and prefixes; nil leaves the source open.
	SourceAddresses []string
	ForceCommand    string   // empty: none, and none may be added
	Extensions      []string // for example permit-pty
	Serial          uint64   // not zero
	KeyID           string   // what sshd logs
}

// Limits of a decision. OpenSSH itself takes up to 256 principals.
const (
	maxPrincipals = 256
	maxName       = 255
	maxSources    = 256
	maxOptions    = 16
	maxCommand    = 4096
	// MaxLife is the longest certificate that is ever signed.
	MaxLife = 366 * 24 * time.Hour
)

// knownExtensions are those of OpenSSH without a value, but for
// no-touch-required, which weakens a security key.
var knownExtensions = []string{
	"permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc",
}

// Validate refuses a decision that no certificate can follow safely. The fault
// is Invalid and names the member.
func (d Decision) Validate() error {
	_, err := d.validate()
	return err
}

// validate also gives the holder's key.
func (d Decision) validate() (publicKey, error) {
	holder, err := parsePublic(d.PublicKey)
	if err != nil {
		return publicKey{}, err
	}
	return holder, d.validateRest()
}

func (d Decision) validateRest() error {
	switch {
	case len(d.Principals) == 0 || len(d.Principals) > maxPrincipals:
		return fault.Invalidf("an SSH certificate needs 1 to %d principals, not %d", maxPrincipals, len(d.Principals))
	case d.Serial == 0:
		return fault.Invalidf("an SSH certificate needs a serial, otherwise it cannot be revoked")
	case d.KeyID == "" || len(d.KeyID) > maxName || !printable(d.KeyID, true):
		return fault.Invalidf("an SSH certificate needs a key id of 1 to %d printable characters", maxName)
	case d.ValidAfter.Unix() <= 0 || !d.ValidAfter.Before(d.ValidBefore):
		return fault.Invalidf("an SSH certificate must begin before it ends")
	case d.ValidBefore.Sub(d.ValidAfter) > MaxLife+Backdate:
		return fault.Invalidf("an SSH certificate may be valid for at most %s", MaxLife)
	case len(d.Extensions) > maxOptions || len(d.SourceAddresses) > maxSources || len(d.ForceCommand) > maxCommand:
		return fault.Invalidf("an SSH certificate may have %d extensions, %d source addresses and a command of %d bytes", maxOptions, maxSources, maxCommand)
	case strings.ContainsAny(d.ForceCommand, "\x00\r\n"):
		return fault.Invalidf("the forced command must be one line")
	case d.SourceAddresses != nil && len(d.SourceAddresses) == 0:
		return fault.Invalidf("an empty list of source addresses allows nobody: leave it out, or name one")
	}
	for _, p := range d.Principals {
		if !validPrincipal(p) {
			return fault.Invalidf("principal %.64q is not 1 to %d printable characters without spaces and commas", p, maxName)
		}
	}
	for _, e := range d.Extensions {
		if !slices.Contains(knownExtensions, e) {
			return fault.Invalidf("extension %.64q is not known: use %s", e, strings.Join(knownExtensions, ", "))
		}
	}
	_, err := prefixes(d.SourceAddresses)
	return err
}

// validPrincipal keeps out what AuthorizedPrincipalsFile, ssh-keygen -n and logs
// would read as something else.
func validPrincipal(p string) bool {
	return p != "" && len(p) <= maxName && printable(p, false) && !strings.ContainsAny(p, ",")
}

// printable reports whether s is printable ASCII.
func printable(s string, space bool) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			if !space || s[i] != ' ' {
				return false
			}
		}
	}
	return true
}

// prefixes parses addresses and prefixes as sshd's source-address reads them.
func prefixes(list []string) ([]netip.Prefix, error) {
	all := make([]netip.Prefix, 0, len(list))
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				return nil, fault.Invalidf("source address %.64q is neither an address nor a prefix like 192.0.2.0/24", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() || p != p.Masked() {
			return nil, fault.Invalidf("source address %.64q has bits beyond its prefix, or maps IPv4 into IPv6", text)
		}
		all = append(all, p)
	}
	return all, nil
}

// covered reports whether every address of inner lies in one of outer.
func covered(inner netip.Prefix, outer []netip.Prefix) bool {
	return slices.ContainsFunc(outer, func(o netip.Prefix) bool {
		return o.Bits() <= inner.Bits() && o.Contains(inner.Addr())
	})
}
