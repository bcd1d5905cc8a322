package arch

import "strings"

// room is a kind of package. Imports between rooms follow ladder.
type room string

const (
	command  room = "command"  // cmd/*: hands over to cli
	cli      room = "cli"      // commands
	app      room = "app"      // configuration and wiring: the only one who sees adapters and doors together
	door     room = "door"     // decodes, calls a verb, encodes
	flow     room = "flow"     // the four verbs
	noun     room = "noun"     // the words of the domain, with their ports
	adapter  room = "adapter"  // a port filled by a technology
	stone    room = "stone"    // what everything rests on
	contract room = "contract" // api/*: wire contracts, importable by anyone
	sdk      room = "sdk"      // what users of the module import
	extra    room = "plugin"   // plugins/*: first-party plugins, written with the SDK alone
	page     room = "page"     // web: templates and assets
	proof    room = "proof"    // test/* and this package: may see everything
)

// ladder says which rooms a room may import. Inside one home (a package and
// those below it) imports are free.
var ladder = map[room][]room{
	command:  {cli},
	cli:      {app, sdk, contract, stone}, // and the nouns in edges
	app:      {app, door, flow, noun, adapter, stone, contract, page},
	door:     {flow, noun, stone, contract, page},
	flow:     {noun, stone},
	noun:     {stone}, // and the nouns and contracts in edges
	adapter:  {noun, stone, contract},
	stone:    {}, // and the stones in edges
	contract: {contract},
	sdk:      {sdk, contract},
	extra:    {sdk, contract},
	page:     {},
	proof:    {command, cli, app, door, flow, noun, adapter, stone, contract, sdk, page, proof},
}

// rooms places packages by path; a path ending in /* covers every folder
// directly below, each a home of its own. The longest match counts.
var rooms = map[string]room{
	"cmd/*":         command,
	"internal/cli":  cli,
	"internal/app":  app,
	"internal/flow": flow,

	"internal/api/*": door,

	"internal/subject":   noun,
	"internal/evidence":  noun,
	"internal/token":     noun,
	"internal/policy":    noun,
	"internal/resource":  noun,
	"internal/reference": noun,
	"internal/grant":     noun,
	"internal/seal":      noun,
	"internal/signal":    noun,
	"internal/notify":    noun,
	"internal/event":     noun,
	"internal/audit":     noun,
	"internal/plugin":    noun,
	"internal/licence":   noun,
	"internal/monitor":   noun,
	"internal/unit":      noun,
	"internal/keys":      noun,

	"internal/verifier/*": adapter,
	"internal/attester/*": adapter,
	"internal/provider/*": adapter,
	"internal/channel/*":  adapter,
	"internal/keys/*":     adapter,
	"internal/bus/*":      adapter,
	"internal/store":      adapter,

	"internal/reference/fetch":   adapter,
	"internal/plugin/local":      adapter,
	"internal/plugin/repository": adapter,
	"internal/plugin/sandbox":    adapter,

	"internal/fault":  stone,
	"internal/id":     stone,
	"internal/secret": stone,
	"internal/canon":  stone,
	"internal/obs":    stone,
	"internal/toml":   stone,

	"api":            contract,
	"python":         contract,
	"sdk":            sdk,
	"sdk/plugin/cli": sdk, // a home of its own: it reads the environment
	"plugins/*":      extra,
	"web":            page,
	"test":           proof,
	"internal/arch":  proof,
}

// edges are the imports beyond the ladder, each with its reason. policy, audit
// and event take plain facts and import no noun but unit.
var edges = map[string]map[string]string{
	// Every noun that is stored describes its rows as writes of a unit.
	"*": {"internal/unit": "a noun that is stored is a row"},

	"internal/unit":     {"internal/audit": "a unit carries its record"},
	"internal/evidence": {"internal/seal": "evidence binds the key that a secret is sealed to"},
	"internal/grant": {
		"internal/subject":  "a grant is somebody's",
		"internal/resource": "a released resource is a grant",
	},
	"internal/reference": {"internal/evidence": "an endorsement is what verifiers read"},
	"internal/signal":    {"internal/grant": "a signal finds grants"},
	"internal/token": {
		"internal/subject":  "a token is a subject's",
		"internal/evidence": "an attestation token carries a verdict",
		"internal/seal":     "an attestation token carries the key that secrets are sealed to",
	},
	"internal/plugin": {
		"api":               "the host speaks the contracts",
		"python":            "plugin build packs our SDK into projects in Python",
		"internal/event":    "an extension is told of events",
		"internal/grant":    "a plugin fills grant's provider port",
		"internal/notify":   "a plugin fills notify's channel port",
		"internal/evidence": "a plugin fills evidence's verifier port",
		"internal/signal":   "a plugin reports leaks",
	},
	"internal/api/extension": {"internal/api/rest": "routes of extensions are guarded as our own API is"},

	"internal/policy": {"api": "schemas of a decision's input"},

	"internal/cli": {
		"internal/audit":             "audit verify works offline",
		"internal/plugin":            "plugin verify works offline",
		"internal/plugin/local":      "CLI plugins are this user's own (docs/decisions/0021)",
		"internal/plugin/sandbox":    "plugin conformance confines a plugin as a server does, and CLI plugins are confined",
		"internal/plugin/repository": "plugin publish and plugin repository work offline (docs/decisions/0016)",
		"internal/policy":            "policy test works offline",
		"internal/reference":         "reference record and diff compare offline",
		"internal/evidence":          "the key broker's guest speaks its protocol (docs/decisions/0008)",
		"internal/seal":              "the guest opens what is sealed to its key (docs/decisions/0008)",
		"internal/attester/guest":    "kbs attest and kbs get are a guest (docs/decisions/0008)",
		"internal/attester/sample":   "a guest shows evidence (docs/decisions/0008)",
	},

	"internal/verifier/azure": {
		"internal/verifier/snp": "evidence of Azure contains a report of SNP",
		"internal/verifier/tdx": "evidence of Azure contains a quote of TDX",
		"internal/verifier/tpm": "evidence of Azure contains a quote of a TPM",
	},

	"internal/canon": {"internal/fault": "bad JSON is Invalid"},
	"internal/toml":  {"internal/fault": "bad TOML is Invalid"},
	"internal/obs": {
		"internal/fault": "a log line names the kind of a fault",
		"internal/id":    "a request gets an id",
	},
}

// module is the path that all of the house's own imports begin with.
const module = "github.com/sallyport-project/sallyport"

// place gives the room of a package and its home, the highest package of the
// same kind that it belongs to.
func place(pkg string) (r room, home string, ok bool) {
	for path := pkg; ; {
		if r, ok = rooms[path]; ok {
			return r, path, true
		}
		up, _, below := cutLast(path)
		if !below {
			return "", "", false
		}
		if r, ok = rooms[up+"/*"]; ok {
			return r, path, true
		}
		path = up
	}
}

// judge says why one package may not import another, or nothing.
func judge(from, to string) string {
	fr, fromHome, ok := place(from)
	if !ok {
		return "has no room: name it in internal/arch/ladder.go"
	}
	tr, toHome, ok := place(to)
	if !ok {
		return "imports " + to + ", which has no room: name it in internal/arch/ladder.go"
	}
	if double(to) && !double(from) && fr != proof {
		return "imports " + to + ", which is for tests"
	}
	if fromHome == toHome {
		return ""
	}
	for _, r := range ladder[fr] {
		if r == tr {
			return ""
		}
	}
	if _, listed := edges[fromHome][toHome]; listed {
		return ""
	}
	if _, listed := edges["*"][toHome]; listed && fr == noun && fromHome != "internal/audit" {
		return ""
	}
	return "(" + string(fr) + ") imports " + to + " (" + string(tr) + "): imports go down the ladder only; " +
		"move the code, define a port where it is used, or list the edge with its reason in internal/arch/ladder.go"
}

// double reports whether a package holds test doubles: its name ends in test.
func double(pkg string) bool {
	_, name, below := cutLast(pkg)
	return below && strings.HasSuffix(name, "test")
}

func cutLast(path string) (before, after string, found bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}
