package cli

import (
	"bytes"
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
	tee, keyFile, out            string
	protocol, initData, selector string
	tokenFile                    string
	devices                      []string
	showJWE, postQuantum         bool
}

func newKBS(s *shell) *cobra.Command {
	return group("kbs", "Act as a guest of a key broker",
		`The guest side of the Key Broker Service protocol, as a confidential workload runs
it: against this server, or any other broker of protocol 0.4.0 (--url, --ca).
The evidence of --tee sample proves nothing; a server believes it only where its
sample verifier is switched on.`,
		"  sallyport kbs get default/key/1 --out disk.key",
		kbsAttest(s), kbsGet(s), kbsKeys(s))
}

func (o *guestOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.tee, "tee", "sample", "where evidence comes from: sample or sampledevice")
	c.Flags().StringVar(&o.keyFile, "tee-key-file", "", "PEM file with the key that answers are sealed to (default: a fresh one)")
	c.Flags().BoolVar(&o.postQuantum, "post-quantum", false, "make the fresh key for ML-KEM-768 instead of P-256")
	c.Flags().StringVar(&o.protocol, "protocol", string(evidence.V040), "version of the protocol: 0.4.0 or 0.2.0")
	c.Flags().StringSliceVar(&o.devices, "device", nil, "show the evidence of a device too: sampledevice")
	c.Flags().StringVar(&o.initData, "init-data", "", "TOML file with the guest's init-data, which the evidence is bound to")
	c.Flags().StringVar(&o.selector, "attestation-policy", "", "ask for the attestation policies that the server has under this selector")
}

func kbsAttest(s *shell) *cobra.Command {
	var o guestOptions
	c := &cobra.Command{
		Use: "attest", Short: "Show evidence and get an attestation token", Args: cobra.NoArgs,
		Long: `Run the handshake and print the attestation token, a JWT. With --tee-key-file it can
be brought to another server: sallyport kbs get --token-file.`,
		Example: "  sallyport kbs attest --url https://broker.example.org:8080 --ca broker.pem\n  sallyport kbs attest --tee-key-file guest.pem > passport",
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
instead. The value goes to standard output byte for byte (in base64 with --output json
or yaml), or to --out with mode 0600.
--show-jwe prints the sealed answer instead, as it came over the network. With
--token-file no handshake is made: the token is that of another server, which this
one trusts (passport mode), and --tee-key-file is the key that it was made for.`,
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
			return s.raw(value.Reveal(), map[string]any{"path": args[0], "bytes": value.Len()})
		},
	}
	o.flags(c)
	c.Flags().StringVar(&o.tokenFile, "token-file", "", "attestation token of another server; needs --tee-key-file")
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

func kbsKeys(s *shell) *cobra.Command {
	path, contexts := guest.ResultKeys, false
	c := &cobra.Command{
		Use: "keys", Short: "Print the keys that attestation tokens are signed with", Args: cobra.NoArgs,
		Long: `Fetch the JWK set by which attestation tokens of a server are verified, from
/.well-known/jwks.json. Another server that has it as a trusted key set takes guests
that attested here (passport mode). With --contexts it is the set by which external
plugins check what the server tells them of callers (docs/plugins/kbs.md).`,
		Example: "  sallyport kbs keys > trusted.json\n  sallyport kbs keys --contexts > broker.json",
		RunE: func(c *cobra.Command, _ []string) error {
			url, transport, err := s.broker()
			if err != nil {
				return err
			}
			if contexts {
				path = guest.ContextKeys
			}
			text, err := guest.Keys(c.Context(), url, path, transport)
			if err != nil {
				return err
			}
			return s.line("%s", bytes.TrimSpace(text))
		},
	}
	c.Flags().BoolVar(&contexts, "contexts", false, "the keys of what external plugins are told of callers")
	return c
}

// broker is the address of the key broker, and how to reach it. A guest shows no
// certificate and no session: it is known by its evidence alone.
func (s *shell) broker() (string, http.RoundTripper, error) {
	id, err := s.identity()
	if err != nil && (s.url == "" || s.context != "") { // another broker needs no context
		return "", nil, err
	}
	cfg, err := s.target(id)
	if err != nil {
		return "", nil, err
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return "", nil, fault.Internalf("the default transport is not HTTP's")
	}
	transport = transport.Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots} // brokers in the field are older than 1.3
	return cfg.URL, transport, nil
}

// guest makes the guest client.
func (s *shell) guest(o guestOptions) (*guest.Client, error) {
	url, transport, err := s.broker()
	if err != nil {
		return nil, err
	}
	g := guest.Config{URL: url, HTTP: transport, Selector: o.selector}
	if err := s.shown(o, &g); err != nil {
		return nil, err
	}
	return guest.New(g)
}

// shown fills in what a guest shows: evidence, or a token, and its key.
func (s *shell) shown(o guestOptions, g *guest.Config) (err error) {
	if g.Version, err = evidence.ParseVersion(o.protocol); err != nil {
		return err
	}
	if g.Key, err = s.guestKey(o); err != nil {
		return err
	}
	if o.tokenFile != "" {
		if o.keyFile == "" {
			return fault.Invalidf("answers are sealed to the key that the token was made for: give it by --tee-key-file")
		}
		text, err := s.readFile(o.tokenFile, evidence.MaxToken)
		g.Token = strings.TrimSpace(string(text))
		return err
	}
	for i, name := range append([]string{o.tee}, o.devices...) {
		tee, err := evidence.ParseTEE(name)
		if err != nil {
			return err
		}
		attester, err := sample.New(tee)
		if err != nil {
			return err
		}
		if i == 0 {
			g.Attester = attester
		} else {
			g.Devices = append(g.Devices, attester)
		}
	}
	if o.initData != "" {
		text, err := s.readFile(o.initData, evidence.MaxInitData)
		if err != nil {
			return err
		}
		g.InitData = &evidence.InitData{Format: "toml", Body: string(text)}
	}
	return nil
}

func (s *shell) guestKey(o guestOptions) (seal.PrivateKey, error) {
	switch {
	case o.keyFile != "" && o.postQuantum:
		return seal.PrivateKey{}, fault.Invalidf("--post-quantum makes a fresh key: leave out --tee-key-file")
	case o.postQuantum:
		return seal.GenerateKEM()
	case o.keyFile == "":
		return seal.GenerateKey()
	}
	text, err := s.readFile(o.keyFile, maxSecret)
	if err != nil {
		return seal.PrivateKey{}, err
	}
	held := secret.New(text)
	defer held.Wipe()
	return seal.ParsePrivateKey(held)
}
