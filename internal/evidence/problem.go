package evidence

import (
	"strings"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Variant names a failure of the KBS protocol.
type Variant string

// The variants that clients know.
const (
	AdminAuthInitialization      Variant = "AdminAuthInitialization"
	AdminAuthAccess              Variant = "AdminAuthAccess"
	AttestationError             Variant = "AttestationError"
	HTTPFailed                   Variant = "HTTPFailed"
	HTTPSFailed                  Variant = "HTTPSFailed"
	InvalidRequestPath           Variant = "InvalidRequestPath"
	JweError                     Variant = "JweError"
	PluginManagerInitialization  Variant = "PluginManagerInitialization"
	PluginNotFound               Variant = "PluginNotFound"
	PluginInternalError          Variant = "PluginInternalError"
	PolicyDeny                   Variant = "PolicyDeny"
	ParsePolicyError             Variant = "ParsePolicyError"
	PolicyEngineError            Variant = "PolicyEngineError"
	RvpsError                    Variant = "RvpsError"
	SerdeError                   Variant = "SerdeError"
	StorageBackendInitialization Variant = "StorageBackendInitialization"
	TokenNotFound                Variant = "TokenNotFound"
	TokenVerifierError           Variant = "TokenVerifierError"
	PrometheusError              Variant = "PrometheusError"
)

const problemPrefix = "https://github.com/confidential-containers/kbs/errors/"

// MaxProblem is the size limit of an error object, in bytes.
const MaxProblem = 64 << 10

// Problem is the JSON body of every failure.
type Problem struct {
	Type   string `json:"type"`
	Detail string `json:"detail"`
}

// NewProblem makes the error object of a variant.
func NewProblem(v Variant, detail string) Problem {
	return Problem{Type: problemPrefix + string(v), Detail: detail}
}

// Variant is the last part of the type, empty if the type is not of this
// protocol.
func (p Problem) Variant() Variant {
	v, ok := strings.CutPrefix(p.Type, problemPrefix)
	if !ok {
		return ""
	}
	return Variant(v)
}

// NotFound reports whether the variant travels with status 404; every other
// one travels with 401.
func (v Variant) NotFound() bool { return v == InvalidRequestPath || v == PluginNotFound }

// ParseProblem reads an error object on the guest's side.
func ParseProblem(data []byte) (Problem, error) {
	var p Problem
	if err := canon.Lenient(data, MaxProblem, maxDepth, &p); err != nil {
		return Problem{}, fault.Invalidf("the server's error cannot be read").Because(err)
	}
	if p.Type == "" {
		return Problem{}, fault.Invalidf("the server's error has no type")
	}
	return p, nil
}
