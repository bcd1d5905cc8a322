package flow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// A call that makes or changes something may carry an Idempotency-Key. Its
// first answer is kept, sealed, for OutcomeLife or until what it made ends by
// itself, and is written in the same unit as the change: whoever lost the answer
// to the network gets the same one again, and nothing is done twice.
//
// A verb says what its call is ([Caller.keyed]) and is written otherwise as if
// there were no keys. The first answer is looked up where policy has just
// allowed the call once more ([Gate.firstAnswer]), takes the place of the unit
// that the verb would have written ([Gate.underKey]), and is kept where that unit
// is complete ([Gate.keep]). A call that was denied or failed commits no such
// unit, so nothing of it is kept.

// Key is the Idempotency-Key of one call; nil is none.
type Key struct {
	Text string
	// Replayed is set by the call: its answer was the first one, once more.
	Replayed bool
}

// NewKey takes 1 to 128 visible ASCII characters; anything else is Invalid.
func NewKey(text string) (*Key, error) {
	const longest = 128
	if text == "" || len(text) > longest || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return nil, fault.Invalidf("an Idempotency-Key has 1 to %d visible ASCII characters", longest)
	}
	return &Key{Text: text}, nil
}

// keyedCall is one call under a key.
type keyedCall struct {
	key       *Key
	id        string // of the outcome
	operation string // what it does, as its record's type says
	request   []byte // digest: another request under the same key is a mistake of the caller's
	answer    answer
	late      bool // look for a first answer only when the key turns out to be taken

	attempts int
	found    bool
}

// keyed says what the caller's next call is, so that it can be repeated under
// its key. The request is everything that the call depends on besides the
// caller, a list at most as the last part.
func (c *Caller) keyed(operation string, out answer, request ...string) {
	if c.Key == nil {
		return
	}
	// Sessions of a subject's own share its keys, so that an answer can be fetched
	// again after a refresh; a delegate has keys of its own, since what its
	// delegator was given is not for it.
	delegate := ""
	if c.Session.Delegated() {
		delegate = c.Session.ID
	}
	c.call = newKeyedCall(c.Key, operation, c.Subject.ID, delegate, out, request)
}

// shown is what a session is bound to that the caller asks for: the session or
// the certificate that it shows. Another one makes another call.
func (c Caller) shown() string {
	if c.Session.ID != "" || c.Certificate == nil {
		return c.Session.ID
	}
	sum := sha256.Sum256(c.Certificate.Raw)
	return string(sum[:])
}

func newKeyedCall(k *Key, operation, subject, delegate string, out answer, request []string) *keyedCall {
	return &keyedCall{
		key: k, id: outcomeID(k.Text, operation, subject, delegate), operation: operation, request: digest(request), answer: out,
	}
}

// outcomeID names the first answer of a call: it binds the key to the operation
// and to who chose it. What must not be confused is in the digest, of which 144
// bits are left. The first characters of the key go before it for the sake of
// the index: keys that begin with a time, as ULIDs do, put neighbours in time
// beside each other, on a page that is in memory, where digests alone would
// touch another page of the tree with every credential (docs/decisions/0007).
func outcomeID(key, operation, subject, delegate string) string {
	const length, filler = 10, "0000000000"
	prefix := filler
	if len(key) >= length && !strings.ContainsFunc(key[:length], func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	}) {
		prefix = key[:length]
	}
	return prefix + "." + base64.RawURLEncoding.EncodeToString(digest([]string{operation, subject, delegate, key})[:18])
}

// digest is SHA-256 over the parts, each after its length.
func digest(parts []string) []byte {
	text := make([]byte, 0, 256)
	for _, p := range parts {
		text = append(binary.BigEndian.AppendUint64(text, uint64(len(p))), p...)
	}
	sum := sha256.Sum256(text)
	return sum[:]
}

// firstCall is what is kept of a call. It is sealed as a whole: the answer may
// hold a credential, and a secret in the request could be guessed by its digest.
type firstCall[A any] struct {
	Request []byte `json:"request"`
	Record  string `json:"record"` // id of its record
	Subject string `json:"subject,omitempty"`
	Grant   string `json:"grant,omitempty"`
	Target  string `json:"target,omitempty"`
	Answer  A      `json:"answer"`
}

// text is a [firstCall] as JSON. It is written with every credential, so the one
// answer that credentials have is written without reflection.
func (k *keyedCall) text(u unit.Unit) ([]byte, error) {
	first := firstCall[json.RawMessage]{
		Request: k.request, Record: u.Record.ID, Subject: u.Record.Subject, Grant: u.Record.Grant, Target: u.Record.Target,
	}
	kept := k.answer.kept()
	credential, ok := kept.(keptCredential)
	if !ok {
		answer, err := json.Marshal(kept)
		if err != nil {
			return nil, err //nolint:wrapcheck // by the one caller
		}
		first.Answer = answer
		return json.Marshal(first) //nolint:wrapcheck // by the one caller
	}
	b := make([]byte, 0, 512+len(credential.Value)+len(credential.Private))
	b = append(b, `{"request":"`...)
	b = append(base64.StdEncoding.AppendEncode(b, first.Request), '"')
	var err error
	for _, m := range [...]struct{ name, text string }{
		{"record", first.Record}, {"subject", first.Subject}, {"grant", first.Grant}, {"target", first.Target},
	} {
		b = append(append(append(b, `,"`...), m.name...), `":`...)
		if b, err = canon.AppendString(b, m.text); err != nil {
			return nil, err //nolint:wrapcheck // by the one caller
		}
	}
	if b, err = credential.append(append(b, `,"answer":`...)); err != nil {
		return nil, err
	}
	return append(b, '}'), nil
}

// underKey runs a verb's attempt under a key: a first answer that the attempt
// came upon is committed as such, and what it does for the first time is kept.
func (g *Gate) underKey(ctx context.Context, k *keyedCall, attempt func() (unit.Unit, error)) func() (unit.Unit, error) {
	if k == nil {
		return attempt
	}
	return func() (unit.Unit, error) {
		k.attempts++
		k.found, k.key.Replayed = false, false
		u, err := attempt()
		first, again := errors.AsType[*repeatedError](err)
		switch {
		case again:
			k.key.Replayed = true
			return first.unit, nil
		case err != nil:
			return unit.Unit{}, g.overtaken(ctx, k, err)
		}
		return g.keep(k, u)
	}
}

// repeatedError is what an attempt returns that came upon its first answer: the
// unit that hands it out again.
type repeatedError struct{ unit unit.Unit }

func (*repeatedError) Error() string { return "answered before under this key" }

// overtaken looks again for a first answer when an attempt finds things as they
// are after the change: the same call under the same key, sent at the same time,
// may have made it since the attempt looked. Then the attempt is repeated.
func (g *Gate) overtaken(ctx context.Context, k *keyedCall, err error) error {
	switch fault.KindOf(err) {
	case fault.Conflict, fault.NotFound, fault.Unauthenticated:
	default:
		return err
	}
	if k.found {
		return err
	}
	if _, none := g.Store.Outcome(ctx, k.id); none != nil {
		return err
	}
	return &missedError{err}
}

// firstAnswer looks for the first answer of the caller's call, and returns it as
// a [repeatedError]: nil if there is none. It is asked where the caller was just
// allowed to make the call, by the decision given or, if that is zero, since it
// acts on what is its own. Handing an answer out again changes nothing, and is
// recorded like the first time. It is not urgent, since it can be told without end.
func (g *Gate) firstAnswer(ctx context.Context, c Caller, d decided) error {
	k := c.call
	if k == nil || k.late && k.attempts == 1 {
		return nil
	}
	o, err := g.Store.Outcome(ctx, k.id)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return fault.Wrap(err, "read first answer")
	}
	k.found = true
	if !g.Now().Before(o.Expires) { // the housekeeper has not come by yet
		return gone("the first answer is kept no longer")
	}
	first, err := g.reopen(k, o)
	if err != nil {
		return err
	}
	writes, err := k.answer.stands(ctx, g, d)
	if err != nil {
		return err
	}
	noun, _, _ := strings.Cut(k.operation, ".")
	record := audit.Record{
		Type: noun + ".replayed", Actor: c.actor(), Subject: first.Subject, Grant: first.Grant, Target: first.Target,
		Data: map[string]string{"first": first.Record},
	}
	proof := c.once()
	if d.Allow {
		proof, record.Policy = g.still(c, d.under), d.Documents
	}
	return &repeatedError{unit.Unit{Writes: append(proof, writes...), Record: record}}
}

// reopen opens a first answer and puts it where the verb's own would be.
func (g *Gate) reopen(k *keyedCall, o unit.Outcome) (firstCall[json.RawMessage], error) {
	var first firstCall[json.RawMessage]
	plain, err := g.Envelope.Open(o.Table(), o.ID, o.Version, o.Sealed)
	if err != nil {
		return first, fault.Wrap(err, "open first answer")
	}
	defer plain.Wipe()
	if err := json.Unmarshal(plain.Reveal(), &first); err != nil {
		return first, fault.Internalf("a first answer is broken").Because(err)
	}
	defer clear(first.Answer)
	if !bytes.Equal(first.Request, k.request) {
		return first, fault.Conflictf("this Idempotency-Key was used for another request; choose a new one")
	}
	if err := k.answer.recall(first.Answer); err != nil {
		return first, fault.Internalf("a first answer is broken").Because(err)
	}
	return first, nil
}

// keep adds the first answer to the unit that it is the answer of. Of two such
// units with one key the second is a Conflict, and finds the answer of the first
// when it is decided anew.
func (g *Gate) keep(k *keyedCall, u unit.Unit) (unit.Unit, error) {
	if u.Record.ID == "" {
		u.Record.ID = newID()
	}
	plain, err := k.text(u)
	if err != nil {
		return unit.Unit{}, fault.Wrap(err, "encode first answer")
	}
	sealing := secret.New(plain)
	defer sealing.Wipe()
	o := unit.Outcome{ID: k.id, Version: 1, Expires: g.Now().Add(g.OutcomeLife)}
	if ends := k.answer.ends(); !ends.IsZero() && ends.Before(o.Expires) {
		o.Expires = ends
	}
	if o.Sealed, err = g.Envelope.Seal(o.Table(), o.ID, o.Version, sealing); err != nil {
		return unit.Unit{}, fault.Wrap(err, "seal first answer")
	}
	u.Writes = append(u.Writes, unit.Insert(o))
	return u, nil
}
