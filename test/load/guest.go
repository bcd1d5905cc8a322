package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	"github.com/sallyport-project/sallyport/internal/attester/guest"
	evidencer "github.com/sallyport-project/sallyport/internal/attester/sample"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/secret"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func resourceBudgets(options) []budget { return []budget{atLeast("ratio", 0.14)} }

const (
	resourcePath  = "default/load/secret"
	resourceValue = "thirty-two bytes of real secrets"
)

// allowAll is the resource policy: the evidence of the sample verifier proves
// nothing, so the installed one refuses it.
const allowAll = `package policy

allow if {
	data.plugin == "resource"
	count(input.submods) > 0
}
`

// kbsResource measures GET /kbs/v0/resource by attested guests: token, policy,
// a secret sealed to the guest's key, and a durable record for every answer.
func kbsResource(ctx context.Context, o options) (r result, err error) {
	floor, err := startBare(ctx, false)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, floor.stop()) }()
	err = running(ctx, o, resourceToFetch(ctx), func(s *server) error {
		return between(ctx, &r, floor, o, 700, func() error { // about as long as a sealed answer
			all, err := resources(ctx, s, o)
			r.take(all)
			return err
		})
	})
	r.CPUOf = "the server"
	return r, err
}

// resourceToFetch stores the secret, and lets every guest have it.
func resourceToFetch(ctx context.Context) func(*server, *sallyport.Client) error {
	return func(_ *server, admin *sallyport.Client) error {
		if _, err := admin.SetPolicy(ctx, policy.ResourceName, "kbs-resource", allowAll); err != nil {
			return fmt.Errorf("set policy: %w", err)
		}
		if _, err := admin.PutResource(ctx, "default", "load", "secret", []byte(resourceValue)); err != nil {
			return fmt.Errorf("store resource: %w", err)
		}
		return nil
	}
}

func resources(ctx context.Context, s *server, o options) (sample, error) {
	var opened connections
	defer opened.close()
	return drive{conns: o.conns, warm: o.warm, duration: o.duration, cpu: s.cpu, open: s.openGuest(&opened)}.run(ctx)
}

// openGuest makes workers that attest, each with a key and a connection of its own,
// and read the one secret again and again.
func (s *server) openGuest(opened *connections) func(context.Context, int) (call, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.in.roots(), NextProtos: []string{"http/1.1"}}
	return func(ctx context.Context, _ int) (call, error) {
		key, token, err := attest(ctx, s, config)
		if err != nil {
			return nil, err
		}
		c, err := dial(ctx, s.main, config)
		if err != nil {
			return nil, err
		}
		opened.add(c)
		text := request(http.MethodGet, "/kbs/v0/resource/"+resourcePath, s.main, nil, "Authorization: Bearer "+token)
		looked := false
		return func(context.Context) error {
			status, answer, err := c.exchange(text)
			if err == nil && status != http.StatusOK {
				err = refused(status, answer)
			}
			if err == nil && !looked {
				looked, err = true, opens(key, answer)
			}
			return err
		}, nil
	}
}

// attest makes a guest with a key of its own and runs the handshake.
func attest(ctx context.Context, s *server, config *tls.Config) (seal.PrivateKey, string, error) {
	key, err := seal.GenerateKey()
	if err != nil {
		return key, "", fmt.Errorf("make guest's key: %w", err)
	}
	attester, err := evidencer.New(evidence.Sample)
	if err != nil {
		return key, "", fmt.Errorf("make attester: %w", err)
	}
	transport := &http.Transport{TLSClientConfig: config.Clone()}
	defer transport.CloseIdleConnections()
	g, err := guest.New(guest.Config{URL: "https://" + s.main, HTTP: transport, Attester: attester, Key: key})
	if err != nil {
		return key, "", fmt.Errorf("make guest: %w", err)
	}
	token, err := g.Attest(ctx)
	if err != nil {
		return key, "", fmt.Errorf("attest: %w; the server says: %s", err, s.log)
	}
	return key, token, nil
}

// opens makes sure, once for each guest, that its key opens the secret.
func opens(key seal.PrivateKey, answer []byte) error {
	sealed, err := seal.ParseJWE(answer)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	plain, err := seal.Open(key, sealed)
	if err != nil {
		return fmt.Errorf("open answer: %w", err)
	}
	defer plain.Wipe()
	if !plain.Equal(secret.FromString(resourceValue)) {
		return errors.New("the answer holds another secret")
	}
	return nil
}
