package evidence

import (
	"slices"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Tier is the meaning of a trust claim, and of a verdict as a whole. A higher
// tier is worse, but for None, which says that nothing was found out.
type Tier int

// The tiers of draft-ietf-rats-ear.
const (
	None Tier = iota
	Affirming
	Warning
	Contraindicated
)

var tiers = [...]string{"none", "affirming", "warning", "contraindicated"}

// String is the tier's name in a token.
func (t Tier) String() string {
	if t < None || t > Contraindicated {
		return tiers[Contraindicated]
	}
	return tiers[t]
}

// ParseTier is the inverse of Tier.String.
func ParseTier(s string) (Tier, error) {
	if i := slices.Index(tiers[:], s); i >= 0 {
		return Tier(i), nil
	}
	return Contraindicated, fault.Invalidf("the trust tier must be none, affirming, warning or contraindicated")
}

// TierOf is the tier of one trust claim.
func TierOf(claim int8) Tier {
	switch {
	case claim >= -1 && claim <= 1:
		return None
	case claim >= -32 && claim <= 31:
		return Affirming
	case claim >= -96 && claim <= 95:
		return Warning
	default:
		return Contraindicated
	}
}

var dimensions = [...]string{
	"instance-identity", "configuration", "executables", "file-system",
	"hardware", "runtime-opaque", "storage-opaque", "sourced-data",
}

// Dimensions are the eight names of a trust vector, in the order of the draft.
func Dimensions() []string { return slices.Clone(dimensions[:]) }

// Vector is a trustworthiness vector (draft-ietf-rats-ar4si): a claim for some
// of the eight dimensions.
type Vector map[string]int8

// NewVector takes what an appraisal policy answered. Unknown names, values that
// are no integers of -128 to 127, and an empty vector are refused: a policy
// that misspells a name must not pass for one that found nothing.
func NewVector(claims map[string]any) (Vector, error) {
	if len(claims) == 0 {
		return nil, fault.Invalidf("the policy set no trust claim")
	}
	v := make(Vector, len(claims))
	for name, c := range claims {
		if !slices.Contains(dimensions[:], name) {
			return nil, fault.Invalidf("the policy set a trust claim with the unknown name %q", clip(name))
		}
		n, ok := integer(c)
		if !ok || n < -128 || n > 127 {
			return nil, fault.Invalidf("the trust claim %s must be an integer of -128 to 127", name)
		}
		v[name] = int8(n)
	}
	return v, nil
}

func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case float64:
		if n < -128 || n > 127 || n != float64(int64(n)) {
			return 0, false
		}
		return int64(n), true
	case int:
		return int64(n), true
	case int64:
		return n, true
	case interface{ Int64() (int64, error) }: // json.Number
		i, err := n.Int64()
		return i, err == nil
	default:
		return 0, false
	}
}

// Status is the worst tier of the claims. An empty vector is contraindicated:
// nobody said anything good.
func (v Vector) Status() Tier {
	if len(v) == 0 {
		return Contraindicated
	}
	worst := None
	for _, c := range v {
		worst = max(worst, TierOf(c))
	}
	return worst
}

// Verdict is what was found out about a workload, device by device.
type Verdict struct {
	Runtime Runtime
	Devices []Device // the primary one first
}

// Status is the worst status of the devices; contraindicated if there is none.
func (v Verdict) Status() Tier {
	if len(v.Devices) == 0 {
		return Contraindicated
	}
	worst := None
	for _, d := range v.Devices {
		worst = max(worst, d.Vector.Status())
	}
	return worst
}

// Findings are the checks of every device, for the record of the decision.
func (v Verdict) Findings() []Finding {
	var out []Finding
	for _, d := range v.Devices {
		out = append(out, Finding{d.Name, d.TEE, d.Checks})
	}
	return out
}

// Device is one part of a verdict, a submod of the token. Verification fills
// Name, TEE, Class, Annotated and Checks; appraisal fills the rest.
type Device struct {
	Name  string // class and index: cpu0, gpu0
	TEE   TEE
	Class Class
	// Annotated is the input of the appraisal policy and the annotated evidence
	// of the token: the verifier's claims under the TEE's name, report_data,
	// init_data, runtime_data_claims, init_data_claims.
	Annotated map[string]any
	Checks    Checks // what the verifier looked at; all passed or were skipped

	Policy     string         // id of the policy that appraised
	Vector     Vector         // what it said
	Extensions map[string]any // further members of the submod that it set
}
