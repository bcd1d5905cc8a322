package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// logs are the logs of real machines.
func logs(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(evidencetest.Folder(t), "eventlog", "*.bin"))
	if err != nil || len(names) < 6 {
		t.Fatalf("%v %v", names, err)
	}
	out := map[string][]byte{}
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(n), ".bin")] = data
	}
	return out
}

func TestParse_ReadsLogsOfRealMachines(t *testing.T) {
	for name, data := range logs(t) {
		l, err := Parse(data)
		if strings.HasPrefix(name, "malformed-") {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || len(l.Events) < 20 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, bank := range l.Banks {
			values, err := l.Replay(bank)
			if err != nil || len(values[0]) != bank.Hash().Size() || values[7] == nil {
				t.Errorf("%s, bank %#x: %v", name, bank, err)
			}
		}
		hashed := 0
		for _, e := range l.Events {
			if e.Hashed() {
				hashed++
			}
		}
		if hashed == 0 || hashed == len(l.Events) {
			t.Errorf("%s: %d of %d events have the data of their digests", name, hashed, len(l.Events))
		}
		if _, err := json.Marshal(l.Claims()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The registers that a log leads to are those that the machine itself quoted.
func TestReplay_LeadsToTheQuotedRegisters(t *testing.T) {
	var v struct {
		Log struct {
			PCRs []struct {
				Index     uint32
				Digest    []byte
				DigestAlg int
			}
			Raw []byte
		}
	}
	if err := json.Unmarshal(evidencetest.Vector(t, "eventlog/windows-gcp-shielded-vm.json"), &v); err != nil {
		t.Fatal(err)
	}
	l, err := Parse(v.Log.Raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, bank := range l.Banks {
		values, err := l.Replay(bank)
		if err != nil {
			t.Fatal(err)
		}
		checked := 0
		for _, p := range v.Log.PCRs {
			if p.DigestAlg == int(bank.Hash()) && values[p.Index] != nil {
				if !bytes.Equal(values[p.Index], p.Digest) {
					t.Errorf("bank %#x, register %d: %x, quoted %x", bank, p.Index, values[p.Index], p.Digest)
				}
				checked++
			}
		}
		if checked == 0 {
			t.Errorf("no register of bank %#x was compared", bank)
		}
	}
}

// Cut anywhere but between two events, and with any wrong count, a log is refused
// or leads to other registers; nothing of it is half read.
func TestParse_NeverTakesHalfAnEvent(t *testing.T) {
	data := logs(t)["arch-linux-workstation"]
	whole, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for n := range data {
		l, err := Parse(data[:n])
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("cut at %d: %v", n, err)
			}
			continue
		}
		accepted++
		if len(l.Events) >= len(whole.Events) {
			t.Fatalf("cut at %d: %d events of %d", n, len(l.Events), len(whole.Events))
		}
	}
	if accepted > 2*len(whole.Events) { // between events, and where what is left looks like padding
		t.Errorf("%d of %d cuts were accepted", accepted, len(data))
	}
}

// No mutant of a log leads to the same registers, unless only data changed that
// nobody hashed.
func TestParse_AcceptsNoMutantForTheSameRegisters(t *testing.T) {
	data := logs(t)["rhel8-uefi"]
	whole, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	want, err := whole.Replay(SHA256)
	if err != nil {
		t.Fatal(err)
	}
	measured := func(l *Log) (out []string) {
		for _, e := range l.Events {
			if e.Type != NoAction {
				out = append(out, string(binary.LittleEndian.AppendUint32(e.Digest(SHA256), e.Register)))
			}
		}
		return out
	}
	evidencetest.Mutants(data, 10_000, func(i int, m []byte) {
		l, err := Parse(m)
		if err != nil {
			return
		}
		got, err := l.Replay(SHA256)
		if err == nil && cmp.Equal(got, want) && !cmp.Equal(measured(l), measured(whole)) {
			t.Fatalf("mutant %d has other digests for the same registers", i)
		}
	})
}

// made writes a log of one bank.
func made(events ...Event) []byte {
	le := binary.LittleEndian
	head := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0)
	out := le.AppendUint32(nil, 0)
	out = le.AppendUint32(out, uint32(NoAction))
	out = append(out, make([]byte, 20)...)
	out = append(le.AppendUint32(out, uint32(len(head))), head...)
	for _, e := range events {
		sum := sha256.Sum256(e.Data)
		out = le.AppendUint32(out, e.Register)
		out = le.AppendUint32(out, uint32(e.Type))
		out = append(le.AppendUint32(out, 1), 0x0b, 0)
		out = append(out, sum[:]...)
		out = append(le.AppendUint32(out, uint32(len(e.Data))), e.Data...)
	}
	return out
}

func TestReplay_BeginsAtTheStartupLocality(t *testing.T) {
	startup := Event{Type: NoAction, Data: []byte("StartupLocality\x00\x03")}
	version := Event{Type: 8, Data: []byte("v1")}
	l, err := Parse(made(startup, version))
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Replay(SHA256)
	if err != nil {
		t.Fatal(err)
	}
	d := sha256.Sum256([]byte("v1"))
	want := sha256.Sum256(append(append(make([]byte, 31), 3), d[:]...))
	if !bytes.Equal(got[0], want[:]) {
		t.Errorf("register 0 is %x", got[0])
	}
	for name, events := range map[string][]Event{
		"late":             {version, startup},
		"twice":            {startup, startup},
		"another register": {{Register: 1, Type: NoAction, Data: startup.Data}},
		"a wrong locality": {{Type: NoAction, Data: []byte("StartupLocality\x00\x09")}},
	} {
		l, err := Parse(made(events...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Replay(SHA256); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.Replay(SHA384); !fault.Is(err, fault.Invalid) {
		t.Errorf("a bank that is not there: %v", err)
	}
}

func TestParse_RefusesWhatIsNoLog(t *testing.T) {
	good := made(Event{Type: 8, Data: []byte("v1")})
	with := func(at int, b ...byte) []byte {
		return append(append(bytes.Clone(good[:at]), b...), good[at+len(b):]...)
	}
	for name, data := range map[string][]byte{
		"empty":                   nil,
		"too large":               make([]byte, MaxSize+1),
		"no banks":                with(32+24, 0, 0, 0, 0),
		"billions of banks":       with(32+24, 0xff, 0xff, 0xff, 0xff),
		"another digest size":     with(32+30, 20),
		"a size of zero":          with(32+28, 0x99, 0, 0, 0),
		"bytes behind the header": append(bytes.Clone(good[:28]), append([]byte{34, 0, 0, 0}, append(bytes.Clone(good[32:32+33]), 1)...)...),
		"another signature":       with(32, 'X'),
		"register 24":             with(65, 24),
		"two digests announced":   with(73, 2),
		"an unknown bank":         with(77, 0x0c),
		"a huge event":            with(len(good)-6, 0xff, 0xff, 0xff, 0xff),
	} {
		if _, err := Parse(data); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := Parse(append(bytes.Clone(good), bytes.Repeat([]byte{0xff}, 5000)...)); err != nil || len(l.Events) != 1 {
		t.Errorf("padding: %v", err)
	}
}

// The claims of a log are those that existing policies were written for.
func TestClaims_AreTheKnownOnes(t *testing.T) {
	var want struct {
		Events []map[string]any `json:"uefi_event_logs"`
	}
	if err := json.Unmarshal(evidencetest.Vector(t, "tdx/claims-expected.json"), &want); err != nil {
		t.Fatal(err)
	}
	l := &Log{}
	for _, w := range want.Events {
		e := Event{Register: uint32(w["index"].(float64))}
		for n, name := range names {
			if name == w["type_name"] {
				e.Type = n
			}
		}
		first := w["digests"].([]any)[0].(map[string]any)
		raw, err := json.Marshal(map[string]any{"d": w["event"]})
		if err != nil {
			t.Fatal(err)
		}
		var data struct{ D []byte }
		if err := json.Unmarshal(raw, &data); err != nil {
			t.Fatal(err)
		}
		e.Data = data.D
		value := make([]byte, 48)
		for i := range value {
			value[i] = unhex(first["digest"].(string)[2*i])<<4 | unhex(first["digest"].(string)[2*i+1])
		}
		e.Digests = []Digest{{SHA384, value}}
		l.Events = append(l.Events, e)
	}
	var got []map[string]any
	for _, c := range l.Claims() {
		got = append(got, c.(map[string]any))
	}
	if d := cmp.Diff(want.Events, got); d != "" {
		t.Error(d)
	}
}

func unhex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

func TestDetails_ReadKernelsAndTags(t *testing.T) {
	name := []byte{'k', 0, 'e', 0, 'r', 0, 'n', 0, 'e', 0, 'l', 0, 0, 0}
	path := append([]byte{4, 4, byte(4 + len(name)), 0}, name...)
	path = append(path, 0x7f, 0xff, 4, 0)
	image := binary.LittleEndian.AppendUint64(make([]byte, 24), uint64(len(path)))
	image = append(image, path...)
	if got := (Event{Type: BootServices, Data: image}).details(); !cmp.Equal(got, map[string]any{"device_paths": []any{"File(kernel)"}}) {
		t.Errorf("kernel: %v", got)
	}
	tag := append([]byte{1, 0, 0, 0, 26, 0, 0, 0}, "LOADED_IMAGE::LoadOptions\x00"...)
	if got := (Event{Type: EventTag, Data: tag}).details(); !cmp.Equal(got, map[string]any{"string": "LOADED_IMAGE::LoadOptions"}) {
		t.Errorf("tag: %v", got)
	}
	for n := range image {
		_ = (Event{Type: BootServices, Data: image[:n]}).details()
	}
}

func FuzzParse(f *testing.F) {
	for _, data := range logs(f) {
		f.Add(data)
	}
	f.Add(made(Event{Type: 8, Data: []byte("v1")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			return
		}
		size := 0
		for _, e := range l.Events {
			size += len(e.Data)
		}
		if size > len(data) {
			t.Fatal("events have more data than the log")
		}
		for _, bank := range l.Banks {
			_, _ = l.Replay(bank)
		}
		_ = l.Claims()
	})
}
