// Command sshcert is the plugin for OpenSSH user certificates, credential kind
// ssh-user-cert.
//
// It holds no key. It checks and narrows a scope, and answers with the bytes
// that the certificate authority signs by OpenSSH's PROTOCOL.certkeys: the
// certificate blob up to and including the signature key. The host compares them
// with its decision and signs.
package main

import (
	"context"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// kind is the credential kind that this plugin serves.
const kind = "ssh-user-cert"

// version is the one in plugin.json.
const version = "0.1.0"

func main() {
	plugin.Serve(plugin.About{Name: "sshcert", Version: version, Kinds: []string{kind}}, plugin.Vender{
		Vet: func(_ context.Context, s plugin.Scope) error {
			_, err := parseScope(s)
			return err
		},
		Issue: (&issuer{}).issue,
	})
}

func (i *issuer) issue(_ context.Context, r plugin.Request) (plugin.Issued, error) {
	s, err := parseScope(r.Scope)
	if err != nil {
		return plugin.Issued{}, err
	}
	if s, err = s.narrow(r.Bounds); err != nil {
		return plugin.Issued{}, err
	}
	f, err := i.frame(r.Host)
	if err != nil {
		return plugin.Issued{}, err
	}
	tbs, err := s.toBeSigned(f)
	if err != nil {
		return plugin.Issued{}, err
	}
	return plugin.Issued{Scope: s.scope(), Value: tbs, ExpiresAt: f.before, Anomalies: s.anomalies()}, nil
}
