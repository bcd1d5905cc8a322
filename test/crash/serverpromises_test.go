package crash

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/internal/keys/sshca"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// holds checks after a restart everything that the callers were promised.
func (s *tale) holds(ctx context.Context) error {
	if err := s.replays(); err != nil {
		return err
	}
	if err := s.ledgerHoldsAll(ctx); err != nil {
		return err
	}
	grants, err := s.server.Grants(ctx)
	if err != nil {
		return err
	}
	if err := s.agrees(ctx, grants); err != nil {
		return err
	}
	for _, c := range s.callers {
		if err := c.keeps(grants); err != nil {
			return err
		}
	}
	return s.listed(ctx, grants)
}

// replays repeats requests under their keys: what was answered is answered
// again with the same credential, and what was not has one outcome from now on.
func (s *tale) replays() error {
	for _, c := range s.callers {
		client := s.server.HTTP(&c.who.Certificate)
		for _, key := range c.live[max(0, len(c.live)-5):] {
			got, err := s.server.Vend(client, c.token, key)
			if err != nil || got.Status != http.StatusOK || !got.Replayed || got.Grant != c.keys[key] || got.Value != c.released[got.Grant].value {
				return fmt.Errorf("key %s gave grant %s and now gives %d %s (%w): %s", key, c.keys[key], got.Status, got.Grant, err, got.Body)
			}
		}
		for _, key := range c.unknown {
			one, err := s.server.Vend(client, c.token, key)
			if err != nil || one.Status != http.StatusOK && one.Status != http.StatusCreated {
				return fmt.Errorf("a request without an answer cannot be repeated: %d (%w): %s", one.Status, err, one.Body)
			}
			two, err := s.server.Vend(client, c.token, key)
			if err != nil || two.Status != http.StatusOK || two.Grant != one.Grant || two.Value != one.Value {
				return fmt.Errorf("key %s gave grant %s and then %s (%w): %s", key, one.Grant, two.Grant, err, two.Body)
			}
			c.released[one.Grant], c.keys[key] = proof{one.Value, time.Now()}, one.Grant
		}
		client.CloseIdleConnections()
	}
	return nil
}

// ledgerHoldsAll waits until every record has its place, and verifies an export
// with the key that init printed.
func (s *tale) ledgerHoldsAll(ctx context.Context) error {
	time.Sleep(300 * time.Millisecond) // a record has its place within 200 ms
	report, err := s.server.Verify(ctx)
	if err != nil {
		return err
	}
	if !report.OK || report.Records == 0 {
		return fmt.Errorf("the ledger does not verify: %+v", report)
	}
	return nil
}

// agrees demands that grants and records tell the same story.
func (s *tale) agrees(ctx context.Context, grants map[string]sallyport.Grant) error {
	records, err := s.server.Records(ctx, "grant.")
	if err != nil {
		return err
	}
	issued, revoked, expired := map[string]int{}, map[string]int{}, map[string]int{}
	for _, r := range records {
		switch r.Type {
		case "grant.issued":
			issued[r.Grant]++
		case "grant.revoked":
			revoked[r.Grant]++
		case "grant.expired":
			expired[r.Grant]++
		}
	}
	for name, g := range grants {
		want := map[bool]int{true: 1}
		if issued[name] != 1 || revoked[name] != want[g.State == "revoked"] || expired[name] > want[g.State == "expired"] {
			return fmt.Errorf("HALF: grant %s is %s with %d records of its issue, %d of a revocation, %d of an expiry",
				name, g.State, issued[name], revoked[name], expired[name])
		}
		if g.State == "intent" || g.State == "revoking" {
			return fmt.Errorf("HALF: grant %s stays %s", name, g.State)
		}
	}
	for name := range issued {
		if _, ok := grants[name]; !ok {
			return fmt.Errorf("HALF: the ledger knows grant %s, the store does not", name)
		}
	}
	return nil
}

// keeps demands that every credential that the caller holds is a grant of
// the store with its serial, and that every acknowledged revocation holds.
func (c *caller) keeps(grants map[string]sallyport.Grant) error {
	for name, p := range c.released {
		g, ok := grants[name]
		if !ok {
			return fmt.Errorf("LOST: grant %s was released and is not there", name)
		}
		_, serial, err := certificate(p.value)
		if err != nil {
			return err
		}
		if _, number, _ := strings.Cut(g.Handle, "/"); number != strconv.FormatUint(serial, 10) {
			return fmt.Errorf("LOST: grant %s has the handle %s, its certificate the serial %d", name, g.Handle, serial)
		}
		switch {
		case c.revoked[name] && g.State != "revoked":
			return fmt.Errorf("LOST: the revocation of grant %s was acknowledged, and it is %s", name, g.State)
		case c.revoked[name] || c.trying[name]: // the second: nobody knows
		case g.State == "active" || g.State == "expired" && time.Now().After(g.ExpiresAt):
		default:
			return fmt.Errorf("grant %s is %s, and nobody did that", name, g.State)
		}
	}
	return nil
}

// listed demands that the published list names exactly what is revoked.
func (s *tale) listed(ctx context.Context, grants map[string]sallyport.Grant) error {
	operator, err := s.server.Client(s.house.Operator)
	if err != nil {
		return err
	}
	defer operator.Close()
	raw, err := operator.SSHRevocations(ctx)
	if err != nil {
		return fmt.Errorf("read revocation list: %w", err)
	}
	list, err := sshca.ReadKRL(raw)
	if err != nil {
		return fmt.Errorf("read revocation list: %w", err)
	}
	for _, c := range s.callers {
		for name, p := range c.released {
			ca, serial, err := certificate(p.value)
			if err != nil {
				return err
			}
			if list.Revokes(ca, serial) != (grants[name].State == "revoked") {
				return fmt.Errorf("grant %s is %s, and the revocation list says otherwise", name, grants[name].State)
			}
		}
	}
	return nil
}

// certificate reads whose signature and which serial a certificate has.
func certificate(line string) (ca string, serial uint64, err error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return "", 0, fmt.Errorf("the credential is no certificate: %w", err)
	}
	c, ok := key.(*ssh.Certificate)
	if !ok {
		return "", 0, fmt.Errorf("the credential is a %T", key)
	}
	return string(ssh.MarshalAuthorizedKey(c.SignatureKey)), c.Serial, nil
}
