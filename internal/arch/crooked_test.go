package arch

import (
	"strings"
	"testing"
)

// TestRules_SeeACrookedHouse builds a wrong thing for every rule: a rule that
// cannot fail proves nothing.
func TestRules_SeeACrookedHouse(t *testing.T) {
	const ours = module + "/"
	long := "package grant\n" + strings.Repeat("\n", maxLines+1)
	for _, c := range []struct {
		name  string
		rule  rule
		path  string
		src   string
		wants string // part of the breach; empty for none
	}{
		{"a noun imports flow", climbs, "internal/grant/x.go", `package grant; import _ "` + ours + `internal/flow"`, "ladder"},
		{"a noun imports an unlisted noun", climbs, "internal/audit/x.go", `package audit; import _ "` + ours + `internal/grant"`, "ladder"},
		{"a noun imports a listed noun", climbs, "internal/grant/x.go", `package grant; import _ "` + ours + `internal/subject"`, ""},
		{"a noun is a row", climbs, "internal/policy/x.go", `package policy; import _ "` + ours + `internal/unit"`, ""},
		{"the record knows no unit", climbs, "internal/audit/x.go", `package audit; import _ "` + ours + `internal/unit"`, "ladder"},
		{"an adapter imports another", climbs, "internal/provider/static/x.go", `package static; import _ "` + ours + `internal/provider/ssh"`, "ladder"},
		{"an adapter imports flow", climbs, "internal/store/x.go", `package store; import _ "` + ours + `internal/flow"`, "ladder"},
		{"an adapter has rooms of its own", climbs, "internal/store/dialect/x.go", `package dialect; import _ "` + ours + `internal/store/rows"`, ""},
		{"an adapter fills a noun's port", climbs, "internal/keys/file/x.go", `package file; import _ "` + ours + `internal/keys"`, ""},
		{"a door imports an adapter", climbs, "internal/api/rest/x.go", `package rest; import _ "` + ours + `internal/store"`, "ladder"},
		{"a door imports another", climbs, "internal/api/rest/x.go", `package rest; import _ "` + ours + `internal/api/kbs"`, "ladder"},
		{"a door calls a verb", climbs, "internal/api/kbs/x.go", `package kbs; import _ "` + ours + `internal/flow"`, ""},
		{"the app wires", climbs, "internal/app/x.go", `package app; import (_ "` + ours + `internal/store"; _ "` + ours + `internal/api/kbs")`, ""},
		{"the sdk looks inside", climbs, "sdk/plugin/x.go", `package plugin; import _ "` + ours + `internal/secret"`, "ladder"},
		{"a contract looks inside", climbs, "api/schema/x.go", `package schema; import _ "` + ours + `internal/fault"`, "ladder"},
		{"a plugin looks inside", climbs, "plugins/sshcert/x.go", `package main; import _ "` + ours + `internal/grant"`, "ladder"},
		{"a stone imports a noun", climbs, "internal/obs/x.go", `package obs; import _ "` + ours + `internal/grant"`, "ladder"},
		{"the command wires by itself", climbs, "cmd/sallyport/x.go", `package main; import _ "` + ours + `internal/app"`, "ladder"},
		{"a test double in the product", climbs, "internal/app/x.go", `package app; import _ "` + ours + `internal/store/storetest"`, "for tests"},
		{"a test looks anywhere", climbs, "internal/grant/x_test.go", `package grant; import _ "` + ours + `internal/store/storetest"`, ""},
		{"a package without a room", climbs, "internal/stuff/x.go", `package stuff`, "no room"},

		{"a back door", backDoors, "internal/flow/x.go", `package flow; import _ "github.com/open-policy-agent/opa/v1/rego"`, "doors are"},
		{"the front door", backDoors, "internal/policy/x.go", `package policy; import _ "github.com/open-policy-agent/opa/v1/rego"`, ""},
		{"below a wide door", backDoors, "internal/plugin/host/x.go", `package host; import _ "google.golang.org/grpc/codes"`, ""},
		{"below a narrow door", backDoors, "internal/store/rows/x.go", `package rows; import _ "modernc.org/sqlite"`, "doors are"},
		{"a double of the room with the door", backDoors, "internal/store/storetest/x.go", `package storetest; import _ "github.com/jackc/pgx/v5"`, ""},
		{"a double of another room", backDoors, "internal/flow/flowtest/x.go", `package flowtest; import _ "github.com/jackc/pgx/v5"`, "doors are"},
		{"a library for tests in code", backDoors, "internal/flow/x.go", `package flow; import _ "go.uber.org/goleak"`, "for tests only"},
		{"a library for tests in a double", backDoors, "internal/store/storetest/x.go", `package storetest; import _ "pgregory.net/rapid"`, ""},
		{"an oracle in a test", backDoors, "internal/seal/x_test.go", `package seal; import _ "github.com/go-jose/go-jose/v4"`, ""},
		{"an oracle in code", backDoors, "internal/seal/x.go", `package seal; import _ "github.com/go-jose/go-jose/v4"`, "doors are"},
		{"an unknown library", backDoors, "internal/flow/x.go", `package flow; import _ "example.org/left/pad"`, "does not know"},
		{"a module with a longer name", backDoors, "internal/audit/x.go", `package audit; import _ "golang.org/x/modern"`, "does not know"},

		{"a plain room with a library", impure, "internal/grant/x.go", `package grant; import _ "golang.org/x/sync/errgroup"`, "standard library alone"},
		{"a plain file with a library", impure, "internal/canon/write.go", `package canon; import _ "github.com/gowebpki/jcs"`, "standard library alone"},
		{"its neighbour with a library", impure, "internal/canon/strict.go", `package canon; import _ "github.com/go-json-experiment/json"`, ""},

		{"a guessable number", bans, "internal/id/x.go", `package id; import _ "math/rand/v2"`, "guessed"},
		{"an excused guessable number", bans, "internal/plugin/x.go", `package plugin; import _ "math/rand/v2"`, ""},
		{"a global log", bans, "internal/flow/x.go", `package flow; import _ "log"`, "slog"},

		{"a package without a comment", undocumented, "internal/grant/grant.go", `package grant`, "no package comment"},
		{"a comment in the wrong file", undocumented, "internal/grant/lease.go", "// Package grant is.\npackage grant", "belongs into"},
		{"a comment about something else", undocumented, "internal/grant/grant.go", "// Grants are.\npackage grant", "begins with"},
		{"a good comment", undocumented, "internal/grant/grant.go", "// Package grant is.\npackage grant", ""},

		{"a long file", oversized, "internal/grant/x.go", long, "more than"},
		{"a long generated file", oversized, "internal/grant/x.go", "// Code generated by x. DO NOT EDIT.\n" + long, ""},
		{"an empty name", misnamed, "internal/util/x.go", `package util`, "says nothing"},
		{"an init function", hiddenStarts, "internal/store/x.go", "package store\nfunc init() {}", "no init"},
		{"a method called init", hiddenStarts, "internal/store/x.go", "package store\nfunc (s S) init() {}", ""},
		{"a read of the environment", hiddenInputs, "internal/store/x.go", "package store\nimport sys \"os\"\nvar x = sys.Getenv(\"X\")", "environment"},
		{"a read by the app", hiddenInputs, "internal/app/x.go", "package app\nimport \"os\"\nvar x = os.Getenv(\"X\")", ""},
		{"a clock in a verb", hiddenClocks, "internal/flow/x.go", "package flow\nimport \"time\"\nvar x = time.Now()", "now func"},
		{"a clock handed in", hiddenClocks, "internal/flow/x.go", "package flow\nimport \"time\"\nvar now = time.Now", ""},
		{"a promise to nobody", promises, "internal/flow/x.go", "package flow\n// " + "TODO: later\n", "issue"},
		{"a promise with an issue", promises, "internal/flow/x.go", "package flow\n// " + "TODO(#7): later\n", ""},
		{"a reveal that nobody listed", unlisted, "internal/event/x.go", "package event\nvar x = s.Reveal()", "reveal.txt"},
		{"a reveal that ended", unlisted, "internal/seal/x.go", "package seal", "no longer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := parse(c.path, []byte(c.src))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(c.rule(tree{f}), "\n")
			if c.wants == "" && got != "" || !strings.Contains(got, c.wants) {
				t.Errorf("got %q, want %q", got, c.wants)
			}
		})
	}
}
