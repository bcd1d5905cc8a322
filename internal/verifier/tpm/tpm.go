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
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// initDataRegister is where a guest's start measures the init-data.
const initDataRegister = 8

// maxEvidence bounds evidence in bytes; the event log in it is base64.
const maxEvidence = 16<<10 + eventlog.MaxSize/3*4 + 4

// Verifier implements evidence.Verifier for the kind tpm. Safe for concurrent
// use.
type Verifier struct{}

var _ evidence.Verifier = Verifier{}

// wireEvidence is evidence as guests send it. event_log is an addition of ours,
// which others do not send.
type wireEvidence struct {
	AK    string `json:"ak_public"`
	Quote struct {
		Signature string          `json:"signature"`
		Message   string          `json:"message"`
		PCRs      json.RawMessage `json:"pcrs"`
	} `json:"tpm_quote"`
	Log string `json:"event_log"`
}

// parse reads evidence into what is checked.
func parse(body []byte) (s Shown, ak string, log []byte, err error) {
	var w wireEvidence
	if err := canon.Lenient(body, maxEvidence, 8, &w); err != nil {
		return s, "", nil, err
	}
	fields := [4][]byte{}
	for i, f := range []struct{ name, text string }{
		{"ak_public", w.AK}, {"tpm_quote.signature", w.Quote.Signature}, {"tpm_quote.message", w.Quote.Message}, {"event_log", w.Log},
	} {
		if len(f.text) > maxStructure && f.name != "event_log" {
			return s, "", nil, fault.Invalidf("%s is too long", f.name)
		}
		if fields[i], err = base64.StdEncoding.Strict().DecodeString(f.text); err != nil {
			return s, "", nil, fault.Invalidf("%s must be standard base64", f.name)
		}
	}
	if s.PCRs, err = Registers(w.Quote.PCRs); err != nil {
		return s, "", nil, err
	}
	if s.Key, err = x509.ParsePKIXPublicKey(fields[0]); err != nil {
		return s, "", nil, fault.Invalidf("ak_public must be a public key in DER")
	}
	if s.Signature, err = ParseSignature(fields[1]); err != nil {
		return s, "", nil, err
	}
	s.Message, s.Bank = fields[2], eventlog.SHA256
	return s, w.AK, fields[3], nil
}

// Registers reads a JSON list of the values of the 24 registers of the SHA-256
// bank in hex. It is read by hand: a list of hexadecimal texts of one length has
// no other form, and nothing is built of a longer one.
func Registers(list json.RawMessage) ([][]byte, error) {
	const width = 2 * sha256.Size
	bad := fault.Invalidf("pcrs must be a list of the values of %d registers, of %d bytes in hex", registers, sha256.Size)
	rest, ok := after(list, '[')
	if !ok {
		return nil, bad
	}
	all, out := make([]byte, registers*sha256.Size), make([][]byte, registers)
	for i := range out {
		if i > 0 {
			if rest, ok = after(rest, ','); !ok {
				return nil, bad
			}
		}
		if rest, ok = after(rest, '"'); !ok || len(rest) <= width || rest[width] != '"' {
			return nil, bad
		}
		out[i] = all[i*sha256.Size : (i+1)*sha256.Size : (i+1)*sha256.Size]
		if _, err := hex.Decode(out[i], rest[:width]); err != nil {
			return nil, bad
		}
		rest = rest[width+1:]
	}
	if rest, ok = after(rest, ']'); !ok || len(bytes.TrimLeft(rest, " \t\r\n")) > 0 {
		return nil, bad
	}
	return out, nil
}

// after skips white space of JSON and one mark.
func after(text []byte, mark byte) ([]byte, bool) {
	text = bytes.TrimLeft(text, " \t\r\n")
	if len(text) == 0 || text[0] != mark {
		return nil, false
	}
	return text[1:], true
}

// Verify implements evidence.Verifier.
func (Verifier) Verify(_ context.Context, e evidence.Evidence, b evidence.Binding, _ time.Time) (evidence.Claims, error) {
	if e.TEE != evidence.Tpm {
		return evidence.Claims{}, fault.Internalf("verifier of tpm got evidence of %s", e.TEE)
	}
	c := make(evidence.Checks, 0, 16)
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
	values["tpm_firmware"] = fmt.Sprintf("%016x", q.Firmware)
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

// names are pcr00 to pcr23.
var names = func() (out [registers]string) {
	for i := range out {
		out[i] = fmt.Sprintf("pcr%02d", i)
	}
	return out
}()

// PCRClaims are the registers for policies: pcr00 to pcr23.
func PCRClaims(pcrs [][]byte) map[string]any {
	out := make(map[string]any, len(pcrs)+8)
	var buffer [registers * 2 * sha256.Size]byte
	text := buffer[:0]
	for _, v := range pcrs {
		text = hex.AppendEncode(text, v)
	}
	whole := string(text) // of which each claim is a part
	for i, v := range pcrs {
		out[names[i]], whole = whole[:2*len(v)], whole[2*len(v):]
	}
	return out
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
