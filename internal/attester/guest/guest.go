// Package guest is the client of the Key Broker Service protocol as a
// confidential workload runs it: request, challenge, attestation, response, and
// then resources that only the workload's key opens.
//
// It speaks to Sallyport and to any other broker of protocol version 0.4.0. It
// is not a Trusted Execution Environment: evidence comes from an attester.
package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/token"
)

// Config describes a guest.
type Config struct {
	URL      string            // of the broker, without /kbs/v0
	HTTP     http.RoundTripper // with the broker's CA; http.DefaultTransport if nil
	Attester evidence.Attester
	Devices  []evidence.Attester // further evidence, 0.4.0 only; at most one of a TEE
	Key      seal.PrivateKey     // what answers are sealed to
	InitData *evidence.InitData
	Version  evidence.Version // 0.4.0 if empty
	Selector string           // of the server's attestation policies; empty for the default
	Token    string           // an attestation token of another service (passport mode): no handshake is made
}

// Client is a guest of one broker. It is not safe for concurrent use.
type Client struct {
	Config
	base   *url.URL
	http   *http.Client
	cookie string
	token  string
}

// New checks the configuration. Faults are Invalid.
func New(c Config) (*Client, error) {
	base, err := url.Parse(strings.TrimSuffix(c.URL, "/"))
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, fault.Invalidf("the broker's URL must be like https://host:port")
	}
	if c.Attester == nil && c.Token == "" {
		return nil, fault.Invalidf("a guest needs an attester for its evidence")
	}
	if c.Version == "" {
		c.Version = evidence.V040
	}
	if c.Version != evidence.V040 && len(c.Devices) > 0 {
		return nil, fault.Invalidf("version %s of the protocol knows no further devices", c.Version)
	}
	return &Client{Config: c, base: base, token: c.Token, http: &http.Client{Transport: c.HTTP, Timeout: time.Minute, CheckRedirect: noRedirect}}, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Attest runs the handshake and returns the attestation result, a JWT.
func (c *Client) Attest(ctx context.Context) (string, error) {
	request, err := evidence.Request{Version: c.Version, TEE: c.Attester.TEE(), Algorithms: []string{"sha256", "sha384", "sha512"}, Selector: c.Selector}.Encode()
	if err != nil {
		return "", fault.Wrap(err, "encode request")
	}
	c.cookie, c.token = "", ""
	body, err := c.call(ctx, http.MethodPost, "auth", request, evidence.MaxChallenge)
	if err != nil {
		return "", err
	}
	challenge, err := evidence.ParseChallenge(body)
	if err != nil {
		return "", err
	}
	given, err := c.evidence(ctx, challenge)
	if err != nil {
		return "", err
	}
	if body, err = c.call(ctx, http.MethodPost, "attest", given, evidence.MaxToken); err != nil {
		return "", err
	}
	response, err := evidence.ParseResponse(body)
	if err != nil {
		return "", err
	}
	c.token = response.Token
	return c.token, nil
}

// evidence binds the attester's evidence to challenge and key.
func (c *Client) evidence(ctx context.Context, challenge evidence.Challenge) ([]byte, error) {
	a := evidence.Attestation{
		Version: c.Version, InitData: c.InitData, Runtime: evidence.Runtime{Nonce: challenge.Nonce, Key: c.Key.Public()},
	}
	var binding evidence.Binding
	if c.InitData != nil {
		measured, err := c.InitData.Measure()
		if err != nil {
			return nil, err
		}
		binding.InitData = measured.Digest
	}
	if err := c.devices(ctx, &a, binding); err != nil {
		return nil, err
	}
	var err error
	if binding.ReportData, err = a.Runtime.Digest(c.Version); err != nil {
		return nil, fault.Wrap(err, "bind evidence")
	}
	e, err := c.Attester.Evidence(ctx, binding)
	if err != nil {
		return nil, fault.Wrap(err, "collect evidence")
	}
	a.Primary = e.Body
	return a.Encode()
}

// devices adds the evidence of further devices, each bound to challenge and key.
// The primary evidence is then bound to all of it.
func (c *Client) devices(ctx context.Context, a *evidence.Attestation, b evidence.Binding) error {
	if len(c.Devices) == 0 {
		return nil
	}
	var err error
	if b.ReportData, err = a.Runtime.DeviceDigest(); err != nil {
		return fault.Wrap(err, "bind evidence of devices")
	}
	all := map[evidence.TEE]json.RawMessage{}
	for _, d := range c.Devices {
		e, err := d.Evidence(ctx, b)
		if err != nil {
			return fault.Wrap(err, "collect evidence of %s", d.TEE())
		}
		all[e.TEE] = e.Body
	}
	text, err := json.Marshal(all)
	a.Runtime.Additional = string(text)
	return fault.Wrap(err, "encode evidence of devices")
}

// Resource fetches repository/type/tag and opens it. Without a handshake before
// it, it attests first.
func (c *Client) Resource(ctx context.Context, path string) (secret.Bytes, seal.JWE, error) {
	body, err := c.get(ctx, "resource/"+escaped(strings.Trim(path, "/")))
	if err != nil {
		return secret.Bytes{}, seal.JWE{}, err
	}
	sealed, err := seal.ParseJWE(body)
	if err != nil {
		return secret.Bytes{}, seal.JWE{}, err
	}
	plain, err := seal.Open(c.Key, sealed)
	return plain, sealed, err
}

// External asks an external plugin, by its name, a path below it and a query, and
// opens the answer. One that is not sealed is returned as it is, with a JWE that is
// zero: whoever was on the way may have read or made it.
func (c *Client) External(ctx context.Context, path string, query url.Values) (secret.Bytes, seal.JWE, error) {
	target := "external/" + escaped(strings.TrimPrefix(path, "/"))
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	body, err := c.get(ctx, target)
	if err != nil {
		return secret.Bytes{}, seal.JWE{}, err
	}
	sealed, err := seal.ParseJWE(body)
	if err != nil {
		return secret.New(body), seal.JWE{}, nil //nolint:nilerr // then it is what the plugin said
	}
	plain, err := seal.Open(c.Key, sealed)
	return plain, sealed, err
}

func escaped(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// get fetches what is for attested guests, after a handshake if there was none.
func (c *Client) get(ctx context.Context, target string) ([]byte, error) {
	if c.token == "" {
		if _, err := c.Attest(ctx); err != nil {
			return nil, err
		}
	}
	return c.call(ctx, http.MethodGet, target, nil, 6<<20)
}

// Where a broker publishes key sets: of its attestation tokens, and of what it tells
// external plugins.
const (
	ResultKeys  = "/.well-known/jwks.json"
	ContextKeys = "/.well-known/sallyport-context-jwks.json"
)

// Keys fetches a JWK set that a broker publishes.
func Keys(ctx context.Context, broker, path string, transport http.RoundTripper) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(broker, "/")+path, nil)
	if err != nil {
		return nil, fault.Invalidf("the broker's URL cannot be used").Because(err)
	}
	answer, err := (&http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: noRedirect}).Do(r)
	if err != nil {
		return nil, fault.Unavailablef("the broker cannot be reached at %s", r.URL.Host).Because(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, token.MaxKeySet))
	if err != nil || answer.StatusCode != http.StatusOK {
		return nil, fault.Unavailablef("the broker publishes no keys: status %d", answer.StatusCode).Because(err)
	}
	_, err = token.ParseKeySet(text)
	return text, err
}

// call sends one request and reads an answer of at most limit bytes. Failures
// of the protocol become faults with its detail.
func (c *Client) call(ctx context.Context, method, path string, body []byte, limit int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base.String()+"/kbs/v0/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fault.Invalidf("the broker's URL cannot be used").Because(err)
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if c.cookie != "" {
		r.AddCookie(&http.Cookie{Name: token.CookieName, Value: c.cookie}) //nolint:gosec // sent, not set: it has no attributes
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, fault.Unavailablef("the broker cannot be reached at %s", c.base.Host).Because(err)
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	switch {
	case err != nil:
		return nil, fault.Unavailablef("the broker's answer broke off").Because(err)
	case int64(len(data)) > limit:
		return nil, fault.Invalidf("the broker's answer is larger than %d bytes", limit)
	case answer.StatusCode != http.StatusOK:
		return nil, refusal(answer.StatusCode, data)
	}
	for _, cookie := range answer.Cookies() {
		if cookie.Name == token.CookieName {
			c.cookie = cookie.Value
		}
	}
	return data, nil
}

// refusal reads the protocol's error object.
func refusal(status int, data []byte) error {
	p, err := evidence.ParseProblem(data)
	if err != nil {
		return fault.Unavailablef("the broker answered with status %d", status).Because(errors.Join(err))
	}
	switch v := p.Variant(); {
	case v.NotFound():
		return fault.NotFoundf("%s: %s", v, p.Detail)
	case v == evidence.PolicyDeny || v == evidence.AdminAuthAccess:
		return fault.Deniedf("%s: %s", v, p.Detail)
	case v == evidence.TokenNotFound || v == evidence.TokenVerifierError || v == evidence.AttestationError:
		return fault.Unauthenticatedf("%s: %s", v, p.Detail)
	default:
		return fault.Unavailablef("%s: %s", v, p.Detail)
	}
}
