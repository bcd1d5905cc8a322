package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
)

// handshake opens a handshake by hand, and gives its cookie and challenge.
func handshake(t *testing.T, url, version string) (cookie string, challenge evidence.Challenge) {
	t.Helper()
	got := plainly(t, "POST", url+"/kbs/v0/auth", `{"version":"`+version+`","tee":"sample","extra-params":{}}`, nil)
	if got.status != 200 {
		t.Fatalf("auth: %d %s", got.status, got.body)
	}
	cookie, _, _ = strings.Cut(got.header.Get("Set-Cookie"), ";")
	challenge, err := evidence.ParseChallenge([]byte(got.body))
	must(t, err)
	return cookie, challenge
}

// answerTo makes a good answer to a challenge by a key.
func answerTo(t *testing.T, challenge evidence.Challenge, key seal.PrivateKey, version evidence.Version) string {
	t.Helper()
	return answerBy(t, challenge, key.Public(), version)
}

func answerBy(t *testing.T, challenge evidence.Challenge, key seal.PublicKey, version evidence.Version) string {
	t.Helper()
	a := evidence.Attestation{Version: version, Runtime: evidence.Runtime{Nonce: challenge.Nonce, Key: key}}
	digest, err := a.Runtime.Digest(version)
	must(t, err)
	text, err := json.Marshal(digest) // standard base64, in quotes
	must(t, err)
	a.Primary = json.RawMessage(`{"svn":"1","report_data":` + string(text) + `}`)
	body, err := a.Encode()
	must(t, err)
	return string(body)
}

// TestKBS_RefusesHostileAttestations changes a good answer in every way that a
// stranger could profit from. Each is answered by the error object, uses up its
// challenge, and repeats nothing that was sent.
func TestKBS_RefusesHostileAttestations(t *testing.T) {
	w := start(t, found(t, Options{Further: guestDoor(), Config: map[string]any{"verifiers": believesSamples()}}))
	url := "http://" + w.Bound["guests"]
	key, err := seal.GenerateKey()
	must(t, err)
	other, err := seal.GenerateKey()
	must(t, err)
	legacy := `{"kty":"RSA","alg":"RSA1_5","n":"` + strings.Repeat("_", 342) + `","e":"AQAB"}`
	keyText, err := json.Marshal(key.Public())
	must(t, err)
	otherText, err := json.Marshal(other.Public())
	must(t, err)
	_, stolen := handshake(t, url, "0.4.0")
	swap := func(old, by string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("there is no %s in %s", old, s)
			}
			return strings.Replace(s, old, by, 1)
		}
	}
	const canary = "canary-of-this-test"
	cases := map[string]func(string) string{
		"another session's nonce":     func(string) string { return answerTo(t, stolen, key, evidence.V040) },
		"a swapped key":               swap(string(keyText), string(otherText)),
		"a key of RSA1_5":             swap(string(keyText), legacy),
		"another algorithm":           swap("ECDH-ES+A256KW", "none"),
		"a point off its curve":       swap(`"x":"`, `"x":"AAAA`),
		"evidence of another TEE":     swap(`"svn":"1"`, `"quote":"`+canary+`"`),
		"evidence of another version": func(s string) string { return swap(`"additional_evidence":""`, `"additional_evidence":"{}"`)(s) },
		"an added device":             swap(`"additional_evidence":""`, `"additional_evidence":"{\"snp\":{}}"`),
		"a device that is not bound":  swap(`"additional_evidence":""`, `"additional_evidence":"{\"sampledevice\":{\"svn\":\"2\",\"report_data\":\"AAAA\"}}"`),
		"init-data that is not bound": swap(`"init-data":null`, `"init-data":{"format":"toml","body":"`+canary+`"}`),
		"a name twice":                swap(`"runtime-data":`, `"runtime-data":{},"runtime-data":`),
		"deep JSON":                   swap(`"svn":"1"`, `"svn":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)),
		"another case":                swap(`"nonce"`, `"Nonce"`),
		"no JSON":                     func(string) string { return canary },
		"nothing":                     func(string) string { return "" },
		"null":                        func(string) string { return "null" },
		"no UTF-8":                    func(s string) string { return strings.Replace(s, "svn", "s\xffn", 1) },
	}
	good := answerTo(t, stolen, key, evidence.V040)
	for i := 1; i < len(good); i += 41 {
		cases[fmt.Sprint("cut after ", i)] = func(s string) string { return s[:i] }
	}
	for name, change := range cases {
		cookie, challenge := handshake(t, url, "0.4.0")
		whole := answerTo(t, challenge, key, evidence.V040)
		for _, body := range []string{change(whole), whole} { // the second finds the challenge used up
			got := plainly(t, "POST", url+"/kbs/v0/attest", body, map[string]string{"Cookie": cookie})
			problem, err := evidence.ParseProblem([]byte(got.body))
			if got.status != 401 || err != nil || problem.Variant() != evidence.AttestationError {
				t.Errorf("%s: %d %.200s", name, got.status, got.body)
			}
			if strings.Contains(got.body, canary) || strings.Contains(got.body, string(challenge.Nonce)) {
				t.Errorf("%s: the answer repeats what was sent: %s", name, got.body)
			}
		}
	}
	cookie, challenge := handshake(t, url, "0.2.0")
	if got := plainly(t, "POST", url+"/kbs/v0/attest", answerTo(t, challenge, key, evidence.V040), map[string]string{"Cookie": cookie}); got.status != 401 {
		t.Errorf("an answer of 0.4.0 in a handshake of 0.2.0: %d", got.status)
	}
	for path, size := range map[string]int{"auth": evidence.MaxRequest + 1, "attest": evidence.MaxAttestation + 1} {
		got := plainly(t, "POST", url+"/kbs/v0/"+path, strings.Repeat("x", size), map[string]string{"Cookie": cookie})
		if got.status != 413 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s with too long a body: %d %s", path, got.status, got.body)
		}
	}
}

// What changes from run to run in a transcript.
var volatile = []struct {
	pattern *regexp.Regexp
	mark    string
}{
	{regexp.MustCompile(`"nonce":"[A-Za-z0-9+/=]{44}"`), `"nonce":"<32 bytes>"`},
	{regexp.MustCompile(`kbs-session-id=[A-Za-z0-9_-]+`), `kbs-session-id=<sealed>`},
	{regexp.MustCompile(`Expires=[^;\n]+`), `Expires=<in 5 minutes>`},
	{regexp.MustCompile(`"token":"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"`), `"token":"<EAR>"`},
	{regexp.MustCompile(`"(encrypted_key|iv|ciphertext|tag)":"[A-Za-z0-9_-]+"`), `"$1":"<base64url>"`},
	{regexp.MustCompile(`"protected":"eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIs[A-Za-z0-9_-]+"`), `"protected":"<alg, enc, epk: crv, kty, x, y>"`},
	{regexp.MustCompile(`record [0-9A-Z]{26}`), `record <id>`},
}

// TestKBS_Transcript holds what guests see to a golden transcript: a byte that
// changes here changes for every guest in the field.
func TestKBS_Transcript(t *testing.T) {
	h := found(t, Options{Further: guestDoor(), Config: map[string]any{"verifiers": believesSamples()}})
	w := start(t, h)
	url := "http://" + w.Bound["guests"]
	_, err := w.admin.PutResource(t.Context(), "default", "key", "disk", []byte("the disk's key"))
	must(t, err)
	key, err := seal.GenerateKey()
	must(t, err)
	var out strings.Builder
	say := func(method, path, body string, header map[string]string) reply {
		got := plainly(t, method, url+path, body, header)
		fmt.Fprintf(&out, "%s %s\n%d", method, path, got.status)
		for _, name := range []string{"Content-Type", "Set-Cookie", "Cache-Control"} {
			if v := got.header.Get(name); v != "" {
				fmt.Fprintf(&out, "\n%s: %s", name, v)
			}
		}
		fmt.Fprintf(&out, "\n%s\n\n", got.body)
		return got
	}
	const resource = "/kbs/v0/resource/default/key/disk"
	for _, version := range []evidence.Version{evidence.V040, evidence.V020} {
		got := say("POST", "/kbs/v0/auth", `{"version":"`+string(version)+`","tee":"sample","extra-params":""}`, nil)
		cookie, _, _ := strings.Cut(got.header.Get("Set-Cookie"), ";")
		challenge, err := evidence.ParseChallenge([]byte(got.body))
		must(t, err)
		shown := map[string]string{"Cookie": cookie}
		say("GET", resource, "", shown) // before it has attested
		say("POST", "/kbs/v0/attest", answerTo(t, challenge, key, version), shown)
		say("POST", "/kbs/v0/attest", answerTo(t, challenge, key, version), shown)
		say("GET", resource, "", shown)
		_, err = w.admin.SetPolicy(t.Context(), policy.ResourceName, "kbs-resource", policy.ResourceAllowAll())
		must(t, err)
		say("GET", resource, "", shown)
		say("GET", "/kbs/v0/resource/default/key/nothing", "", shown)
		say("GET", "/kbs/v0/resource/default/key", "", shown)
		say("PUT", resource, "", shown)
	}
	say("POST", "/kbs/v0/auth", `{"version":"0.1.0","tee":"sample","extra-params":""}`, nil)
	say("POST", "/kbs/v0/auth", `{"version":"0.4.0","tee":"tdx","extra-params":""}`, nil)
	say("POST", "/kbs/v0/auth", `{"version":"0.4.0","tee":"sample"}`, nil)
	say("GET", "/kbs/v0/auth", "", nil)
	say("POST", "/kbs/v0/attest", "{}", nil)
	say("GET", resource, "", nil)
	say("POST", resource, "x", nil)
	say("DELETE", resource, "", nil)
	say("GET", "/kbs/v0/nothing", "", nil)
	say("GET", "/healthz", "", nil)
	text := out.String()
	for _, v := range volatile {
		text = v.pattern.ReplaceAllString(text, v.mark)
	}
	golden := filepath.Join("testdata", "kbs.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		must(t, os.WriteFile(golden, []byte(text), 0o600))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if string(want) != text {
		t.Errorf("the transcript has changed; if that is wanted, run with UPDATE_GOLDEN=1.\nnow:\n%s", text)
	}
}
