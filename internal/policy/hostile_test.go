package policy

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// A stack that overflows cannot be recovered from: depth must be refused, not
// survived.
func TestCompile_refusesDepth(t *testing.T) {
	const n = MaxSource - 4096
	tests := map[string]string{
		"arrays":         "release := " + strings.Repeat("[", n),
		"closed arrays":  "release := " + strings.Repeat("[", n/2) + strings.Repeat("]", n/2),
		"objects":        "release := " + strings.Repeat(`{"a":`, n/5),
		"parentheses":    "release := " + strings.Repeat("(", n),
		"closed parens":  "release := " + strings.Repeat("(", n/2) + "1" + strings.Repeat(")", n/2),
		"comprehensions": "release := " + strings.Repeat("[x|", n/3),
		"calls":          "release := " + strings.Repeat("count(", n/6),
		"references":     "release := input" + strings.Repeat("[input", n/6),
		"else":           "release := {\"allow\": false} if false" + strings.Repeat("\nelse := {\"allow\": false} if false", n/40),
		"sums":           "release := 1" + strings.Repeat("+1", n/2),
		"unions":         "release := {1}" + strings.Repeat("|{1}", n/16),
		"every":          "release := {\"allow\": false} if { " + strings.Repeat("every x in [1] { ", n/17),
		"bodies":         "release := {\"allow\": false} if " + strings.Repeat("{", n),
		"dots":           "release := {\"allow\": input" + strings.Repeat(".a", n/2) + "}",
		"withs":          "release := {\"allow\": false} if { true" + strings.Repeat(" with input.a as 1", n/18) + "}",
	}
	var rules, members, loops strings.Builder
	for i := range 2500 {
		fmt.Fprintf(&rules, "release := {\"allow\": false, \"reasons\": [\"r%d\", input.a%d]} if input.a%d\n", i, i, i)
		fmt.Fprintf(&members, "m.a%d.b%d := input.c\n", i, i)
		fmt.Fprintf(&loops, "some a%d in input.x\n", i)
	}
	tests["rules"] = rules.String()
	tests["members"] = members.String() + "release := {\"allow\": m[input.x][input.y]}"
	tests["loops"] = "release := {\"allow\": false} if {\n" + loops.String() + "}"
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			_, err := Compile([]Document{doc("deep", text)}, clock)
			if err != nil && !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(begun); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestCompile_isSafeForConcurrentUse(t *testing.T) {
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 3 {
				if _, err := Compile(Installed(noon), clock); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}
