package flow

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// intentLife is how long a remote provider may take before the reaper ends an
// intent. It is well above every deadline of a plugin call.
const intentLife = 2 * time.Minute

// commitIntent makes it durable that a remote provider is about to be called,
// once per attempt. What the provider made under the intent of an attempt that
// missed its check is not handed out: the next one ends it first.
func (v *vending) commitIntent(ctx context.Context, d decided, intent grant.Grant) error {
	intent.State = grant.Intent
	intent.DueAt = intent.IssuedAt.Add(intentLife)
	err := v.gate.commit(ctx, unit.Unit{
		Writes: append(v.gate.still(v.caller, d.under), unit.Insert(intent)),
		Record: audit.Record{
			Type: "grant.intended", Actor: v.caller.actor(), Subject: intent.Subject, Grant: intent.ID, Policy: d.Documents,
			Data: map[string]string{"kind": intent.Kind, "plugin": intent.Source.Plugin},
		},
	})
	if fault.Is(err, fault.Conflict) {
		return &missedError{err}
	}
	if err != nil {
		return err
	}
	v.intent = &intent
	v.caller.Session.Proof = token.Proof{} // used up: a second unit must not use it again
	return nil
}

// remember keeps, for the case that the answer is not handed out, what it takes
// to have the provider take it back.
func (v *vending) remember(issued grant.Issued) error {
	if v.intent == nil {
		return nil
	}
	v.intent.Handle = issued.Handle
	if !v.intent.Source.KeepValue {
		return nil
	}
	var err error
	v.intent.Sealed, err = v.gate.Envelope.Seal("grant-values", v.intent.ID, 1, issued.Value)
	return fault.Wrap(err, "seal value of intent")
}

// abandon ends the intent of a call that failed. When it is not known whether
// the grant became active, it is left to the reaper, which looks at the row.
func (v *vending) abandon(ctx context.Context, cause error) {
	if !v.submitted || !fault.Is(cause, fault.Unavailable) {
		v.end(ctx, "not issued")
	}
}

// end makes the reaper look at the intent at once, on this call's behalf.
func (v *vending) end(ctx context.Context, reason string) {
	if v.intent == nil {
		return
	}
	old, refused := *v.intent, v.refused
	v.intent, v.refused = nil, false
	if err := v.gate.reap(context.WithoutCancel(ctx), old, reason, refused); err != nil {
		v.gate.Log.WarnContext(ctx, "an intent is left to the reaper", slog.Any("grant", old.ID), slog.Any("err", err))
	}
}
