package plugin

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// Verifier judges evidence of TEEs that the host does not know itself. Role
// verifier.
type Verifier struct {
	// Judge checks that evidence is genuine and bound to what it must be bound to,
	// and says what it says. Required. It is a pure function of its argument and
	// decides nothing else: policy does that with the claims. An error of [Invalidf]
	// says that the evidence is malformed, of [Deniedf] that it is not genuine or not
	// bound, of [Unavailablef] that reference material is missing; the checks that
	// are returned beside it say why.
	Judge func(ctx context.Context, e Evidence) (Judgement, error)
}

// Evidence is what a device showed, and what it must be bound to.
type Evidence struct {
	Name string // one of the manifest's list evidence
	Body []byte // JSON, as the workload sent it
	// ReportData and InitData are what it must be bound to; InitData is nil if the
	// workload sent none.
	ReportData []byte
	InitData   []byte
	// Unbound leaves the two checks out, for somebody who looks at evidence offline.
	Unbound bool
	At      time.Time // the time for which to judge
}

// Class says which part of the platform a device is.
type Class int32

// The classes.
const (
	CPU    Class = 1
	GPU    Class = 2
	Switch Class = 3
)

// Judgement is what was found.
type Judgement struct {
	Class  Class
	Claims map[string]any // JSON values, for the appraisal policy
	// ReportData is the value that the evidence shows to be bound to; the host
	// compares it with what it asked for. InitData is set only if the evidence
	// proves it.
	ReportData []byte
	InitData   []byte
	// Checks are all that were made, in order. One that failed refuses the evidence.
	Checks Checks
}

// Check is one thing that was looked at. None of it is secret.
type Check struct {
	Name     string // stable, for machines: report-signature
	Expected string
	Seen     string
	Result   Result
	Reason   string // of a failure or a skip: what to do
	Section  string // of a specification
}

// Result says how a check came out.
type Result int32

// The results.
const (
	Pass Result = 1
	Fail Result = 2
	Skip Result = 3
)

// Checks are checks in the order in which they were made.
type Checks []Check

// That adds a check that passed if ok, and says so.
func (c *Checks) That(ok bool, k Check) bool {
	k.Result = Fail
	if ok {
		k.Result, k.Reason = Pass, ""
	}
	*c = append(*c, k)
	return ok
}

// Bound adds the check that a value which the evidence shows is the one that it
// must be bound to, and skips it for evidence that is unbound.
func (c *Checks) Bound(e Evidence, name string, want, seen []byte) bool {
	k := Check{Name: name, Expected: hex.EncodeToString(want), Seen: hex.EncodeToString(seen)}
	if e.Unbound {
		k.Result, k.Reason = Skip, "nobody said what the evidence should be bound to"
		*c = append(*c, k)
		return true
	}
	k.Reason = "the evidence was made for something else"
	return c.That(len(want) > 0 && bytes.Equal(want, seen), k)
}

func (v Verifier) role(s *server) error {
	switch {
	case v.Judge == nil:
		return fmt.Errorf("a Verifier needs Judge")
	case s.verifier != nil:
		return errTwice("Verifier")
	}
	s.verifier = &v
	s.roles = append(s.roles, manifest.RoleVerifier)
	return nil
}

type verifierServer struct {
	own.UnimplementedVerifierServer
	v *Verifier
}

// Judge judges one piece of evidence.
func (v verifierServer) Judge(ctx context.Context, q *own.JudgeRequest) (*own.JudgeResponse, error) {
	j, err := v.v.Judge(ctx, Evidence{
		Name: q.GetName(), Body: q.GetEvidence(), ReportData: q.GetReportData(), InitData: q.GetInitData(),
		Unbound: q.GetUnbound(), At: time.UnixMilli(q.GetAtUnixMs()).UTC(),
	})
	out := &own.JudgeResponse{}
	for _, k := range j.Checks {
		out.Checks = append(out.Checks, &own.Check{
			Name: k.Name, Expected: k.Expected, Seen: k.Seen, Result: own.Result(k.Result), Reason: k.Reason, Section: k.Section,
		})
	}
	if err != nil {
		out.Refusal = refused(ctx, err)
		return out, nil
	}
	if j.Claims == nil {
		j.Claims = map[string]any{}
	}
	if out.Claims, err = json.Marshal(j.Claims); err != nil {
		return nil, failed(ctx, errors.Join(errors.New("encode claims"), err))
	}
	out.DeviceClass, out.ReportData, out.InitData = own.Class(j.Class), j.ReportData, j.InitData
	return out, nil
}

// failed is what the host learns of an error where the contract has no refusal.
func failed(ctx context.Context, err error) error {
	return status.Error(codes.Internal, refused(ctx, err).GetReason())
}
