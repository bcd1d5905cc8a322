package flow

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// guestRole is the role of every workload: what a guest may have is decided by
// its evidence, not by a role that somebody gave it.
const guestRole = "guest"

// guest finds the workload by its key, or makes it. The id is derived from the
// key, so that the same key is the same workload for ever: one that was locked
// or revoked stays out, and comes with the fault Denied.
func (g *Gate) guest(ctx context.Context, key seal.PublicKey) (subject.Subject, unit.Write, error) {
	now := g.Now().UTC().Truncate(time.Microsecond)
	thumb := key.Thumbprint()
	known, name := id.Derived("workload "+thumb), "tee-"+thumb
	old, err := g.Store.Subject(ctx, known)
	switch {
	case fault.Is(err, fault.NotFound):
		fresh := subject.Subject{
			ID: known, Version: 1, Kind: subject.Workload, State: subject.Attested, Role: guestRole, Name: name, Created: now, Changed: now,
		}
		return fresh, unit.Insert(fresh), fresh.Validate()
	case err != nil:
		return subject.Subject{}, unit.Write{}, fault.Wrap(err, "read workload")
	}
	next, err := old.Step("attested", "evidence accepted", now)
	if fault.Is(err, fault.Conflict) {
		return old, unit.Write{}, fault.Deniedf("this workload is %s", old.State)
	}
	return next, unit.Update(next), err
}

// ErrNotAttested is the cause of the refusal of a guest who has shown nothing
// that could be judged: neither the cookie of a finished handshake nor a token.
var ErrNotAttested = errors.New("no attestation was shown")

// Guest recognises a workload by the cookie of its handshake, or by its
// attestation result. Each counts by itself: the second is looked at when the
// first does not.
func (g *Gate) Guest(ctx context.Context, cookie, bearer, address, method string) (Caller, token.Attested, error) {
	c, attested, err := g.guestByCookie(ctx, cookie)
	if bearer != "" && fault.Is(err, fault.Unauthenticated) {
		c, attested, err = g.guestByToken(ctx, bearer, address)
	}
	if fault.Is(err, fault.Unauthenticated) {
		g.strangers.add(address)
	}
	c.Via, c.Address, c.Method = "kbs", address, method
	return c, attested, err
}

func (g *Gate) guestByCookie(ctx context.Context, cookie string) (Caller, token.Attested, error) {
	none := fault.Unauthenticatedf("attest first: neither cookie nor token shows an attestation").Because(ErrNotAttested)
	if g.Guests.Cookies == nil || g.Guests.Trust == nil || cookie == "" {
		return Caller{}, token.Attested{}, none
	}
	handshake, err := g.Guests.Cookies.Open(cookie)
	if err != nil {
		return Caller{}, token.Attested{}, err
	}
	passport, who, err := g.Store.Guest(ctx, handshake.ID())
	if fault.Is(err, fault.NotFound) {
		return Caller{}, token.Attested{}, none
	}
	if err != nil {
		return Caller{}, token.Attested{}, fault.Wrap(err, "read passport")
	}
	attested, err := g.Guests.Trust.VerifyKept(passport.Token)
	if err != nil {
		return Caller{}, token.Attested{}, err
	}
	return g.holder(passport, who, attested)
}

func (g *Gate) guestByToken(ctx context.Context, bearer, address string) (Caller, token.Attested, error) {
	if g.Guests.Trust == nil {
		return Caller{}, token.Attested{}, fault.Unauthenticatedf("this server takes no attestation tokens")
	}
	attested, err := g.Guests.Trust.Verify(bearer)
	if err != nil {
		return Caller{}, token.Attested{}, err
	}
	// By the token's own name: its text as a whole has a twin.
	passport, err := g.Store.PassportByToken(ctx, attested.ID, attested.Expires)
	if fault.Is(err, fault.NotFound) && !attested.Own {
		passport, err = g.vouched(ctx, attested, bearer, address)
	}
	if err != nil {
		return Caller{}, token.Attested{}, unknown(err, "read passport")
	}
	who, err := g.Store.Subject(ctx, passport.Subject)
	if err != nil {
		return Caller{}, token.Attested{}, unknown(err, "read workload")
	}
	return g.holder(passport, who, attested)
}

// holder is the workload that a passport was made for, if both still stand.
func (g *Gate) holder(p subject.Passport, who subject.Subject, attested token.Attested) (Caller, token.Attested, error) {
	if !p.Good(g.Now()) {
		return Caller{}, token.Attested{}, fault.Unauthenticatedf("the attestation was revoked, or has expired: attest again")
	}
	if !who.Active() {
		return Caller{}, token.Attested{}, fault.Unauthenticatedf("the workload is %s", who.State)
	}
	return Caller{Subject: who}, attested, nil
}

// vouched admits a workload by the attestation result of another service that the
// operator trusts (passport mode). It is admitted once for each token: from then on
// the row can be revoked like that of a workload that attested here.
func (g *Gate) vouched(ctx context.Context, attested token.Attested, bearer, address string) (subject.Passport, error) {
	if err := g.Clock.CheckClock(ctx); err != nil {
		return subject.Passport{}, err
	}
	var out subject.Passport
	err := g.decide(ctx, nil, func() (unit.Unit, error) {
		var err error
		// Another request with the same token may have been first.
		if out, err = g.Store.PassportByToken(ctx, attested.ID, attested.Expires); err == nil {
			return unit.Unit{}, errThere
		} else if !fault.Is(err, fault.NotFound) {
			return unit.Unit{}, fault.Wrap(err, "read passport")
		}
		guest, row, err := g.guest(ctx, attested.Key)
		if err != nil && !fault.Is(err, fault.Denied) {
			return unit.Unit{}, err
		}
		out = subject.Passport{ID: attested.ID, Version: 1, Subject: guest.ID, Digest: attested.ID, Token: bearer, Expires: attested.Expires}
		// What the token says of its issuer is a claim; whose key signed it was checked.
		issuer, _ := attested.Claims["iss"].(string)
		record := audit.Record{
			Type: "workload.vouched", Actor: audit.Actor{Subject: guest.ID, Kind: string(subject.Workload), Via: "kbs", Address: address},
			Subject: guest.ID, Serial: strconv.FormatInt(guest.Version, 10), Data: map[string]string{
				"status": attested.Status().String(), "expires_at": attested.Expires.UTC().Format(time.RFC3339), "token": attested.ID,
				"issuer": clipped(issuer), "signer": attested.Signer,
			},
		}
		if err != nil {
			return unit.Unit{}, g.refuse(ctx, record, fault.Public(err))
		}
		d, err := g.allowed(ctx, Caller{Subject: guest, Via: "kbs", Address: address, Method: "GET"}, "admit", record, input{
			action: "vouch", claims: attested.Claims,
			evidence: map[string]any{"kind": "token", "verified": true, "status": attested.Status().String()},
		})
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		return unit.Unit{Record: record, Writes: []unit.Write{
			row, unit.Do("generations.check", 1, "the policies have changed, try again", "policy", d.under.generation), unit.Insert(out),
		}}, nil
	})
	if errors.Is(err, errThere) {
		return out, nil
	}
	return out, err
}

// errThere ends an attempt for which there is nothing left to do.
var errThere = errors.New("this was done already")

// clipped shortens foreign text for a record.
func clipped(s string) string {
	if s = strings.ToValidUTF8(s, "?"); len(s) > 128 {
		return s[:128]
	}
	return s
}
