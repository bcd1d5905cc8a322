package evidence

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/json"
	"strings"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/toml"
)

// MaxInitData is the size limit of the init-data text, in bytes.
const MaxInitData = 512 << 10

// InitData is configuration that the guest was started with and that its
// evidence measures.
type InitData struct {
	Format string `json:"format"` // always toml
	Body   string `json:"body"`
}

func (d InitData) check() error {
	if d.Format != "toml" {
		return fault.Invalidf("the format of init-data must be toml")
	}
	if len(d.Body) > MaxInitData {
		return fault.Invalidf("the init-data is larger than %d bytes", MaxInitData)
	}
	return nil
}

// Measured is init-data that was read.
type Measured struct {
	Algorithm string         // sha256, sha384 or sha512
	Digest    []byte         // of the raw text
	Claims    map[string]any // what the text says, for policies and the token
}

// Measure hashes the raw text with the algorithm that it names and reads its
// data table. Entries aa.toml and cdh.toml become JSON if they can be read, and
// policy.rego becomes agent_policy_claims if it holds a policy_data object;
// otherwise they stay text. sm3 is not supported.
func (d InitData) Measure() (Measured, error) {
	if err := d.check(); err != nil {
		return Measured{}, err
	}
	root, err := toml.Parse(d.Body)
	if err != nil {
		return Measured{}, fault.Invalidf("the init-data is not readable TOML: %s", fault.Public(err)).Because(err)
	}
	algorithm, _ := root["algorithm"].(string)
	digest, err := hashInitData(algorithm, []byte(d.Body))
	if err != nil {
		return Measured{}, err
	}
	if v, ok := root["version"].(string); !ok || v == "" {
		return Measured{}, fault.Invalidf("the init-data must have a version")
	}
	data, ok := root["data"].(map[string]any)
	if !ok {
		return Measured{}, fault.Invalidf("the init-data must have a table named data")
	}
	claims := make(map[string]any, len(data))
	for name, v := range data {
		text, ok := v.(string)
		if !ok {
			return Measured{}, fault.Invalidf("every entry of the init-data's data table must be a string")
		}
		readEntry(claims, name, text)
	}
	return Measured{algorithm, digest, claims}, nil
}

func hashInitData(algorithm string, text []byte) ([]byte, error) {
	switch algorithm {
	case "sha256":
		s := sha256.Sum256(text)
		return s[:], nil
	case "sha384":
		s := sha512.Sum384(text)
		return s[:], nil
	case "sha512":
		s := sha512.Sum512(text)
		return s[:], nil
	default:
		return nil, fault.Invalidf("the algorithm of init-data must be sha256, sha384 or sha512")
	}
}

func readEntry(claims map[string]any, name, text string) {
	switch name {
	case "aa.toml", "cdh.toml":
		if t, err := toml.Parse(text); err == nil {
			claims[name] = t
			return
		}
	case "policy.rego":
		if p, ok := policyData(text); ok {
			claims["agent_policy_claims"] = p
			return
		}
	}
	claims[name] = text
}

// policyData finds the object that a guest agent's policy assigns to
// policy_data.
func policyData(rego string) (map[string]any, bool) {
	const mark = "policy_data := {"
	i := strings.Index(rego, mark)
	if i < 0 {
		return nil, false
	}
	// The decoder finds where the object ends; what it holds is read strictly.
	var raw json.RawMessage
	if err := json.NewDecoder(strings.NewReader(rego[i+len(mark)-1:])).Decode(&raw); err != nil {
		return nil, false
	}
	var m map[string]any
	if err := canon.Lenient(raw, MaxInitData, maxDepth, &m); err != nil {
		return nil, false
	}
	return m, true
}

// Fit brings a digest to the width of a field in hardware evidence, as Trustee
// does: zeros behind a shorter one, a longer one cut. It copies and accepts
// every length.
func Fit(digest []byte, width int) []byte {
	out := make([]byte, width)
	copy(out, digest)
	return out
}

// Matches reports in constant time whether a field of evidence carries a
// digest. The field may be wider if the rest is zero; a field narrower than 32
// bytes, or an empty digest, never matches.
func Matches(field, digest []byte) bool {
	if len(digest) == 0 || len(field) < sha256.Size {
		return false
	}
	return subtle.ConstantTimeCompare(field, Fit(digest, len(field))) == 1 && !bytes.Equal(field, make([]byte, len(field)))
}
