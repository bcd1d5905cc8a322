package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"

	evidencer "github.com/sallyport-project/sallyport/internal/attester/sample"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/seal"
)

// handshakeBudgets are rates on the machine of the budgets, and the same as ratios
// to what a bare server reached there: 46,000 requests a second, three of which are
// a guest.
func handshakeBudgets(options) []budget {
	return []budget{atLeast("requests_per_s", 2000), atMost("p99_ms", 25), atLeast("ratio", 0.13)}
}

// newHandshakeBudgets stand beside 2,380 fresh connections with three empty requests
// a second.
func newHandshakeBudgets(options) []budget {
	return []budget{atLeast("requests_per_s", 1000), atLeast("ratio", 0.42)}
}

// kbsHandshake measures what a guest does when it comes up: challenge, evidence,
// and one secret, three requests that count as one here.
func kbsHandshake(ctx context.Context, o options) (result, error) {
	return handshakes(ctx, o, false)
}

// kbsHandshakeNew is the same with a TLS connection of its own for each guest.
func kbsHandshakeNew(ctx context.Context, o options) (result, error) {
	return handshakes(ctx, o, true)
}

func handshakes(ctx context.Context, o options, fresh bool) (r result, err error) {
	floor, err := startBare(ctx, false)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, floor.stop()) }()
	name := "three requests to a bare TLS echo (net/http), same client"
	if fresh {
		name = "a TLS connection and " + name
	}
	err = running(ctx, o, resourceToFetch(ctx), func(s *server) error {
		return amid(ctx, &r, name, o, floor.driveGuests(fresh), func() error {
			all, err := drive{
				conns: o.conns, warm: o.warm, duration: o.duration, cpu: s.cpu,
				open: func(ctx context.Context, _ int) (call, error) { return newVisitor(ctx, s, fresh) },
			}.run(ctx)
			r.take(all)
			return err
		})
	})
	r.CPUOf = "the server"
	return r, err
}

// visitor is a guest that comes up again and again. It keeps its key, whose
// making is not the server's work.
type visitor struct {
	server   *server
	config   *tls.Config
	key      seal.PrivateKey
	attester evidence.Attester
	line     *connection // nil between guests that have one each
	fresh    bool
	looked   bool
	hello    []byte
}

func newVisitor(ctx context.Context, s *server, fresh bool) (call, error) {
	v := &visitor{
		server: s, fresh: fresh,
		config: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.in.roots(), NextProtos: []string{"http/1.1"}},
	}
	var err error
	if v.key, err = seal.GenerateKey(); err != nil {
		return nil, fmt.Errorf("make guest's key: %w", err)
	}
	if v.attester, err = evidencer.New(evidence.Sample); err != nil {
		return nil, fmt.Errorf("make attester: %w", err)
	}
	body, err := evidence.Request{Version: evidence.V040, TEE: evidence.Sample}.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	v.hello = request(http.MethodPost, "/kbs/v0/auth", s.main, body)
	if !fresh {
		v.line, err = dial(ctx, s.main, v.config)
	}
	return v.comeUp, err
}

// comeUp is one guest from its first request to its secret.
func (v *visitor) comeUp(ctx context.Context) error {
	line := v.line
	if v.fresh {
		var err error
		if line, err = dial(ctx, v.server.main, v.config); err != nil {
			return err
		}
		defer line.close()
	}
	answer, err := expectOK(line, v.hello)
	if err != nil {
		return err
	}
	cookie, _, _ := strings.Cut(line.cookie, ";")
	challenge, err := evidence.ParseChallenge(answer)
	if err != nil {
		return fmt.Errorf("read challenge: %w", err)
	}
	body, err := v.answer(ctx, challenge)
	if err != nil {
		return err
	}
	if _, err := expectOK(line, request(http.MethodPost, "/kbs/v0/attest", v.server.main, body, "Cookie: "+cookie)); err != nil {
		return err
	}
	answer, err = expectOK(line, request(http.MethodGet, "/kbs/v0/resource/"+resourcePath, v.server.main, nil, "Cookie: "+cookie))
	if err == nil && !v.looked {
		v.looked, err = true, opens(v.key, answer)
	}
	return err
}

// answer binds evidence to a challenge.
func (v *visitor) answer(ctx context.Context, challenge evidence.Challenge) ([]byte, error) {
	a := evidence.Attestation{Version: evidence.V040, Runtime: evidence.Runtime{Nonce: challenge.Nonce, Key: v.key.Public()}}
	digest, err := a.Runtime.Digest(evidence.V040)
	if err != nil {
		return nil, fmt.Errorf("bind evidence: %w", err)
	}
	e, err := v.attester.Evidence(ctx, evidence.Binding{ReportData: digest})
	if err != nil {
		return nil, fmt.Errorf("collect evidence: %w", err)
	}
	a.Primary = e.Body
	body, err := a.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode attestation: %w", err)
	}
	return body, nil
}

func expectOK(line *connection, text []byte) ([]byte, error) {
	status, answer, err := line.exchange(text)
	if err == nil && status != http.StatusOK {
		err = refused(status, answer)
	}
	return answer, err
}
