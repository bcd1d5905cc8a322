package manifest

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

const (
	maxMemoryMB  = 1 << 20
	maxProcesses = 1 << 15
)

var (
	hostPattern     = expression{text: `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`}
	variablePattern = expression{text: `^[A-Za-z_][A-Za-z0-9_]{0,63}$`}
	revisionPattern = expression{text: `^([0-9a-f]{40}|[0-9a-f]{64})$`}
)

func (c Capabilities) validate() error {
	switch c.Messages {
	case "", "none", "metadata", "headers", "full":
	default:
		return fmt.Errorf("capabilities.messages must be none, metadata, headers or full")
	}
	if len(c.Network) > maxList || len(c.Files) > maxList || len(c.Environment) > maxList {
		return fmt.Errorf("capabilities: at most %d of network, files and environment each", maxList)
	}
	if twice(c.Network) || twice(c.Files) || twice(c.Environment) {
		return fmt.Errorf("capabilities must not repeat an entry")
	}
	for _, n := range c.Network {
		if !ValidDestination(n) {
			return fmt.Errorf("capabilities.network: %s must be host:port, or *:port for every host", clip(n))
		}
	}
	for _, f := range c.Files {
		if !plain(f) || !path.IsAbs(f) || path.Clean(f) != f || f == "/" {
			return fmt.Errorf("capabilities.files: %s must be an absolute path without detours, and not the root", clip(f))
		}
	}
	for _, v := range c.Environment {
		if !variablePattern.MatchString(v) {
			return fmt.Errorf("capabilities.environment: %s must be the name of a variable", clip(v))
		}
	}
	if c.MemoryMB < 0 || c.MemoryMB > maxMemoryMB || c.Processes < 0 || c.Processes > maxProcesses {
		return fmt.Errorf("capabilities: memory_mb must be between 0 and %d, processes between 0 and %d", maxMemoryMB, maxProcesses)
	}
	return nil
}

// ValidDestination reports whether s is host:port or *:port, as
// [Capabilities.Network] lists it: a host is a lower-case DNS name, an IPv4
// address or an IPv6 address in brackets; a port is a number from 1 to 65535.
func ValidDestination(s string) bool {
	cut := strings.LastIndexByte(s, ':')
	if cut < 0 {
		return false
	}
	host, text := s[:cut], s[cut+1:]
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != text {
		return false
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		return ok && err == nil && a.Is6() && a.Zone() == "" && a.String() == inner
	}
	return host == "*" || len(host) <= 253 && hostPattern.MatchString(host)
}

func (p *Provenance) validate() error {
	switch {
	case p == nil:
	case p.Source == "" || !plain(p.Source):
		return fmt.Errorf("provenance.source must be printable text of at most %d bytes", maxText)
	case p.Revision != "" && !revisionPattern.MatchString(p.Revision):
		return fmt.Errorf("provenance.revision must be 40 or 64 lower-case hex digits")
	}
	return nil
}
