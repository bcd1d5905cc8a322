package arch

import "strings"

// library is a third-party module and its doors: the packages that may import
// it. A door that ends in /... includes the packages below. The reasons and
// versions are in docs/dependencies.md.
type library struct {
	doors   []string // any file
	tests   []string // _test files only
	testing bool     // a tool for tests: every _test file and every test double, nothing else
}

// libraries is complete: an import of anything else fails. More than one door
// is an exception of docs/decisions, and says which.
var libraries = map[string]library{
	"github.com/danielgtaylor/huma/v2":                  {doors: []string{"internal/api/rest"}},
	"github.com/go-json-experiment/json":                {doors: []string{"internal/canon"}},
	"github.com/goccy/go-yaml":                          {doors: []string{"internal/app"}},
	"github.com/gowebpki/jcs":                           {tests: []string{"internal/canon"}}, // the oracle of our own encoder
	"github.com/jackc/pgx/v5":                           {doors: []string{"internal/store", "internal/store/annex"}},
	"github.com/oklog/ulid/v2":                          {doors: []string{"internal/id"}},
	"github.com/open-policy-agent/opa":                  {doors: []string{"internal/policy"}},
	"github.com/pressly/goose/v3":                       {doors: []string{"internal/store"}},
	"github.com/prometheus/client_golang":               {doors: []string{"internal/obs"}},
	"github.com/secure-systems-lab/go-securesystemslib": {doors: []string{"internal/plugin", "internal/plugin/repository"}},
	"github.com/spf13/cobra":                            {doors: []string{"internal/cli"}},
	"github.com/theupdateframework/go-tuf/v2":           {doors: []string{"internal/plugin/repository"}},
	"github.com/transparency-dev/merkle":                {doors: []string{"internal/audit"}},
	"charm.land/lipgloss/v2":                            {doors: []string{"internal/cli"}},
	"golang.org/x/mod":                                  {doors: []string{"internal/audit"}, tests: []string{"internal/plugin"}}, // the oracle of our order of versions
	"modernc.org/sqlite":                                {doors: []string{"internal/store", "internal/store/annex", "sdk/plugintest/sqlite"}},

	// Tokens are JOSE; the sealer is our own and is checked against it.
	"github.com/go-jose/go-jose/v4": {doors: []string{"internal/token"}, tests: []string{"internal/seal"}},

	// Both ends of the plugin pipe, and the operators' gRPC door.
	// test/load measures beside a bare client.
	"github.com/hashicorp/go-plugin": {doors: []string{"internal/plugin/...", "sdk/plugin/...", "test/load"}},
	"github.com/hashicorp/go-hclog":  {doors: []string{"internal/plugin/...", "sdk/plugin/...", "test/load"}},
	"google.golang.org/grpc":         {doors: []string{"api/...", "internal/plugin/...", "sdk/plugin/...", "sdk/plugintest", "internal/api/admin", "test/load"}},
	"google.golang.org/protobuf":     {doors: []string{"api/...", "internal/plugin/...", "sdk/plugin/...", "sdk/plugintest", "internal/api/admin", "test/load"}},

	// Extensions of the standard library, where it ends.
	"golang.org/x/crypto": {
		doors: []string{"internal/keys/...", "internal/provider/...", "plugins/sshcert"},
		tests: []string{"cmd/...", "internal/...", "test/..."},
	},
	"golang.org/x/sys":  {doors: []string{"internal/plugin/...", "internal/store", "internal/keys/...", "internal/app", "internal/cli"}},
	"golang.org/x/time": {doors: []string{"internal/api/...", "internal/app"}},

	"github.com/google/go-cmp":        {testing: true},
	"github.com/rogpeppe/go-internal": {testing: true},
	"go.uber.org/goleak":              {testing: true},
	"pgregory.net/rapid":              {testing: true},
}

// banned are packages of otherwise accepted libraries, and of the standard
// library, that nobody imports outside tests.
var banned = map[string]string{
	"golang.org/x/crypto/openpgp": "it is unmaintained",
	"math/rand":                   "it can be guessed: use crypto/rand",
	"math/rand/v2":                "it can be guessed: use crypto/rand",
	"log":                         "use log/slog with a logger from the Config",
	"io/ioutil":                   "use io and os",
}

// excused are packages that must import what is banned, with the reason.
var excused = map[string]map[string]string{
	"internal/app":                {"log": "net/http's server names its type"},
	"sdk":                         {"math/rand/v2": "spreads retries in time and guards nothing"},
	"internal/plugin/conformance": {"math/rand/v2": "makes the same cases each time and guards nothing"},
	"internal/plugin": {
		"log":          "go-plugin's logger interface names its type",
		"math/rand/v2": "spreads restarts in time and guards nothing",
	},
}

// plainRooms import the standard library and the house, nothing else, so that
// whoever reviews them needs to know nothing else (docs/decisions). A path that
// ends in .go is one file.
var plainRooms = []string{
	"internal/secret", "internal/fault", "internal/seal", "internal/subject", "internal/grant", "internal/signal",
	"internal/canon/canon.go", "internal/canon/transform.go", "internal/canon/value.go", "internal/canon/write.go", // the encoder
}

// libraryOf gives the module in the table that an import path belongs to.
func libraryOf(path string) (name string, lib library, ok bool) {
	for m, l := range libraries {
		if (path == m || strings.HasPrefix(path, m+"/")) && len(m) > len(name) {
			name, lib, ok = m, l, true
		}
	}
	return name, lib, ok
}

// covers reports whether one of the doors is the package's.
func covers(doors []string, pkg string) bool {
	for _, d := range doors {
		above, tree := strings.CutSuffix(d, "/...")
		if pkg == above || tree && strings.HasPrefix(pkg, above+"/") {
			return true
		}
	}
	return false
}

// foreign reports whether an import is neither the house's nor the standard
// library's, whose first elements have no dot.
func foreign(path string) bool {
	if path == module || strings.HasPrefix(path, module+"/") {
		return false
	}
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".")
}
