package main

import (
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// The limits of a scope.
const (
	maxPrincipals = 64
	maxPrincipal  = 128
	maxAddresses  = 32
	maxCommand    = 1024
)

// extensions are those of PROTOCOL.certkeys that permit something.
var extensions = []string{
	"permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc",
}

// certScope is a checked scope. A nil list was not asked for: policy's bounds
// take its place where they name it, and else there are no extensions and no
// restriction of addresses.
type certScope struct {
	ttl        time.Duration
	key        string // as asked, empty if the host made one
	principals []string
	addresses  []string // prefixes
	extensions []string
	command    string // forced command, empty means none
}

// parseScope checks a scope strictly; what it does not know is refused.
func parseScope(s plugin.Scope) (certScope, error) {
	if s.Kind != kind {
		return certScope{}, plugin.Invalidf("this plugin serves %s only", kind)
	}
	if s.TTL <= 0 {
		return certScope{}, plugin.Invalidf("the certificate needs a time to live")
	}
	out := certScope{ttl: s.TTL}
	for name, v := range s.Params {
		var err error
		switch name {
		case "principals":
			out.principals, err = list(name, v, maxPrincipals, checkPrincipal)
		case "source_addresses":
			out.addresses, err = list(name, v, maxAddresses, checkAddress)
		case "extensions":
			out.extensions, err = list(name, v, len(extensions), checkExtension)
		case "force_command":
			out.command, err = command(v)
		case "public_key":
			out.key, err = keyLine(v)
		default:
			return certScope{}, plugin.Invalidf("a parameter is not known; known are principals, public_key, source_addresses, extensions and force_command")
		}
		if err != nil {
			return certScope{}, err
		}
	}
	if len(out.principals) == 0 {
		return certScope{}, plugin.Invalidf("principals must name at least one login name")
	}
	if out.addresses != nil && len(out.addresses) == 0 {
		return certScope{}, plugin.Invalidf("source_addresses must name at least one address, or be left out")
	}
	return out, nil
}

// list reads a list of strings, in order and without repetitions.
func list(name string, v any, limit int, check func(string) (string, bool)) ([]string, error) {
	raw, ok := v.([]any)
	if !ok || len(raw) > limit {
		return nil, plugin.Invalidf("%s must be a list of at most %d strings", name, limit)
	}
	out := []string{}
	for _, e := range raw {
		s, ok := e.(string)
		if !ok {
			return nil, plugin.Invalidf("%s must be a list of at most %d strings", name, limit)
		}
		if s, ok = check(s); !ok {
			return nil, plugin.Invalidf("%s has an entry that is not allowed there", name)
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}

func checkPrincipal(s string) (string, bool) {
	bad := func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == ',' || r == '*' || r == '?' || r == unicode.ReplacementChar
	}
	return s, s != "" && len(s) <= maxPrincipal && !strings.ContainsFunc(s, bad)
}

// checkAddress gives the canonical prefix: sshd refuses a certificate whose
// prefix has bits behind its length.
func checkAddress(s string) (string, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return "", false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return p.Masked().String(), !p.Addr().Is4In6()
}

func checkExtension(s string) (string, bool) { return s, slices.Contains(extensions, s) }

// keyLine only bounds the key: what it is, is compared with the host's.
func keyLine(v any) (string, error) {
	s, ok := v.(string)
	if !ok || s == "" || len(s) > maxKeyLine {
		return "", plugin.Invalidf("public_key must be one line as in authorized_keys, of at most %d bytes", maxKeyLine)
	}
	return s, nil
}

func command(v any) (string, error) {
	s, ok := v.(string)
	if !ok || s == "" || len(s) > maxCommand || strings.ContainsFunc(s, unicode.IsControl) {
		return "", plugin.Invalidf("force_command must be one line of at most %d bytes", maxCommand)
	}
	return s, nil
}

// narrow returns the part of the scope that policy allows. Where nothing of a
// list remains it refuses, rather than to leave a list empty.
func (s certScope) narrow(b plugin.Bounds) (certScope, error) {
	if b.Kind != kind || b.MaxTTL <= 0 {
		return certScope{}, plugin.Deniedf("policy gives no bounds for %s", kind)
	}
	s.ttl = min(s.ttl, b.MaxTTL)
	if err := s.mayHave(b); err != nil {
		return certScope{}, err
	}
	if v, ok := b.MaxParams["principals"]; ok {
		allowed, err := list("policy's principals", v, 1<<10, checkPrincipal)
		if err != nil {
			return certScope{}, err
		}
		if s.principals = common(s.principals, allowed); len(s.principals) == 0 {
			return certScope{}, plugin.Deniedf("policy allows none of the principals")
		}
	}
	if v, ok := b.MaxParams["extensions"]; ok {
		allowed, err := list("policy's extensions", v, len(extensions), checkExtension)
		if err != nil {
			return certScope{}, err
		}
		if s.extensions == nil {
			s.extensions = allowed
		} else if s.extensions = common(s.extensions, allowed); len(s.extensions) == 0 {
			return certScope{}, plugin.Deniedf("policy allows none of the extensions asked for; ask for others, or leave extensions out")
		}
	}
	if v, ok := b.MaxParams["source_addresses"]; ok {
		allowed, err := list("policy's source_addresses", v, 1<<10, checkAddress)
		if err != nil {
			return certScope{}, err
		}
		if s.addresses == nil {
			s.addresses = allowed
		} else {
			s.addresses = overlap(s.addresses, allowed)
		}
		if len(s.addresses) == 0 {
			return certScope{}, plugin.Deniedf("policy allows none of the source addresses")
		}
	}
	if v, ok := b.MaxParams["force_command"]; ok {
		forced, err := command(v)
		if err != nil {
			return certScope{}, err
		}
		if s.command != "" && s.command != forced {
			return certScope{}, plugin.Deniedf("policy forces another command")
		}
		s.command = forced
	}
	return s, nil
}

// mayHave refuses what cannot be narrowed: a key is the right one or not, and
// a parameter of another kind has no meaning here.
func (s certScope) mayHave(b plugin.Bounds) error {
	for name, v := range b.MaxParams {
		switch name {
		case "principals", "extensions", "source_addresses", "force_command":
		case "public_key":
			list, many := v.([]any)
			if s.key == "" || v != any(s.key) && !(many && slices.Contains(list, any(s.key))) {
				return plugin.Deniedf("policy allows certain keys alone: bring one of them as public_key")
			}
		default:
			return plugin.Deniedf("policy bounds a parameter that %s does not have", kind)
		}
	}
	return nil
}

func common(asked, allowed []string) []string {
	out := []string{}
	for _, s := range asked {
		if slices.Contains(allowed, s) {
			out = append(out, s)
		}
	}
	return out
}

// overlap is the intersection of two lists of prefixes, of which any two are
// either disjoint or one inside the other.
func overlap(asked, allowed []string) []string {
	out := []string{}
	for _, a := range asked {
		x := netip.MustParsePrefix(a)
		for _, b := range allowed {
			y := netip.MustParsePrefix(b)
			inner := x
			if y.Bits() > x.Bits() {
				inner = y
			}
			if x.Overlaps(y) && !slices.Contains(out, inner.String()) {
				out = append(out, inner.String())
			}
		}
	}
	return out
}

// scope is the checked scope as the host compares it.
func (s certScope) scope() plugin.Scope {
	params := map[string]any{"principals": s.principals}
	if s.addresses != nil {
		params["source_addresses"] = s.addresses
	}
	if s.extensions != nil {
		params["extensions"] = s.extensions
	}
	if s.key != "" {
		params["public_key"] = s.key
	}
	if s.command != "" {
		params["force_command"] = s.command
	}
	return plugin.Scope{Kind: kind, Params: params, TTL: s.ttl}
}

func (s certScope) anomalies() []plugin.Anomaly {
	if slices.Contains(s.principals, "root") {
		return []plugin.Anomaly{{Level: plugin.Warn, Code: "principal-root", Message: "the certificate is valid for root"}}
	}
	return nil
}
