package flow

import (
	"context"
	"encoding/hex"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// invitation is the id of the invitation whose secret a newcomer knows.
func (r EnrolRequest) invitation() string {
	sum := r.Secret.SHA256()
	return hex.EncodeToString(sum[:])
}

// keyed is [Caller.keyed] for somebody who is nobody yet: the key is bound to
// the invitation.
func (r EnrolRequest) keyed(out *Enrolled) *keyedCall {
	if r.Key == nil {
		return nil
	}
	answer := certified(out, func(e Enrolled) Leaf { return e.Leaf })
	return newKeyedCall(r.Key, "subject.enrolled", r.invitation(), "", answer, []string{requestedKey(r.CSR), r.Name})
}

// enrolledBefore looks whether a newcomer has enrolled with this invitation and
// key already, and would still be let in. The first answer is for whoever knows
// the secret of the invitation, the key, and a private key that it certified; all
// others learn in Enrol that the invitation is used up.
func (g *Gate) enrolledBefore(ctx context.Context, r EnrolRequest, k *keyedCall) error {
	if k == nil {
		return nil
	}
	if _, err := g.Store.Outcome(ctx, k.id); fault.Is(err, fault.NotFound) {
		return nil
	} else if err != nil {
		return fault.Wrap(err, "read first answer")
	}
	invited, err := g.Store.Invitation(ctx, r.invitation())
	if err != nil {
		return unknown(err, "read invitation")
	}
	holder, err := g.Store.Subject(ctx, invited.By)
	if err != nil {
		return unknown(err, "read newcomer")
	}
	who := Caller{Subject: holder, Via: r.Via, Address: r.Address, call: k}
	if err := who.standing(); err != nil {
		return err
	}
	record := audit.Record{Type: "subject.enrolled", Actor: who.actor(), Subject: holder.ID, Target: invited.ID}
	_, err = g.allowed(ctx, who, "admit", record, enrolment(invited.Role))
	return err
}
