// Package tpm judges what a TPM 2.0 says: quotes over its registers, attestation
// keys, endorsement keys and their certificates, and event logs. It needs no TPM
// and no library: everything is decoded strictly and checked with the standard
// library.
//
// [Verifier] judges evidence of kind tpm of the KBS protocol. Its attestation
// key is anybody's until a policy knows it: docs/evidence.md says what that
// means. The other parts are for machines, which prove that their attestation
// key lives beside a known endorsement key ([Public.JudgeAK], [MakeCredential]).
package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// initDataRegister is where a guest's start measures the init-data.
const initDataRegister = 8

// Verifier implements evidence.Verifier for the kind tpm. Safe for concurrent
// use.
type Verifier struct{}

var _ evidence.Verifier = Verifier{}

// Verify implements evidence.Verifier.
func (Verifier) Verify(_ context.Context, e evidence.Evidence, b evidence.Binding, _ time.Time) (evidence.Claims, error) {
	if e.TEE != evidence.Tpm {
		return evidence.Claims{}, fault.Internalf("verifier of tpm got evidence of %s", e.TEE)
	}
	c := make(evidence.Checks, 0, 9) // as many as there are
	s, ak, log, err := parse(e.Body)
	if err != nil {
		return evidence.Claims{}, c.Malformed(evidence.Tpm, "guest-components attester/src/tpm", "%s", publicOf(err))
	}
	q, err := s.Judge(&c, evidence.Tpm)
	if err != nil {
		return evidence.Claims{}, err
	}
	seen := hex.EncodeToString(q.Nonce)
	c.Bound(b, nonce(q.Nonce, b.ReportData), evidence.Check{
		Name: "report-data", Expected: hex.EncodeToString(b.ReportData), Seen: seen,
		Reason: "it is not bound to this nonce and key", Section: attest,
	})
	values := PCRClaims(s.PCRs)
	values["ak_public"] = ak
	values["report_data"] = seen
	values["init_data"] = values[names[initDataRegister]]
	values["tpm_clock"] = map[string]any{
		"milliseconds": strconv.FormatUint(q.Clock.Milliseconds, 10), "resets": float64(q.Clock.Resets),
		"restarts": float64(q.Clock.Restarts), "safe": q.Clock.Safe,
	}
	values["tpm_firmware"] = hex.EncodeToString(binary.BigEndian.AppendUint64(nil, q.Firmware))
	claims := evidence.Claims{Class: evidence.CPU, Values: values, ReportData: seen}
	if b.InitData != nil {
		claims.InitData = hex.EncodeToString(s.PCRs[initDataRegister])
		JudgeInitData(&c, b, s.PCRs)
	}
	if len(log) > 0 {
		if l := JudgeLog(&c, log, s.Bank, s.PCRs); l != nil {
			values["uefi_event_logs"] = l.Claims()
		}
	}
	if err := c.Err(evidence.Tpm); err != nil {
		return evidence.Claims{}, err
	}
	claims.Checks = c
	return claims, nil
}

// nonce compares what a quote was made for: the digest cut to 32 bytes, as guests
// of today do, or with zeros up to 64, as those before.
func nonce(got, want []byte) bool {
	if len(want) == 0 {
		return false
	}
	switch len(got) {
	case 32, 64:
		return evidence.Matches(got, want)
	}
	return false
}

// JudgeInitData checks that a guest measured its init-data, and nothing else,
// into register 8.
func JudgeInitData(c *evidence.Checks, b evidence.Binding, pcrs [][]byte) {
	k := evidence.Check{
		Name: "init-data", Seen: hex.EncodeToString(pcrs[initDataRegister]),
		Reason: "register 8 does not hold this init-data", Section: "KBS protocol, init-data",
	}
	if len(b.InitData) != sha256.Size {
		k.Expected, k.Reason = "a digest of 32 bytes", "init-data for this kind of evidence must be hashed with sha256"
		c.Bound(b, false, k)
		return
	}
	want := sha256.Sum256(append(make([]byte, sha256.Size), b.InitData...))
	k.Expected = hex.EncodeToString(want[:])
	c.Bound(b, bytes.Equal(want[:], pcrs[initDataRegister]), k)
}

// JudgeLog checks that an event log leads to the quoted registers. It gives the
// log only then; its digests are true, and an event's data where they are hashed.
func JudgeLog(c *evidence.Checks, data []byte, bank eventlog.Algorithm, pcrs [][]byte) *eventlog.Log {
	const section = "TCG PC Client Platform Firmware Profile, 10"
	k := evidence.Check{Name: "event-log", Expected: "an event log", Section: section}
	l, err := eventlog.Parse(data)
	if err != nil {
		k.Reason = publicOf(err)
		c.That(false, k)
		return nil
	}
	values, err := l.Replay(bank)
	if err != nil {
		k.Reason = publicOf(err)
		c.That(false, k)
		return nil
	}
	k.Seen = fmt.Sprintf("%d events", len(l.Events))
	c.That(true, k)
	good := true
	r := evidence.Check{Name: "event-log-replay", Expected: "the quoted registers", Seen: "the quoted registers", Section: section}
	for i, v := range values {
		if int(i) >= len(pcrs) || !bytes.Equal(v, pcrs[i]) {
			good = false
			r.Seen, r.Reason = fmt.Sprintf("register %d is %x", i, v), "the log is not what was measured"
		}
	}
	if !c.That(good, r) {
		return nil
	}
	return l
}

func publicOf(err error) string { return fault.Public(err) }
