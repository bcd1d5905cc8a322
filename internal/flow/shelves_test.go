package flow_test

import (
	"context"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
)

// shelves is a library of made-up endorsements: a file is "key issued", with a
// time, and the verifiers want the endorsement that need names.
type shelves struct {
	verifiers evidence.Verifiers
	need      string
	forged    bool // evidence is not signed by what is endorsed
}

const madeUp = "made-up"

func (s *shelves) Verifiers(from evidence.Shelf) (evidence.Verifiers, error) {
	out := evidence.Verifiers{}
	for tee, v := range s.verifiers {
		out[tee] = needing{v, s, from}
	}
	return out, nil
}

func (s *shelves) Read(files []reference.File, kind string, _ evidence.Shelf) ([]reference.Found, error) {
	var out []reference.Found
	for _, f := range files {
		key, issued, ok := strings.Cut(string(f.Data), " ")
		at, err := time.Parse(time.RFC3339, issued)
		if !ok || err != nil || kind != "" {
			return nil, fault.Invalidf("%s: this is no reference material that is known", f.Name)
		}
		out = append(out, reference.Found{File: f.Name, Endorsement: evidence.Endorsement{
			Kind: madeUp, Key: key, Data: f.Data, NotBefore: at, NotAfter: at.Add(48 * time.Hour),
		}})
	}
	return out, nil
}

// needing is a verifier that cannot judge without an endorsement.
type needing struct {
	evidence.Verifier
	s    *shelves
	from evidence.Shelf
}

func (n needing) Verify(ctx context.Context, e evidence.Evidence, b evidence.Binding, at time.Time) (evidence.Claims, error) {
	if n.s.need != "" && n.from.Find(madeUp, n.s.need) == nil {
		return evidence.Claims{}, evidence.Checks(nil).Missing(e.TEE, evidence.Want{Kind: madeUp, Key: n.s.need}, evidence.Check{Name: "endorsement", Reason: "it is not there"})
	}
	if n.s.forged {
		var c evidence.Checks
		c.That(false, evidence.Check{Name: "signature", Reason: "it is not that of the endorsed key"})
		return evidence.Claims{}, c.Err(e.TEE)
	}
	return n.Verifier.Verify(ctx, e, b, at)
}
