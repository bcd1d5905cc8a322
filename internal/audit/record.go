package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Outcome says how the recorded attempt ended.
type Outcome string

// The outcomes. A denied attempt changed nothing; a failed one may have
// changed something outside, and its reasons say what.
const (
	Done   Outcome = "done"
	Denied Outcome = "denied"
	Failed Outcome = "failed"
)

// Record is one entry of the ledger: who did what to which thing, and why it
// was decided so. It never holds a secret, and persons only by reference.
//
// The stored form is RFC 8785 JSON of exactly these members, and that byte
// string is the leaf of the tree. 64-bit numbers travel as strings. Type is at
// the same time the event's type: a noun and a verb in the past, for example
// grant.issued.
type Record struct {
	Version int               `json:"v"` // of this form, now 1
	ID      string            `json:"id"`
	Type    string            `json:"type"`
	At      time.Time         `json:"at"` // UTC, microseconds
	Outcome Outcome           `json:"outcome"`
	Actor   Actor             `json:"actor"`
	Subject string            `json:"subject,omitempty"` // whose state or grant it concerns
	Serial  string            `json:"serial,omitempty"`  // the subject's version after it, in decimal: the order per subject
	Grant   string            `json:"grant,omitempty"`   // the grant it concerns
	Target  string            `json:"target,omitempty"`  // any other thing: a resource path, a policy, a plugin
	Reasons []string          `json:"reasons,omitempty"` // codes and sentences of the decision
	Policy  []string          `json:"policy,omitempty"`  // name@version of each document that decided
	Data    map[string]string `json:"data,omitempty"`    // facts of this type of record
}

// Actor is who asked.
type Actor struct {
	Subject string `json:"subject,omitempty"` // id; empty for the system itself, plugins and strangers
	Kind    string `json:"kind"`              // workload, machine, agent, operator, plugin, system or stranger
	Session string `json:"session,omitempty"` // id of the session token
	Via     string `json:"via,omitempty"`     // the door: rest, kbs, cli, sweeper, ...
	Address string `json:"address,omitempty"` // network address, without the port
	// Issuer and Bearer are iss and sub of the token of somebody else by which a door
	// let its holder act as the subject; see [Claimed].
	Issuer string `json:"iss,omitempty"`
	Bearer string `json:"sub,omitempty"`
}

// Claimed is how a claim of a token that others made is recorded: as it is, or, where
// it is longer than 256 bytes or not printable, as its SHA-256.
func Claimed(text string) string {
	const longest = 256
	if len(text) <= longest && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// System is the actor of what Sallyport does on its own account.
func System(via string) Actor { return Actor{Kind: "system", Via: via} }

// Plugin is the actor of what a plugin has done for it, under its name.
func Plugin(name string) Actor { return Actor{Kind: "plugin", Via: "plugin:" + name} }

// Filter selects entries of the ledger in the order of their positions. Zero
// members do not restrict.
type Filter struct {
	From    uint64 // first position
	Type    string // whole type, or a noun followed by a dot: "grant."
	Subject string
	Grant   string
	Limit   int
	Newest  bool // the newest first, From then being the last position plus one (0: all)
}

// Entry is a record in its place.
type Entry struct {
	Position uint64
	Leaf     []byte // the exact stored bytes
}
