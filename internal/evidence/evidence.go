// Package evidence is what a workload shows and what is made of it: the
// messages of the KBS protocol (RCAR handshake), the binding between evidence,
// nonce and key, the port of verifiers, and the verdict.
//
// The words are those of RFC 9334. An attester collects evidence, a verifier
// appraises it and reports claims, a policy turns claims into a trust vector,
// and the verdict holds all of it for each device. This package decides nothing
// by itself: verifiers are adapters, policy is another noun, and the token that
// carries a verdict is made elsewhere.
//
// Protocol versions 0.4.0 and 0.2.0 are spoken; they differ in what is hashed
// and in the shape of tee-evidence. Everything received is bounded and parsed
// strictly, and every fault is of kind Invalid unless its function says
// otherwise. All functions are safe for concurrent use.
package evidence

import (
	"context"
	"encoding/json"
	"regexp"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Version is a version of the KBS protocol. It is compared as text: there are
// no ranges.
type Version string

// The versions that are spoken.
const (
	V040 Version = "0.4.0"
	V020 Version = "0.2.0" // primary evidence only, and no additional-evidence in what is hashed
)

// ParseVersion accepts the versions that are spoken.
func ParseVersion(s string) (Version, error) {
	switch v := Version(s); v {
	case V040, V020:
		return v, nil
	default:
		return "", fault.Invalidf("KBS protocol version %q is not supported, use %s or %s", clip(s), V040, V020)
	}
}

// TEE is a kind of trusted execution environment or device, by its name in the
// protocol.
type TEE string

// The kinds that the protocol names.
const (
	AzSnpVtpm    TEE = "az-snp-vtpm"
	AzTdxVtpm    TEE = "az-tdx-vtpm"
	Sev          TEE = "sev"
	Sgx          TEE = "sgx"
	Snp          TEE = "snp"
	Tdx          TEE = "tdx"
	Cca          TEE = "cca"
	Csv          TEE = "csv"
	Se           TEE = "se"
	HygonDcu     TEE = "hygondcu"
	Nvidia       TEE = "nvidia"
	NvidiaDpu    TEE = "nvidia-dpu"
	Tpm          TEE = "tpm"
	Sample       TEE = "sample"
	SampleDevice TEE = "sampledevice"
)

// ParseTEE accepts the names of the protocol and the aliases that clients sent
// before kbs-types 0.13, and gives the present name. Other names of that form are
// accepted too: a plugin may have a verifier for one.
func ParseTEE(s string) (TEE, error) {
	switch t := TEE(s); t {
	case "azsnpvtpm":
		return AzSnpVtpm, nil
	case "aztdxvtpm":
		return AzTdxVtpm, nil
	case AzSnpVtpm, AzTdxVtpm, Sev, Sgx, Snp, Tdx, Cca, Csv, Se, HygonDcu, Nvidia, NvidiaDpu, Tpm, Sample, SampleDevice:
		return t, nil
	default:
		if !teeName.MatchString(s) {
			return "", fault.Invalidf("TEE %q is not known", clip(s))
		}
		return t, nil
	}
}

// TEENames are the names of all kinds, as the protocol has them now.
func TEENames() []string {
	var out []string
	for _, t := range []TEE{AzSnpVtpm, AzTdxVtpm, Sev, Sgx, Snp, Tdx, Cca, Csv, Se, HygonDcu, Nvidia, NvidiaDpu, Tpm, Sample, SampleDevice} {
		out = append(out, string(t))
	}
	return out
}

var teeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?$`)

// Evidence is what one device showed, in the form of its TEE.
type Evidence struct {
	TEE  TEE
	Body json.RawMessage // at most MaxAttestation bytes of well-formed JSON
}

// Binding is what evidence must be bound to: it proves that the evidence was
// made for this challenge and this key.
//
// Evidence is never bound to a nil ReportData: the zero value accepts nothing.
type Binding struct {
	ReportData []byte // digest of the runtime data, see Runtime.Digest
	InitData   []byte // digest of the init-data; nil if the workload sent none. 32, 48 or 64 bytes
	// Unknown leaves the two checks out, for somebody who looks at evidence
	// offline and does not know what it should be bound to. No door sets it.
	Unknown bool
}

// Claims is what a verifier found in evidence that is genuine and bound.
type Claims struct {
	Class  Class
	Values map[string]any // JSON values, for the appraisal policy
	// ReportData and InitData are the bound values as the verifier reports
	// them. A verifier sets InitData only if the evidence proves it: claims
	// made from init-data reach the token only then.
	ReportData string
	InitData   string
	// Checks are the checks that were made; none of them failed.
	Checks Checks
}

// Class says which part of the platform a device is; appraisal policies and
// the names in the token (cpu0, gpu0) follow it.
type Class string

// The classes.
const (
	CPU    Class = "cpu"
	GPU    Class = "gpu"
	Switch Class = "switch"
)

// Verifier appraises the evidence of one TEE. It is a pure function of the
// evidence, the expected binding, the reference material that it was made with,
// and the time.
//
// It checks that the evidence is genuine and that it is bound to both values of
// the binding, whatever their length. Evidence that is malformed is Invalid,
// evidence that is not genuine or not bound is Denied, collateral that cannot
// be had is Unavailable; each is a [*RefusedError] with the checks that were
// made. Safe for concurrent use.
type Verifier interface {
	Verify(ctx context.Context, e Evidence, b Binding, at time.Time) (Claims, error)
}

// Attester collects evidence on the workload's side. Safe for concurrent use.
type Attester interface {
	TEE() TEE
	// Evidence makes evidence bound to b.
	Evidence(ctx context.Context, b Binding) (Evidence, error)
}

// clip shortens foreign text for messages.
func clip(s string) string {
	const most = 32
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
