package cli

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/attester/guest"
	"github.com/sallyport-project/sallyport/internal/attester/sample"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// guestOptions are those of the guest client.
type guestOptions struct {
	tee, keyFile, out string
	showJWE           bool
}

func newKBS(s *shell) *cobra.Command {
	return group("kbs", "Act as a guest of a key broker",
		`The guest side of the Key Broker Service protocol, as a confidential workload runs
it: against this server, or any other broker of protocol 0.4.0 (--url, --ca).
The evidence of --tee sample proves nothing; a server believes it only where its
sample verifier is switched on.`,
		"  sallyport kbs get default/key/1 --out disk.key",
		kbsAttest(s), kbsGet(s))
}

func (o *guestOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.tee, "tee", "sample", "where evidence comes from: sample or sampledevice")
	c.Flags().StringVar(&o.keyFile, "tee-key-file", "", "PEM file with the key that answers are sealed to (default: a fresh one)")
}

func kbsAttest(s *shell) *cobra.Command {
	var o guestOptions
	c := &cobra.Command{
		Use: "attest", Short: "Show evidence and get an attestation token", Args: cobra.NoArgs,
		Long:    "Run the handshake and print the attestation token, a JWT.",
		Example: "  sallyport kbs attest --url https://broker.example.org:8080 --ca broker.pem",
		RunE: func(c *cobra.Command, _ []string) error {
			g, err := s.guest(o)
			if err != nil {
				return err
			}
			token, err := g.Attest(c.Context())
			if err != nil {
				return err
			}
			return s.print(map[string]string{"token": token}, func() error { return s.line("%s", token) })
		},
	}
	o.flags(c)
	return c
}

func kbsGet(s *shell) *cobra.Command {
	var o guestOptions
	c := &cobra.Command{
		Use: "get PATH", Short: "Attest, then fetch and open a secret", Args: cobra.ExactArgs(1),
		Long: `Attest, fetch the resource REPOSITORY/TYPE/TAG (or kbs:///REPOSITORY/TYPE/TAG), and
open it with the guest's key. kbs+external:///PLUGIN/PATH?QUERY asks an external plugin
instead. The value goes to standard output byte for byte, or to --out with mode 0600.
--show-jwe prints the sealed answer instead, as it came over the network.`,
		Example: "  sallyport kbs get default/key/1 > disk.key\n  sallyport kbs get kbs+external:///hello/greeting/bob\n  sallyport kbs get default/key/1 --show-jwe --tee-key-file guest.pem",
		RunE: func(c *cobra.Command, args []string) error {
			g, err := s.guest(o)
			if err != nil {
				return err
			}
			value, sealed, err := fetch(c.Context(), g, args[0])
			if err != nil {
				return err
			}
			defer value.Wipe()
			if sealed == (seal.JWE{}) {
				if o.showJWE {
					return fault.Invalidf("the answer was not sealed, so there is no JWE")
				}
				s.warn("the answer was not sealed: it is whatever came over the connection")
			}
			if o.showJWE {
				return s.print(sealed, func() error {
					s.output = "json"
					return s.print(sealed, nil)
				})
			}
			if o.out != "" {
				if err := replace(o.out, value.Reveal(), 0o600); err != nil {
					return err
				}
				return s.print(map[string]any{"file": o.out, "bytes": value.Len()}, func() error {
					return s.line("%d bytes are in %s", value.Len(), o.out)
				})
			}
			_, err = s.out.Write(value.Reveal())
			return written(err)
		},
	}
	o.flags(c)
	c.Flags().StringVar(&o.out, "out", "", "file for the value (default: standard output)")
	c.Flags().BoolVar(&o.showJWE, "show-jwe", false, "print the sealed answer instead of the value")
	return c
}

// fetch reads what a path or a URI of existing guests names.
func fetch(ctx context.Context, g *guest.Client, path string) (secret.Bytes, seal.JWE, error) {
	if rest, ok := strings.CutPrefix(path, "kbs:///"); ok {
		path = rest
	}
	if !strings.Contains(path, "://") {
		return g.Resource(ctx, path)
	}
	u, err := url.Parse(path)
	if err != nil || u.Scheme != "kbs+external" || u.Host != "" || u.Fragment != "" {
		return secret.Bytes{}, seal.JWE{}, fault.Invalidf("the path must be REPOSITORY/TYPE/TAG, or like kbs+external:///PLUGIN/PATH")
	}
	return g.External(ctx, u.Path, u.Query())
}

// guest makes the guest client. It shows no certificate and no session: a guest
// is known by its evidence alone.
func (s *shell) guest(o guestOptions) (*guest.Client, error) {
	id, err := s.identity()
	if err != nil && (s.url == "" || s.context != "") { // another broker needs no context
		return nil, err
	}
	cfg, err := s.target(id)
	if err != nil {
		return nil, err
	}
	tee, err := evidence.ParseTEE(o.tee)
	if err != nil {
		return nil, err
	}
	attester, err := sample.New(tee)
	if err != nil {
		return nil, err
	}
	key, err := s.guestKey(o.keyFile)
	if err != nil {
		return nil, err
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, fault.Internalf("the default transport is not HTTP's")
	}
	transport = transport.Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots} // brokers in the field are older than 1.3
	return guest.New(guest.Config{URL: cfg.URL, HTTP: transport, Attester: attester, Key: key})
}

func (s *shell) guestKey(file string) (seal.PrivateKey, error) {
	if file == "" {
		return seal.GenerateKey()
	}
	text, err := s.readFile(file, maxSecret)
	if err != nil {
		return seal.PrivateKey{}, err
	}
	held := secret.New(text)
	defer held.Wipe()
	return seal.ParsePrivateKey(held)
}
