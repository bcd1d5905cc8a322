package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"sort"
	"strings"
	"sync"

	"github.com/sallyport-project/sallyport/internal/attester/guest"
	"github.com/sallyport-project/sallyport/internal/attester/sample"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/seal"
)

const (
	demoResource = "demo/database/password"
	demoOther    = "demo/database/other"
)

// demoResourcePolicy lets the sample TEE read one secret. It is for the demo:
// the sample TEE proves nothing.
const demoResourcePolicy = `package policy

allow if {
	data.plugin == "resource"
	data["resource-path"] == ["demo", "database", "password"]
	some submod in input.submods
	"sample" in object.keys(submod["ear.veraison.annotated-evidence"])
}
`

// sealStep runs the KBS handshake as a guest of Confidential Containers does.
func (d *demo) sealStep(ctx context.Context, n *demoNotes) error {
	random := make([]byte, 15)
	_, _ = rand.Read(random) // never fails
	value := base64.RawURLEncoding.EncodeToString(random)
	stored, err := d.operator.PutResource(ctx, "demo", "database", "password", []byte(value))
	if err != nil {
		return err
	}
	n.say("the operator stores %s, version %d: %s", stored.Path, stored.Version, value)

	tap, end := d.tap()
	defer end()
	workload, err := d.workload(tap, func(*guest.Config) {})
	if err != nil {
		return err
	}
	if err := demoAttest(ctx, n, workload); err != nil {
		return err
	}
	_, _, err = workload.Resource(ctx, demoResource)
	why, err := demoRefused(err, "the secret, by the default policy,", fault.Denied)
	if err != nil {
		return err
	}
	n.say("it asks for the secret; the default policy trusts no sample TEE: %s", why)

	set, err := d.operator.SetPolicy(ctx, "resource-policy", "kbs-resource", demoResourcePolicy)
	if err != nil {
		return err
	}
	n.say("the operator sets resource-policy, version %d: the sample TEE may read this one path", set.Version)
	plain, sealed, err := workload.Resource(ctx, demoResource)
	if err != nil {
		return err
	}
	defer plain.Wipe()
	head, err := base64.RawURLEncoding.DecodeString(sealed.Protected)
	if err != nil {
		return fault.Wrap(err, "decode protected header")
	}
	n.say("it asks again and gets a JWE, protected header:")
	n.say("  %s", head)
	n.say("  ciphertext %s", sealed.Ciphertext)
	if err := demoMust(string(plain.Reveal()) == value, "the JWE does not hold what was stored"); err != nil {
		return err
	}
	n.say("opened with the key that the evidence was bound to: %s", plain.Reveal())
	if err := demoOtherKey(n, sealed); err != nil {
		return err
	}
	_, _, err = workload.Resource(ctx, demoOther)
	if why, err = demoRefused(err, "another path", fault.Denied); err != nil {
		return err
	}
	n.say("it asks for %s: %s", demoOther, why)
	if err := demoReplay(ctx, n, tap); err != nil {
		return err
	}
	return d.demoWalk(ctx, n, tap, value)
}

// tap is the way of guests to the server.
func (d *demo) tap() (*demoTap, func()) {
	tap := &demoTap{next: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: d.roots}}}
	return tap, tap.next.CloseIdleConnections
}

// workload is a guest with a fresh key, and what change says.
func (d *demo) workload(tap *demoTap, change func(*guest.Config)) (*guest.Client, error) {
	key, err := seal.GenerateKey()
	if err != nil {
		return nil, err
	}
	attester, err := sample.New(evidence.Sample)
	if err != nil {
		return nil, err
	}
	c := guest.Config{URL: d.url, HTTP: tap, Attester: attester, Key: key}
	change(&c)
	return guest.New(c)
}

// demoAttest shows what the attestation result says of each device.
func demoAttest(ctx context.Context, n *demoNotes, workload *guest.Client) error {
	ear, err := workload.Attest(ctx)
	if err != nil {
		return err
	}
	n.say("a workload makes a key, asks for a challenge, and answers with evidence of the TEE sample, bound to both")
	parts := strings.Split(ear, ".")
	if len(parts) != 3 {
		return fault.Internalf("the attestation result is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fault.Wrap(err, "decode attestation result")
	}
	var claims struct {
		Submods map[string]struct {
			Status string         `json:"ear.status"`
			Vector map[string]any `json:"ear.trustworthiness-vector"`
		} `json:"submods"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return fault.Wrap(err, "read attestation result")
	}
	names := make([]string, 0, len(claims.Submods))
	for name := range claims.Submods {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		vector, err := json.Marshal(claims.Submods[name].Vector)
		if err != nil {
			return fault.Wrap(err, "encode trust vector")
		}
		n.say("attestation result (EAR): %s is %s, %s", name, claims.Submods[name].Status, vector)
	}
	return demoMust(len(names) > 0, "the attestation result names no device")
}

// demoOtherKey shows that a key which attested nothing opens nothing.
func demoOtherKey(n *demoNotes, sealed seal.JWE) error {
	other, err := seal.GenerateKey()
	if err != nil {
		return err
	}
	opened, err := seal.Open(other, sealed)
	if err == nil {
		opened.Wipe()
		return fault.Internalf("another key opens the JWE")
	}
	n.say("with any other key: %s", fault.Public(err))
	return nil
}

// demoTap passes requests on and remembers the attestation, as somebody on the
// workload's side of the wire could.
type demoTap struct {
	next *http.Transport
	mu   sync.Mutex
	sent *http.Request
	body []byte
}

func (t *demoTap) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/attest") {
		body, err := io.ReadAll(io.LimitReader(r.Body, evidence.MaxAttestation))
		_ = r.Body.Close()
		if err != nil {
			return nil, err
		}
		t.mu.Lock()
		t.sent, t.body = r.Clone(context.WithoutCancel(r.Context())), body
		t.mu.Unlock()
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return t.next.RoundTrip(r)
}

// demoReplay sends the same attestation once more, byte for byte.
func demoReplay(ctx context.Context, n *demoNotes, t *demoTap) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sent == nil {
		return fault.Internalf("no attestation was sent")
	}
	r := t.sent.Clone(ctx)
	r.Body = io.NopCloser(bytes.NewReader(t.body))
	answer, err := t.next.RoundTrip(r)
	if err != nil {
		return fault.Wrap(err, "replay attestation")
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	if err != nil {
		return fault.Wrap(err, "read answer to replay")
	}
	n.say("the same attestation, sent once more byte for byte: %s %s", answer.Status, bytes.TrimSpace(said))
	return demoMust(answer.StatusCode == http.StatusUnauthorized, "a replayed attestation was answered with %s", answer.Status)
}
