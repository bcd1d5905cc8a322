package evidence

import (
	"crypto/sha512"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
)

const guestInitData = `# written by hand
algorithm = "sha384"
version = "0.1.0"

[data]
"aa.toml" = '''
[token_configs]
[token_configs.coco_as]
url = 'http://127.0.0.1:8080'

[token_configs.kbs]
url = "http://127.0.0.1:8080"
cert = """
-----BEGIN CERTIFICATE-----
line \
    joined
-----END CERTIFICATE-----
"""
'''

"cdh.toml" = '''
socket = 'unix:///run/cdh.sock'
credentials = []
[kbc]
name = 'cc_kbc'
[image]
max_concurrent_layer_downloads_per_image = 3
retry = 1.5
strict = true
extra = { a.b = 1, c = [1, 2,] }
[[mirror]]
host = "one"
[[mirror]]
host = "two"
'''

"policy.rego" = '''
package agent_policy
default AllowRequestsFailingPolicy := false
policy_data := {
  "containers": [{"name": "x"}]
}
'''
note = "t\u00e4t \U0001F600 \"quoted\""
`

func TestInitData_MeasuresRawTextAndReadsIt(t *testing.T) {
	m, err := InitData{"toml", guestInitData}.Measure()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum384([]byte(guestInitData))
	if m.Algorithm != "sha384" || string(m.Digest) != string(sum[:]) {
		t.Error("the digest is not that of the raw text")
	}
	want := map[string]any{
		"aa.toml": map[string]any{"token_configs": map[string]any{
			"coco_as": map[string]any{"url": "http://127.0.0.1:8080"},
			"kbs":     map[string]any{"url": "http://127.0.0.1:8080", "cert": "-----BEGIN CERTIFICATE-----\nline joined\n-----END CERTIFICATE-----\n"},
		}},
		"cdh.toml": map[string]any{
			"socket": "unix:///run/cdh.sock", "credentials": []any{},
			"kbc": map[string]any{"name": "cc_kbc"},
			"image": map[string]any{
				"max_concurrent_layer_downloads_per_image": float64(3), "retry": 1.5, "strict": true,
				"extra": map[string]any{"a": map[string]any{"b": float64(1)}, "c": []any{float64(1), float64(2)}},
			},
			"mirror": []any{map[string]any{"host": "one"}, map[string]any{"host": "two"}},
		},
		"agent_policy_claims": map[string]any{"containers": []any{map[string]any{"name": "x"}}},
		"note":                "tät 😀 \"quoted\"",
	}
	if d := cmp.Diff(want, m.Claims); d != "" {
		t.Error(d)
	}
	crlf, err := InitData{"toml", strings.ReplaceAll(guestInitData, "\n", "\r\n")}.Measure()
	if err != nil || string(crlf.Digest) == string(m.Digest) {
		t.Errorf("line ends: %v", err)
	}
}

func TestInitData_KeepsWhatItCannotRead(t *testing.T) {
	m, err := InitData{"toml", "version='1'\nalgorithm='sha256'\n[data]\n'aa.toml'='= x'\n'policy.rego'='package x'\n"}.Measure()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]any{"aa.toml": "= x", "policy.rego": "package x"}, m.Claims); d != "" {
		t.Error(d)
	}
}

func TestInitData_RefusesOthers(t *testing.T) {
	head := "version='1'\nalgorithm='sha256'\n"
	for name, body := range map[string]string{
		"empty":          "",
		"no algorithm":   "version='1'\n[data]\n",
		"sm3":            "version='1'\nalgorithm='sm3'\n[data]\n",
		"no version":     "algorithm='sha256'\n[data]\n",
		"no data":        head,
		"data no table":  head + "data='x'\n",
		"number":         head + "[data]\nx=1\n",
		"key twice":      head + "algorithm='sha512'\n[data]\n",
		"table twice":    head + "[data]\nx='1'\n[data]\ny='2'\n",
		"data as list":   head + "[[data]]\nx='1'\n",
		"two on a line":  "version='1' algorithm='sha256'\n[data]\n",
		"unclosed":       head + "[data]\nx='''y\n",
		"bad escape":     head + "[data]\nx=\"\\q\"\n",
		"surrogate":      head + "[data]\nx=\"\\ud800\"\n",
		"control":        head + "[data]\nx='a\x00b'\n",
		"not UTF-8":      head + "[data]\nx='\xff'\n",
		"key over value": head + "[data]\nx='1'\nx.y='2'\n",
	} {
		if _, err := (InitData{"toml", body}).Measure(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzInitData(f *testing.F) {
	f.Add(guestInitData)
	f.Add("version='1'\nalgorithm='sha256'\n[data]\nx=\"\"\"\\\n  y\"\"\"\n")
	f.Add("a=[[],{b.c=-1.5e3}]\n[[x]]\n[x.y]\n[[x]]\n[x.y]\n")
	f.Add("policy_data := {")
	f.Fuzz(func(t *testing.T, body string) {
		m, err := InitData{"toml", body}.Measure()
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
		} else if _, err := json.Marshal(m.Claims); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"version":"0.4.0","tee":"sample","extra-params":{"supported-hash-algorithms":["sha384"]}}`))
	f.Add([]byte(`{"version":"0.2.0","tee":"azsnpvtpm","extra-params":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRequest(data)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		text, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseRequest(text); err != nil || again.TEE != r.TEE || again.Version != r.Version {
			t.Fatalf("round trip of %s: %v", text, err)
		}
	})
}

func FuzzAttestation(f *testing.F) {
	for _, v := range []Version{V040, V020} {
		a := attestation(v, vectorRuntime(f))
		a.InitData = &InitData{"toml", guestInitData}
		text, err := a.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(v == V040, text)
	}
	f.Fuzz(func(t *testing.T, latest bool, data []byte) {
		v := V020
		if latest {
			v = V040
		}
		a, err := ParseAttestation(v, data)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		one, err := a.Runtime.Digest(v)
		if err != nil || len(one) != 48 {
			t.Fatalf("digest: %v", err)
		}
		text, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseAttestation(v, text)
		if err != nil {
			t.Fatalf("round trip: %v", err)
		}
		if two, _ := again.Runtime.Digest(v); string(one) != string(two) {
			t.Fatal("the digest did not survive the wire")
		}
		_, _ = a.Runtime.Devices()
	})
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","extra-params":""}`))
	f.Add([]byte(`{"token":"a.b.c"}`))
	f.Add([]byte(`{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny","detail":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseChallenge(data); err == nil && c.Nonce.Bytes() == nil {
			t.Fatal("a malformed nonce was accepted")
		}
		if r, err := ParseResponse(data); err == nil && r.Token == "" {
			t.Fatal("an empty token was accepted")
		}
		if p, err := ParseProblem(data); err == nil && p.Type == "" {
			t.Fatal("an empty error was accepted")
		}
	})
}
