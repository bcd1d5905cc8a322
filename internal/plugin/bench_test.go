package plugin

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// subject is what a benchmark issues.
type subject struct {
	m      manifest.Manifest
	binary string
	params map[string]any
	bounds map[string]any
}

func fixture(name string, declared bool) subject {
	m := testManifest(name)
	if declared {
		m.Params = map[string]manifest.Fields{m.Kinds[0]: {"p": {Type: manifest.TypeString}}}
	}
	return subject{m: m, binary: fixtureBinary, params: map[string]any{"p": "0123456789012345678901234567890123456789"}}
}

// built is a plugin of this module with its own manifest.
func built(b *testing.B, pkg string, params, bounds map[string]any) subject {
	b.Helper()
	dir := filepath.Join("..", "..", pkg)
	data, err := os.ReadFile(filepath.Join(dir, "plugin.json"))
	if err != nil {
		b.Fatal(err)
	}
	s := subject{binary: filepath.Join(b.TempDir(), "plugin"), params: params, bounds: bounds}
	if err := json.Unmarshal(data, &s.m); err != nil {
		b.Fatal(err)
	}
	s.m.Publisher = "tester"
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-w", "-o", s.binary, "./"+dir)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return s
}

// sshcert is a request for a certificate as the server makes it.
func sshcert(b *testing.B) subject {
	key := func() string {
		pub, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			b.Fatal(err)
		}
		blob := binary.BigEndian.AppendUint32(nil, 11)
		blob = binary.BigEndian.AppendUint32(append(blob, "ssh-ed25519"...), uint32(len(pub)))
		return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(append(blob, pub...))
	}
	now := time.Now().Unix()
	return built(b, "plugins/sshcert", map[string]any{
		"principals": []any{"deploy"}, "source_addresses": []any{"127.0.0.1/32"}, "extensions": []any{"permit-pty"},
		"host.serial": "18446744073709551615", "host.key_id": "grant_01JDT0G0000000000000000000", "host.grant": "grant_01JDT0G0000000000000000000",
		"host.public_key": key(), "host.ca_public_key": key(),
		"host.valid_after": strconv.FormatInt(now-60, 10), "host.valid_before": strconv.FormatInt(now+55, 10),
	}, map[string]any{
		"principals": []any{"deploy", "rollback"}, "source_addresses": []any{"127.0.0.0/8", "10.0.0.0/8"}, "extensions": []any{"permit-pty"},
	})
}

func opaque(b *testing.B) subject {
	return built(b, "test/load/agentkms", map[string]any{"places": []any{"north"}}, map[string]any{"places": []any{"north", "south"}})
}

// benchmarkIssue measures one Issue through the host, by as many callers. Beside
// the time it reports the processor time of the two processes: under load that is
// what a call costs.
func benchmarkIssue(b *testing.B, s subject, callers int) {
	r := newRig(b, nil)
	row := r.install(b, r.cfg.Store, r.pack(b, s.m, s.binary), 1)
	if err := r.Sync(b.Context(), []Installed{row}, r.publisher.trust); err != nil {
		b.Fatal(err)
	}
	kind := s.m.Kinds[0]
	p := r.provider(b, kind)
	q, limit := ask(kind, s.params), limits(kind)
	limit.MaxParams = s.bounds
	if _, err := p.Issue(b.Context(), q, limit); err != nil {
		b.Fatal(err)
	}
	pid := strconv.Itoa(r.Status()[0].PID)
	b.SetParallelism((callers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
	if callers == 1 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	b.ReportAllocs()
	host, plugin := cpu(b, "self"), cpu(b, pid)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := p.Issue(context.Background(), q, limit); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	if b.Failed() {
		b.FailNow()
	}
	b.ReportMetric(float64((cpu(b, "self")-host).Microseconds())/float64(b.N), "host-us/op")
	b.ReportMetric(float64((cpu(b, pid)-plugin).Microseconds())/float64(b.N), "plugin-us/op")
}

// cpu is the processor time of a process so far, in steps of 10 ms; zero where
// there is no /proc.
func cpu(b *testing.B, pid string) time.Duration {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	ticks := 0
	for _, field := range strings.Fields(after)[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func BenchmarkIssue_Stream1(b *testing.B)    { benchmarkIssue(b, fixture("alpha", false), 1) }
func BenchmarkIssue_Stream32(b *testing.B)   { benchmarkIssue(b, fixture("alpha", true), 32) }
func BenchmarkIssue_SSHCert1(b *testing.B)   { benchmarkIssue(b, sshcert(b), 1) }
func BenchmarkIssue_SSHCert32(b *testing.B)  { benchmarkIssue(b, sshcert(b), 32) }
func BenchmarkIssue_AgentKMS1(b *testing.B)  { benchmarkIssue(b, opaque(b), 1) }
func BenchmarkIssue_AgentKMS32(b *testing.B) { benchmarkIssue(b, opaque(b), 32) }

// BenchmarkStart measures a start to the first answer from a sealed image.
func BenchmarkStart_SealedImage(b *testing.B) {
	r := newRig(b, nil, testManifest("alpha"))
	e, err := r.store.judge(r.rows[0].Digest, r.publisher.trust)
	if err != nil {
		b.Fatal(err)
	}
	_, free, err := r.images.use(e, r.store)
	if err != nil {
		b.Fatal(err)
	}
	defer free()
	for b.Loop() {
		i, err := r.launch(b.Context(), e)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		i.stop(false)
		b.StartTimer()
	}
}

// BenchmarkStart_First measures verification, copy, hash, seal and start.
func BenchmarkStart_First(b *testing.B) {
	r := newRig(b, nil, testManifest("alpha"))
	for b.Loop() {
		e, err := r.store.judge(r.rows[0].Digest, r.publisher.trust)
		if err != nil {
			b.Fatal(err)
		}
		i, err := r.launch(b.Context(), e)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		i.stop(false)
		b.StartTimer()
	}
}
