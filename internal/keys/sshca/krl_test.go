package sshca_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/keys/sshca"
)

func newKey(t testing.TB) (*keys.Vault, keys.Key) {
	t.Helper()
	kek, err := file.Create(file.Config{Path: t.TempDir() + "/kek"})
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := keys.Create(t.Context(), keys.Config{KEK: kek, Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	k, err := sshca.Generate(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return v, k
}

func marshal(t testing.TB, k sshca.KRL) []byte {
	t.Helper()
	b, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// oracle asks ssh-keygen which of the certificates a list revokes.
func oracle(t *testing.T, list []byte, certificates map[uint64]string) map[uint64]bool {
	t.Helper()
	keygen := tool(t, "ssh-keygen")
	dir := t.TempDir()
	krl := filepath.Join(dir, "krl")
	if err := os.WriteFile(krl, list, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-Q", "-f", krl}
	for serial, line := range certificates {
		path := filepath.Join(dir, fmt.Sprintf("%d-cert.pub", serial))
		if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, err := exec.CommandContext(t.Context(), keygen, args...).CombinedOutput()
	answers := map[uint64]bool{}
	for line := range strings.Lines(string(out)) {
		path, _, _ := strings.Cut(line, " ")
		path = strings.TrimSuffix(path, ":")
		var serial uint64
		if _, err := fmt.Sscanf(filepath.Base(path), "%d-cert.pub", &serial); err != nil {
			t.Fatalf("ssh-keygen says %q", line)
		}
		answers[serial] = strings.HasSuffix(strings.TrimSpace(line), "REVOKED")
	}
	if len(answers) != len(certificates) {
		t.Fatalf("%d answers for %d certificates (%v): %s", len(answers), len(certificates), err, out)
	}
	return answers
}

func certificateWith(t testing.TB, i *sshca.Issuer, serial uint64) string {
	t.Helper()
	d := newDecision(t)
	d.Serial = serial
	line, err := i.Sign(toBeSigned(compose(t, i, d)), d)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func TestKRL_Marshal_asOpenSSHReadsIt(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	random := rand.New(rand.NewPCG(3, 4))
	scattered := make([]uint64, 10_000)
	for n := range scattered {
		scattered[n] = max(1, random.Uint64())
	}
	dense := make([]uint64, 0, 10_000)
	for n := range uint64(20_000) {
		if random.IntN(2) == 0 {
			dense = append(dense, 1_000_000+n)
		}
	}
	steady := make([]uint64, 10_000)
	for n := range steady {
		steady[n] = uint64(n) + 50
	}
	mixed := slices.Concat(scattered[:300], dense[:500], steady[:500], []uint64{1, math.MaxUint64, math.MaxUint64 - 1, 1})
	for name, c := range map[string]struct {
		serials []uint64
		most    int // bytes of the list
	}{
		"10,000 random serials": {scattered, 10_000*8 + 300},
		"a dense stretch":       {dense, 20_000/8 + 300},
		"a steady run":          {steady, 300},
		"all kinds mixed":       {mixed, 300*8 + 1000},
		"a single serial":       {[]uint64{7}, 200},
		"the ends of the range": {[]uint64{1, math.MaxUint64}, 250},
		"nothing":               {nil, 60},
	} {
		t.Run(name, func(t *testing.T) {
			list := marshal(t, sshca.KRL{Version: 5, Generated: start, Comment: "sallyport", Revoked: []sshca.Revoked{{CA: i.Public(), Serials: c.serials}}})
			if len(list) > c.most {
				t.Errorf("%d bytes, more than %d", len(list), c.most)
			}
			revoked := map[uint64]bool{}
			for _, s := range c.serials {
				revoked[s] = true
			}
			asked := map[uint64]string{}
			for n := range 40 {
				s := max(1, random.Uint64())
				if len(c.serials) > 0 && n%4 != 0 {
					s = max(1, c.serials[random.IntN(len(c.serials))]+uint64(n%3)-1)
				}
				asked[s] = certificateWith(t, i, s)
			}
			for _, s := range c.serials[max(0, len(c.serials)-2):] {
				asked[s] = certificateWith(t, i, s)
			}
			read, err := sshca.ReadKRL(list)
			if err != nil {
				t.Fatal(err)
			}
			for s, got := range oracle(t, list, asked) {
				if got != revoked[s] {
					t.Errorf("ssh-keygen says of %d revoked %t, want %t", s, got, revoked[s])
				}
				if read.Revokes(i.Public(), s) != revoked[s] {
					t.Errorf("our reader says of %d revoked %t", s, !revoked[s])
				}
			}
		})
	}
	t.Run("every one of 10,000 by our reader, a part by theirs", func(t *testing.T) {
		list := marshal(t, sshca.KRL{Version: 1, Generated: start, Revoked: []sshca.Revoked{{CA: i.Public(), Serials: scattered}}})
		read, err := sshca.ReadKRL(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range scattered {
			if !read.Revokes(i.Public(), s) {
				t.Fatalf("%d is not revoked", s)
			}
		}
		asked := map[uint64]string{}
		for _, s := range scattered[:150] {
			asked[s] = certificateWith(t, i, s)
		}
		for s, got := range oracle(t, list, asked) {
			if !got {
				t.Fatalf("ssh-keygen says that %d is not revoked", s)
			}
		}
	})
	t.Run("a bitmap of the widest kind", func(t *testing.T) {
		var serials []uint64
		for n := uint64(1); n <= 40_000; n += 2 {
			serials = append(serials, n)
		}
		list := marshal(t, sshca.KRL{Version: 1, Generated: start, Revoked: []sshca.Revoked{{CA: i.Public(), Serials: serials}}})
		asked := map[uint64]string{}
		for _, s := range []uint64{1, 2, 16383, 16384, 16385, 16386, 32767, 32768, 32769, 32770, 39999, 40000, 40001} {
			asked[s] = certificateWith(t, i, s)
		}
		for s, got := range oracle(t, list, asked) {
			if got != (s%2 == 1 && s < 40_000) {
				t.Errorf("ssh-keygen says of %d revoked %t", s, got)
			}
		}
	})
	t.Run("another CA's serials are its own", func(t *testing.T) {
		list := marshal(t, sshca.KRL{Generated: start, Revoked: []sshca.Revoked{
			{CA: other.Public(), Serials: []uint64{7}}, {CA: i.Public(), Serials: []uint64{8}},
		}})
		got := oracle(t, list, map[uint64]string{7: certificateWith(t, i, 7), 8: certificateWith(t, i, 8)})
		if got[7] || !got[8] {
			t.Errorf("got %v", got)
		}
	})
}

func TestCAOf(t *testing.T) {
	i := newIssuer(t)
	if authority, serial, err := sshca.CAOf(certificateWith(t, i, 77)); err != nil || authority != i.Public() || serial != 77 {
		t.Errorf("got %s, %d, %v", authority, serial, err)
	}
	for _, other := range []string{"", "x", i.Public(), strings.Repeat("x", 1<<20)} {
		if _, _, err := sshca.CAOf(other); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.20q: %v", other, err)
		}
	}
}

// TestReadKRL_readsOpenSSH reads a list that ssh-keygen wrote.
func TestReadKRL_readsOpenSSH(t *testing.T) {
	keygen := tool(t, "ssh-keygen")
	i, dir := newIssuer(t), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	spec := "serial: 5\nserial: 10-5000\nserial: 18446744073709551615\nserial: 6001\nserial: 6003\nserial: 6007\nserial: 6010\nserial: 6011\n"
	for name, text := range map[string]string{"ca.pub": i.Public() + "\n", "spec": spec} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), keygen, "-k", "-f", at("krl"), "-s", at("ca.pub"), "-z", "9", at("spec")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	theirs, err := os.ReadFile(at("krl"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := sshca.ReadKRL(theirs)
	if err != nil {
		t.Fatal(err)
	}
	serials := []uint64{5, math.MaxUint64, 6001, 6003, 6007, 6010, 6011}
	for s := range uint64(4991) {
		serials = append(serials, s+10)
	}
	for _, s := range serials {
		if !list.Revokes(i.Public(), s) {
			t.Fatalf("%d is not revoked", s)
		}
	}
	for _, s := range []uint64{4, 6, 9, 5001, 6000, 6002, 6012, math.MaxUint64 - 1} {
		if list.Revokes(i.Public(), s) {
			t.Errorf("%d is revoked", s)
		}
	}
	if list.Version != 9 {
		t.Errorf("version %d", list.Version)
	}
	ours := marshal(t, sshca.KRL{Version: 9, Generated: start, Revoked: []sshca.Revoked{{CA: i.Public(), Serials: serials}}})
	if len(ours) > len(theirs) {
		t.Errorf("our list has %d bytes, ssh-keygen's %d", len(ours), len(theirs))
	}
}

func TestKRL_Marshal_refuses(t *testing.T) {
	i := newIssuer(t)
	for name, k := range map[string]sshca.KRL{
		"serial zero":      {Generated: start, Revoked: []sshca.Revoked{{CA: i.Public(), Serials: []uint64{0, 1}}}},
		"no CA":            {Generated: start, Revoked: []sshca.Revoked{{Serials: []uint64{1}}}},
		"a CA twice":       {Generated: start, Revoked: []sshca.Revoked{{CA: i.Public()}, {CA: i.Public() + " comment"}}},
		"a huge comment":   {Generated: start, Comment: strings.Repeat("x", 2000)},
		"a time long gone": {},
	} {
		if _, err := k.Marshal(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestKRL_Marshal_isInverse compares writer and reader over shapes that reach
// every kind of section.
func TestKRL_Marshal_isInverse(t *testing.T) {
	ca := newIssuer(t).Public()
	rapid.Check(t, func(t *rapid.T) {
		var serials []uint64
		at := uint64(1)
		for range rapid.IntRange(0, 20).Draw(t, "stretches") {
			at += rapid.OneOf(rapid.Uint64Range(1, 40), rapid.Uint64Range(1, 1<<16), rapid.Uint64Range(1, 1<<58)).Draw(t, "gap")
			for range rapid.IntRange(1, 60).Draw(t, "length") {
				serials = append(serials, at)
				at += rapid.SampledFrom([]uint64{1, 1, 1, 2, 3, 9}).Draw(t, "step")
			}
		}
		shuffled := rapid.Permutation(serials).Draw(t, "order")
		k := sshca.KRL{Version: rapid.Uint64().Draw(t, "version"), Generated: start, Comment: "c", Revoked: []sshca.Revoked{{CA: ca, Serials: shuffled}}}
		b, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		list, err := sshca.ReadKRL(b)
		if err != nil {
			t.Fatal(err)
		}
		if list.Version != k.Version || !list.Generated.Equal(start) || list.Comment != "c" {
			t.Fatalf("head %+v", list)
		}
		in := map[uint64]bool{}
		for _, s := range serials {
			in[s] = true
		}
		for _, s := range serials {
			for _, n := range []uint64{s - 1, s, s + 1} {
				if list.Revokes(ca, n) != in[n] {
					t.Fatalf("%d: revoked %t", n, !in[n])
				}
			}
		}
		if most := 200 + 8*len(serials); len(b) > most {
			t.Fatalf("%d serials take %d bytes", len(serials), len(b))
		}
	})
}

func TestReadKRL_refusesEveryCut(t *testing.T) {
	i := newIssuer(t)
	serials := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 102, 104, 105, 107, 1 << 40}
	list := marshal(t, sshca.KRL{Version: 1, Generated: start, Revoked: []sshca.Revoked{{CA: i.Public(), Serials: serials}}})
	head := len(marshal(t, sshca.KRL{Version: 1, Generated: start}))
	for n := range list {
		if n == head {
			continue // a list without sections
		}
		if _, err := sshca.ReadKRL(list[:n]); !fault.Is(err, fault.Invalid) {
			t.Fatalf("%d of %d bytes: %v", n, len(list), err)
		}
	}
	if _, err := sshca.ReadKRL(append(bytes.Clone(list), 4, 0, 0, 0, 0)); !fault.Is(err, fault.Invalid) {
		t.Errorf("an unknown section: %v", err)
	}
}

func FuzzReadKRL(f *testing.F) {
	i, err := sshca.New(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		f.Fatal(err)
	}
	for _, serials := range [][]uint64{nil, {1}, {1, 2, 3, 4, 5, 6}, {1, 3, 5, 6, 8, 11, 13}, {math.MaxUint64}} {
		f.Add(marshal(f, sshca.KRL{Version: 1, Generated: start, Comment: "x", Revoked: []sshca.Revoked{{CA: i.Public(), Serials: serials}}}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := sshca.ReadKRL(b)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		list.Revokes(i.Public(), 1)
		if list.Len() > 8*len(b) {
			t.Fatalf("%d ranges out of %d bytes", list.Len(), len(b))
		}
	})
}
