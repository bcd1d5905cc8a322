package project

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Finding is a secret that would get into a package. It never holds the secret.
type Finding struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Kind string `json:"kind"`
	// Fingerprint stands for this value in this file: who has looked and knows
	// that it is no secret names it. It changes with the value.
	Fingerprint string `json:"fingerprint"`
}

// String is file, line, kind and fingerprint.
func (f Finding) String() string {
	return f.File + ":" + strconv.Itoa(f.Line) + ": " + f.Kind + " (" + f.Fingerprint + ")"
}

// pattern finds one kind of secret. Every match has one of the hints at its
// beginning, or a few words behind it: only what is around them is searched, which
// in an executable is a thousandth of the time.
type pattern struct {
	kind   string
	hints  []string
	quoted bool           // in place of hints: around each quoted text that may be a value
	find   *regexp.Regexp // the first group, or all, is the value
	text   bool           // only in text
	reach  int            // how far behind a hint a match may end; 1 KiB if zero
	judge  func(value []byte) bool
}

// before is how far before its hint a match may begin.
const before = 100

// patterns are forms that hardly anything but a secret has, and values assigned
// to telling names if they are long and look random.
var patterns = []pattern{
	{kind: "private key", reach: 16 << 10, hints: []string{"PRIVATE KEY"}, find: regexp.MustCompile(`-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\r|\\n|[A-Za-z-]+: [^\n]*\n)+([A-Za-z0-9+/=]{40,})`)},
	{kind: "age key", hints: []string{"AGE-SECRET-KEY-1"}, find: regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]{58}`)},
	{kind: "AWS access key", hints: []string{"AKIA", "ASIA"}, find: regexp.MustCompile(`\b(?:AKIA|ASIA)[0-9A-Z]{16}\b`), judge: noExample},
	{kind: "AWS secret key", hints: []string{"secret", "Secret", "SECRET"}, text: true, find: regexp.MustCompile(`(?i)aws.{0,20}secret.{0,20}["'\s:=]+([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)`), judge: noExample},
	{kind: "GitHub token", hints: []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"}, find: regexp.MustCompile(`\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})`), judge: random},
	{kind: "GitLab token", hints: []string{"glpat-"}, find: regexp.MustCompile(`\bglpat-[A-Za-z0-9_-]{20,}`), judge: random},
	{kind: "Slack token", hints: []string{"xox", "hooks.slack.com"}, find: regexp.MustCompile(`\bxox[abeoprs]-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}`), judge: random},
	{kind: "Google API key", hints: []string{"AIza"}, find: regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}`), judge: random},
	{kind: "Stripe key", hints: []string{"k_live_"}, find: regexp.MustCompile(`\b[rs]k_live_[A-Za-z0-9]{20,}`)},
	{kind: "package registry token", hints: []string{"npm_", "pypi-AgEI"}, find: regexp.MustCompile(`\bnpm_[A-Za-z0-9]{36}\b|\bpypi-AgEI[A-Za-z0-9_-]{50,}`), judge: random},
	{kind: "JSON web token", hints: []string{"eyJ"}, reach: 16 << 10, find: regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}`)},
	{
		kind: "assigned secret", quoted: true, text: true,
		find:  regexp.MustCompile(`(?i)(?:secret|token|passwo?r?d|api_?key|private_?key|access_?key|credential)s?["']?\s*[:=]\s*["']([A-Za-z0-9+/=_.-]{24,200})["']`),
		judge: random,
	},
}

// noExample tells real values from those of documentation.
func noExample(value []byte) bool { return !bytes.Contains(value, []byte("EXAMPLE")) }

// random reports whether a value looks like one: of letters and digits, and with
// at least 3.5 bits in a byte. Words, names and paths have less.
func random(value []byte) bool {
	var counts [256]int
	letters, digits := false, false
	for _, c := range value {
		counts[c]++
		digits = digits || c >= '0' && c <= '9'
		letters = letters || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	bits := 0.0
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / float64(len(value))
			bits -= p * math.Log2(p)
		}
	}
	return letters && digits && bits >= 3.5 && noExample(value)
}

// Secrets looks for secrets in everything that would get into a package. accepted
// are fingerprints of findings that a person has judged; one that nothing has is
// Invalid, so that the list cannot rot.
func Secrets(spec plugin.Spec, accepted []string) ([]Finding, error) {
	text, err := json.MarshalIndent(spec.Manifest, "", "  ")
	if err != nil {
		return nil, fault.Internalf("encode manifest").Because(err)
	}
	found := scan("manifest.json", text)
	for _, b := range spec.Binaries {
		data, err := readFile(b.File, manifest.MaxFileBytes)
		if err != nil {
			return nil, err
		}
		found = append(found, scan(spec.Manifest.Name+"-"+b.OS+"-"+b.Arch, data)...)
	}
	for _, s := range spec.Sources {
		data, err := readAll(s.Open, manifest.MaxFileBytes)
		if err != nil {
			return nil, fault.Wrap(err, "read %s", s.Path)
		}
		found = append(found, scan(s.Path, data)...)
	}
	for _, a := range accepted {
		before := len(found)
		found = slices.DeleteFunc(found, func(f Finding) bool { return f.Fingerprint == a })
		if len(found) == before {
			return nil, fault.Invalidf("nothing that looks like a secret has the fingerprint %q: take it from the command", a)
		}
	}
	return found, nil
}

// Refused makes the error for findings; nil for none.
func Refused(found []Finding) error {
	if len(found) == 0 {
		return nil
	}
	const most = 20
	var lines []string
	for _, f := range found[:min(len(found), most)] {
		lines = append(lines, f.String())
	}
	if len(found) > most {
		lines = append(lines, "and "+strconv.Itoa(len(found)-most)+" more")
	}
	return fault.Deniedf("this package would contain secrets, and everybody who gets it would have them; take them out, or, where a person has looked and it is none, name it with --not-secret FINGERPRINT:\n  %s",
		strings.Join(lines, "\n  "))
}

func scan(file string, data []byte) []Finding {
	var out []Finding
	text := !bytes.ContainsRune(data[:min(len(data), 8000)], 0)
	for _, p := range patterns {
		if p.text && !text {
			continue
		}
		for _, at := range p.matches(data) {
			from, to := at[0], at[1]
			if len(at) > 3 && at[2] >= 0 {
				from, to = at[2], at[3]
			}
			if p.judge != nil && !p.judge(data[from:to]) {
				continue
			}
			sum := sha256.Sum256(slices.Concat([]byte(file), []byte{0}, []byte(p.kind), []byte{0}, data[from:to]))
			out = append(out, Finding{
				File: file, Line: 1 + bytes.Count(data[:at[0]], []byte("\n")), Kind: p.kind, Fingerprint: hex.EncodeToString(sum[:8]),
			})
		}
	}
	return out
}

// matches are the places of the pattern in data, as FindAllSubmatchIndex gives
// them.
func (p pattern) matches(data []byte) [][]int {
	var out [][]int
	for _, w := range p.windows(data) {
		for _, at := range p.find.FindAllSubmatchIndex(data[w[0]:w[1]], -1) {
			for i := range at {
				if at[i] >= 0 {
					at[i] += w[0]
				}
			}
			out = append(out, at)
		}
	}
	return out
}

// windows are the parts of data around the hints, in order and apart from each
// other.
func (p pattern) windows(data []byte) [][2]int {
	reach := cmp.Or(p.reach, 1<<10)
	var all [][2]int
	if p.quoted {
		all = aroundQuoted(data)
	}
	for _, h := range p.hints {
		for from := 0; ; {
			i := bytes.Index(data[from:], []byte(h))
			if i < 0 {
				break
			}
			at := from + i
			all = append(all, [2]int{max(0, at-before), min(len(data), at+reach)})
			from = at + len(h)
		}
	}
	slices.SortFunc(all, func(a, b [2]int) int { return cmp.Compare(a[0], b[0]) })
	var out [][2]int
	for _, w := range all {
		if n := len(out); n > 0 && w[0] <= out[n-1][1] {
			out[n-1][1] = max(out[n-1][1], w[1])
			continue
		}
		out = append(out, w)
	}
	return out
}

// aroundQuoted are the places of quoted texts that are as long as an assigned
// secret and made of the same bytes, each with what stands before it.
func aroundQuoted(data []byte) [][2]int {
	var out [][2]int
	for i := 0; i < len(data); i++ {
		if !quote(data[i]) {
			continue
		}
		end := i + 1
		for end < len(data) && ofValue[data[end]] {
			end++
		}
		if n := end - i - 1; n >= 24 && n <= 200 && end < len(data) && quote(data[end]) {
			out = append(out, [2]int{max(0, i-before), end + 1})
		}
		i = end - 1 // a quote that ends one text may begin the next
	}
	return out
}

func quote(c byte) bool { return c == '"' || c == '\'' }

// ofValue are the bytes of which an assigned secret is made.
var ofValue = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_.-") {
		set[c] = true
	}
	return set
}()
