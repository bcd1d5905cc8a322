package plugin

import "testing"

// A plugin of the foreign contract that gives no certificate is believed at a
// private socket, where the kernel says who is at the other end, and nowhere else.
func TestProcess_PrivateSocketNeedsNoCertificate(t *testing.T) {
	const dir = "/run/sallyport/p1"
	for what, c := range map[string]struct {
		line, network, address string
		refused, plain         bool
	}{
		"private socket":                  {"1|1|unix|" + dir + "/s|grpc", "unix", dir + "/s", false, true},
		"private socket, certificate":     {"1|1|unix|" + dir + "/s|grpc|MIIB", "unix", dir + "/s", false, false},
		"socket of another":               {"1|1|unix|/run/other/s|grpc", "unix", "/run/other/s", true, false},
		"socket of another, by a detour":  {"1|1|unix|" + dir + "/../p2/s|grpc", "unix", dir + "/../p2/s", true, false},
		"loopback without its own":        {"1|1|tcp|127.0.0.1:5|grpc", "tcp", "127.0.0.1:5", true, false},
		"loopback with a certificate":     {"1|1|tcp|127.0.0.1:5|grpc|MIIB", "tcp", "127.0.0.1:5", false, false},
		"another machine, certificate":    {"1|1|tcp|192.0.2.1:5|grpc|MIIB", "tcp", "192.0.2.1:5", true, false},
		"private socket, line with a gap": {" 1|1|unix|" + dir + "/s|grpc \n", "unix", dir + "/s", false, true},
	} {
		plain := false
		p := &process{name: "p", socket: dir, plain: func() { plain = true }}
		p.said.WriteString(c.line)
		_, _, err := p.PluginToHost(c.network, c.address)
		if (err != nil) != c.refused || plain != c.plain {
			t.Errorf("%s: refused %v, plain %v", what, err, plain)
		}
		if plain && c.network == "unix" && !p.local {
			t.Errorf("%s: nobody checks who is at the other end", what)
		}
	}
}
