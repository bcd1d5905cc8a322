package evidence

import (
	"context"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Verifiers are the verifiers that are switched on, by TEE. It is built once
// and then only read.
type Verifiers map[TEE]Verifier

// Require is Invalid if there is no verifier for a TEE. Ask it before a
// challenge is handed out.
func (vs Verifiers) Require(tee TEE) error {
	if vs[tee] == nil {
		return fault.Invalidf("evidence of TEE %q cannot be verified here: its verifier is not switched on", tee)
	}
	return nil
}

// Verify checks all evidence of an attestation: the primary one of the TEE that
// the handshake named, and that of further devices. Every device must verify.
// The caller has checked that the nonce is the one that was handed out
// ([Attestation.Answers]) and commits its use with what follows.
//
// The devices come back without policy, vector and extensions. A refusal is a
// [*RefusedError] with the checks of the device that was refused.
func (vs Verifiers) Verify(ctx context.Context, tee TEE, a Attestation, at time.Time) (Verdict, error) {
	var measured Measured
	if a.InitData != nil {
		m, err := a.InitData.Measure()
		if err != nil {
			return Verdict{}, err
		}
		measured = m
	}
	primary, err := a.Runtime.Digest(a.Version)
	if err != nil {
		return Verdict{}, err
	}
	others, err := a.Runtime.DeviceDigest()
	if err != nil {
		return Verdict{}, err
	}
	devices, err := a.Runtime.Devices()
	if err != nil {
		return Verdict{}, err
	}
	out := Verdict{Runtime: a.Runtime}
	count := map[Class]int{}
	for i, e := range append([]Evidence{{tee, a.Primary}}, devices...) {
		b := Binding{ReportData: others, InitData: measured.Digest}
		if i == 0 {
			b.ReportData = primary
		}
		d, err := vs.device(ctx, e, b, at, a.Runtime, measured)
		if err != nil {
			return Verdict{}, err
		}
		d.Name = string(d.Class) + strconv.Itoa(count[d.Class])
		count[d.Class]++
		out.Devices = append(out.Devices, d)
	}
	return out, nil
}

func (vs Verifiers) device(ctx context.Context, e Evidence, b Binding, at time.Time, r Runtime, m Measured) (Device, error) {
	if err := vs.Require(e.TEE); err != nil {
		return Device{}, err
	}
	claims, err := vs[e.TEE].Verify(ctx, e, b, at)
	if err != nil {
		return Device{}, fault.Wrap(err, "verify %s evidence", e.TEE)
	}
	switch claims.Class {
	case CPU, GPU, Switch:
	default:
		return Device{}, fault.Internalf("verifier of %s reports class %q", e.TEE, claims.Class)
	}
	annotated := map[string]any{string(e.TEE): claims.Values}
	if claims.ReportData != "" {
		annotated["report_data"] = claims.ReportData
		annotated["runtime_data_claims"] = r.claims()
	}
	if claims.InitData != "" {
		if m.Digest == nil {
			return Device{}, fault.Internalf("verifier of %s reports init-data that was not sent", e.TEE)
		}
		annotated["init_data"] = claims.InitData
		annotated["init_data_claims"] = m.Claims
	}
	return Device{TEE: e.TEE, Class: claims.Class, Annotated: annotated, Checks: claims.Checks}, nil
}
