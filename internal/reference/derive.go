package reference

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// rule says which claim the policy default_cpu compares with which value.
type rule struct {
	claim string // path, with dots
	name  string
	list  bool // the value lists what is accepted; else it is one
}

// rules are those of default_cpu, per kind of evidence, in the names of Trustee.
// Kernel and parameters of a TD are found in an event log, not in a claim of
// their own: they are set by hand.
var rules = map[evidence.TEE][]rule{
	evidence.Sample: {
		{"launch_digest", "launch_digest", true},
		{"svn", "svn", true},
		{"platform_version.major", "major_version", false},
		{"platform_version.minor", "minimum_minor_version", false},
	},
	evidence.Snp: {
		{"measurement", "snp_launch_measurement", true},
		{"reported_tcb_bootloader", "snp_bootloader", true},
		{"reported_tcb_microcode", "snp_microcode", true},
		{"reported_tcb_snp", "snp_snp_svn", true},
		{"reported_tcb_tee", "snp_tee_svn", true},
		{"platform_smt_enabled", "snp_smt_enabled", false},
		{"platform_tsme_enabled", "snp_tsme_enabled", false},
		{"policy_abi_major", "snp_guest_abi_major", false},
		{"policy_abi_minor", "snp_guest_abi_minor", false},
		{"policy_single_socket", "snp_single_socket", false},
		{"policy_smt_allowed", "snp_smt_allowed", false},
	},
	evidence.Tdx: {
		{"quote.body.mr_td", "mr_td", true},
		{"quote.body.rtmr_1", "rtmr_1", true},
		{"quote.body.rtmr_2", "rtmr_2", true},
		{"quote.body.xfam", "xfam", true},
	},
	evidence.AzSnpVtpm: {
		{"measurement", "measurement", true},
		{"tpm.pcr11", "snp_pcr11", true},
		{"reported_tcb_bootloader", "tcb_bootloader", true},
		{"reported_tcb_microcode", "tcb_microcode", true},
		{"reported_tcb_snp", "tcb_snp", true},
		{"reported_tcb_tee", "tcb_tee", true},
		{"platform_smt_enabled", "smt_enabled", true},
		{"platform_tsme_enabled", "tsme_enabled", true},
		{"policy_abi_major", "abi_major", true},
		{"policy_abi_minor", "abi_minor", true},
		{"policy_single_socket", "single_socket", true},
		{"policy_smt_allowed", "smt_allowed", true},
	},
	evidence.AzTdxVtpm: {
		{"tpm.pcr11", "tdx_pcr11", true}, {"quote.body.mr_td", "mr_td", true}, {"quote.body.xfam", "xfam", true},
	},
	evidence.Tpm: {{"ak_public", "trusted_aks", true}, {"pcr11", "tpm_pcr11", true}},
}

// Comparison is one claim beside the value that policies compare it with.
type Comparison struct {
	Name   string          `json:"name"`
	Claim  string          `json:"claim"`
	Seen   json.RawMessage `json:"seen"`             // in the evidence
	Stored json.RawMessage `json:"stored,omitempty"` // absent if there is none, or it has expired
	// Match says that the value accepts the claim: it is equal to it, or lists it.
	Match bool `json:"match"`
}

// Compare puts the claims of genuine evidence beside the values that stored gives
// by name, nil for none. Evidence whose policy compares nothing is Invalid.
func Compare(tee evidence.TEE, claims map[string]any, stored func(name string) json.RawMessage) ([]Comparison, error) {
	list := rules[tee]
	if list == nil {
		return nil, fault.Invalidf("no reference values are known for evidence of kind %s", tee)
	}
	var out []Comparison
	for _, r := range list {
		seen, ok := find(claims, r.claim)
		if !ok {
			continue
		}
		text, err := canon.JCS(seen)
		if err != nil {
			return nil, fault.Invalidf("the claim %s cannot be read", r.claim).Because(err)
		}
		c := Comparison{Name: r.name, Claim: string(tee) + "." + r.claim, Seen: text, Stored: stored(r.name)}
		c.Match = accepts(c.Stored, text, r.list)
		out = append(out, c)
	}
	return out, nil
}

func find(claims map[string]any, path string) (any, bool) {
	var v any = claims
	for _, name := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[name]; !ok {
			return nil, false
		}
	}
	return v, true
}

func accepts(stored, seen json.RawMessage, list bool) bool {
	if !list {
		return same(stored, seen)
	}
	return slices.ContainsFunc(members(stored), func(m json.RawMessage) bool { return same(m, seen) })
}

func same(a, b json.RawMessage) bool {
	one, err1 := canon.Transform(a)
	two, err2 := canon.Transform(b)
	return err1 == nil && err2 == nil && bytes.Equal(one, two)
}

// members are those of a JSON list, none of anything else.
func members(text json.RawMessage) []json.RawMessage {
	var list []json.RawMessage
	if len(text) == 0 || canon.Lenient(text, MaxValue, depth, &list) != nil {
		return nil
	}
	return list
}

// Record makes the settings by which a comparison matches: a list gets one member
// more, and with alone is replaced by it; what is no list is replaced. What
// matches already is left out.
func Record(list []Comparison, alone bool) ([]Setting, error) {
	var out []Setting
	for _, c := range list {
		tee, claim, _ := strings.Cut(c.Claim, ".")
		i := slices.IndexFunc(rules[evidence.TEE(tee)], func(r rule) bool { return r.claim == claim })
		if i < 0 {
			return nil, fault.Invalidf("the claim %s has no reference value", clip(c.Claim))
		}
		next := c.Seen
		if rules[evidence.TEE(tee)][i].list {
			all := []json.RawMessage{c.Seen}
			if before := members(c.Stored); !alone && len(before) > 0 {
				if c.Match {
					continue
				}
				all = append(before, c.Seen)
			}
			var err error
			if next, err = json.Marshal(all); err != nil {
				return nil, fault.Wrap(err, "encode reference value")
			}
		}
		if !same(c.Stored, next) {
			out = append(out, Setting{Name: c.Name, JSON: next})
		}
	}
	return out, nil
}
