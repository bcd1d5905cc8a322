package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/eventlog"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/verifier/snp"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx/tdxtest"
	"github.com/sallyport-project/sallyport/internal/verifier/tpm"
)

// judged is one verification, and the bare verifications of signatures in it.
type judged struct {
	verifier evidence.Verifier
	shown    evidence.Evidence
	binding  evidence.Binding
	plain    json.RawMessage // the same without its log, for the ratio; nil if it has none
	floor    func() bool
	about    string // the floor
}

// judgeBudgets bounds the processor time: a ratio to the bare signatures, and
// microseconds as a guide.
func judgeBudgets(most float64) func(options) []budget {
	return func(options) []budget { return []budget{atMost("cpu_ratio", 1.5), atMost("cpu_us", most)} }
}

// judging measures verifications of one piece of evidence, chains cached, on one
// core at a time.
func judging(prepare func() (judged, error)) func(context.Context, options) (result, error) {
	return func(ctx context.Context, o options) (result, error) {
		j, err := prepare()
		if err != nil {
			return result{}, err
		}
		defer debug.SetGCPercent(debug.SetGCPercent(400)) // as `sallyport serve` does
		var r result
		r.CPUOf = "this process"
		s, err := rounds(ctx, o, func() error {
			_, err := j.verifier.Verify(ctx, j.shown, j.binding, evidencetest.Now)
			return err //nolint:wrapcheck // printed
		})
		if err != nil {
			return r, err
		}
		r.take(s)
		verify := func() error {
			_, err := j.verifier.Verify(ctx, j.shown, j.binding, evidencetest.Now)
			return err //nolint:wrapcheck // printed
		}
		if j.plain != nil {
			verify = func() error {
				_, err := j.verifier.Verify(ctx, evidence.Evidence{TEE: j.shown.TEE, Body: j.plain}, j.binding, evidencetest.Now)
				return err //nolint:wrapcheck // printed
			}
		}
		bare := func() error {
			if !j.floor() {
				return errors.New("a signature of the floor does not verify")
			}
			return nil
		}
		whole, least, err := inTurns(ctx, o, verify, bare)
		if err != nil {
			return r, err
		}
		r.against(j.about, 1e6/least)
		r.figure("cpu_us", float64(s.cpu.Nanoseconds())/1000/float64(len(s.times)))
		if j.plain != nil {
			r.figure("plain_cpu_us", whole)
		}
		r.figure("floor_cpu_us", least)
		r.figure("cpu_ratio", whole/least)
		r.figure("evidence_bytes", float64(len(j.shown.Body)))
		return r, nil
	}
}

// inTurns gives the processor time that two things take, in microseconds each. They
// take turns of some milliseconds, so that both meet the same machine.
func inTurns(ctx context.Context, o options, one, other func() error) (first, second float64, err error) {
	const turn = 100
	var used [2]time.Duration
	var turns int
	for begin := time.Now(); time.Since(begin) < o.duration || turns == 0; turns++ {
		for i, do := range []func() error{one, other} {
			before, err := ownTime()
			if err != nil {
				return 0, 0, err
			}
			for range turn {
				if err := errors.Join(do(), ctx.Err()); err != nil {
					return 0, 0, err
				}
			}
			after, err := ownTime()
			if err != nil {
				return 0, 0, err
			}
			used[i] += after - before
		}
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(turns*turn) }
	return per(used[0]), per(used[1]), nil
}

// vector reads evidence of real hardware, which lies beside the repository.
func vector(name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join("..", "shared", "vectors", filepath.FromSlash(name)))
	if err != nil {
		return nil, fmt.Errorf("run this in the root of the repository, with the test vectors beside it: %w", err)
	}
	return data, nil
}

// bareECDSA signs something and gives what verifies it again and again.
func bareECDSA(curve elliptic.Curve, digest []byte) (func() bool, error) {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	x, y, err := ecdsa.Sign(rand.Reader, key, digest)
	return func() bool { return ecdsa.Verify(&key.PublicKey, digest, x, y) }, err
}

func snpEvidence() (judged, error) {
	body, err := vector("snp/genoa-v3-evidence.json")
	if err != nil {
		return judged{}, err
	}
	var w struct {
		Report struct {
			Data []int `json:"report_data"`
		} `json:"attestation_report"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return judged{}, fmt.Errorf("read evidence: %w", err)
	}
	bound := make([]byte, len(w.Report.Data))
	for i, v := range w.Report.Data {
		bound[i] = byte(v) //nolint:gosec // a byte, as the verifier finds out
	}
	v, err := snp.New(snp.Config{})
	if err != nil {
		return judged{}, fmt.Errorf("make verifier: %w", err)
	}
	digest := sha512.Sum384(body)
	floor, err := bareECDSA(elliptic.P384(), digest[:])
	return judged{v, evidence.Evidence{TEE: evidence.Snp, Body: body}, evidence.Binding{ReportData: bound}, nil, floor, "one ECDSA P-384 verification"}, err
}

func tdxEvidence() (judged, error) {
	n := tdxtest.New()
	v, err := tdx.New(tdx.Config{Endorsements: n.Shelf(), Root: n.Root})
	if err != nil {
		return judged{}, fmt.Errorf("make verifier: %w", err)
	}
	body, err := tdx.Wrap(n.Quote())
	if err != nil {
		return judged{}, fmt.Errorf("write evidence: %w", err)
	}
	digest := sha256.Sum256(body)
	one, err := bareECDSA(elliptic.P256(), digest[:])
	floor := func() bool {
		first := one()
		return one() && first
	}
	return judged{v, evidence.Evidence{TEE: evidence.Tdx, Body: body}, evidence.Binding{ReportData: tdxtest.Bound}, nil, floor, "two ECDSA P-256 verifications"}, err
}

// tpmEvidence is a quote over the registers that a real log of 38 kB leads to,
// by a key of ours.
func tpmEvidence() (judged, error) {
	log, err := vector("eventlog/ubuntu-2104-no-secure-boot.bin")
	if err != nil {
		return judged{}, err
	}
	l, err := eventlog.Parse(log)
	if err != nil {
		return judged{}, fmt.Errorf("read log: %w", err)
	}
	values, err := l.Replay(eventlog.SHA256)
	if err != nil {
		return judged{}, fmt.Errorf("replay log: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return judged{}, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return judged{}, fmt.Errorf("write key: %w", err)
	}
	var all []byte
	var pcrs []string
	for i := range uint32(24) {
		v := values[i]
		if v == nil {
			v = make([]byte, sha256.Size)
		}
		all = append(all, v...)
		pcrs = append(pcrs, hex.EncodeToString(v))
	}
	bound := make([]byte, 48)
	bound[0] = 1
	digest := sha256.Sum256(all)
	message := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, 0xff544347), 0x8018)
	message = append(append(message, 0, 2, 0, 0x0b, 0, 32), bound[:32]...)
	message = append(append(append(message, make([]byte, 16)...), 1), make([]byte, 8)...)
	message = append(append(message, 0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0xff, 0, 32), digest[:]...)
	hashed := sha256.Sum256(message)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hashed[:])
	if err != nil {
		return judged{}, fmt.Errorf("sign: %w", err)
	}
	b64 := base64.StdEncoding.EncodeToString
	members := map[string]any{"ak_public": b64(der), "tpm_quote": map[string]any{
		"message": b64(message), "pcrs": pcrs, "signature": b64(append([]byte{0, 0x14, 0, 0x0b, 1, 0}, signature...)),
	}}
	plain, err := json.Marshal(members)
	if err != nil {
		return judged{}, fmt.Errorf("write evidence: %w", err)
	}
	members["event_log"] = b64(log)
	body, err := json.Marshal(members)
	floor := func() bool { return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, hashed[:], signature) == nil }
	return judged{tpm.Verifier{}, evidence.Evidence{TEE: evidence.Tpm, Body: body}, evidence.Binding{ReportData: bound}, plain, floor, "one RSA-2048 verification"}, err
}
