package flow_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
)

const readers = `package sallyport
administer := {"allow": true, "reasons": ["may read secrets"]} if {
	input.subject.role == "administrator"
	input.action == "read"
	input.target.kind == "resource"
}
`

// keeping is a house that keeps so many older values.
func keeping(t *testing.T, n int) *house {
	t.Helper()
	return newHouse(t, func(c *flow.Config) { c.KeepVersions = n })
}

// read is a version as an operator reads it, or the kind of the refusal.
func (h *house) read(path []string, number int64) string {
	h.t.Helper()
	_, plain, err := h.gate.ReadResource(context.Background(), h.admin.caller(), path, number)
	if err != nil {
		return fault.KindOf(err).String()
	}
	defer plain.Wipe()
	return string(plain.Reveal())
}

// history is what is listed of a path: its numbers, marked where there is no value.
func (h *house) history(path []string) string {
	h.t.Helper()
	var out []string
	for before := int64(0); ; {
		some, err := h.gate.ResourceVersions(context.Background(), h.admin.caller(), path, before, 2) // page by page
		must(h.t, err)
		for _, v := range some {
			mark := ""
			if v.Deleted {
				mark = "d"
			} else if len(v.Sealed) == 0 {
				mark = "-"
			}
			out = append(out, strconv.FormatInt(v.Number, 10)+mark)
		}
		if len(some) < 2 {
			return strings.Join(out, " ")
		}
		before = some[1].Number
	}
}

func TestResource_KeepsOlderVersionsForOperators(t *testing.T) {
	ctx := context.Background()
	h := keeping(t, 2)
	path := []string{"team", "db", "key"}
	for n := range 4 {
		h.put(fmt.Sprint("value ", n+1), path...)
	}
	// Nobody reads secrets until a policy says so, and what is refused is recorded.
	for _, number := range []int64{0, 3, 4, 99} {
		if got := h.read(path, number); got != fault.Denied.String() {
			t.Errorf("version %d under the policy of a new installation: %s", number, got)
		}
	}
	count(t, len(h.records("resource.read")), 4, "refusals")
	must(t, done(h.gate.SetPolicy(ctx, h.admin.caller(), "readers", policy.Sallyport, readers)))
	for number, want := range map[int64]string{
		0: "value 4", 4: "value 4", 3: "value 3", 2: "value 2", 1: "not_found", 5: "not_found", -1: "not_found",
	} {
		if got := h.read(path, number); got != want {
			t.Errorf("version %d: %q, want %q", number, got, want)
		}
	}
	if got := h.history(path); got != "4 3 2 1-" {
		t.Errorf("history: %s", got)
	}
	read := h.records("resource.read")
	if last := read[len(read)-1]; last.Target != "team/db/key" || last.Data["version"] == "" || last.Actor.Subject != h.admin.id || len(last.Policy) == 0 {
		t.Errorf("recorded %+v", last)
	}

	// A guest gets the newest, and nothing after a deletion; the operator still does.
	h.resourcePolicy(policy.ResourceAllowAll())
	g := h.guest()
	must(t, g.attest())
	must(t, h.gate.DeleteResource(ctx, h.admin.caller(), path, false))
	_, err := g.fetch(false, path...)
	want(t, err, fault.NotFound)
	for number, want := range map[int64]string{0: "not_found", 5: "not_found", 4: "value 4", 3: "value 3", 2: "not_found"} {
		if got := h.read(path, number); got != want {
			t.Errorf("after the deletion, version %d: %q, want %q", number, got, want)
		}
	}
	if got := h.history(path); got != "5d 4 3 2- 1-" {
		t.Errorf("history after the deletion: %s", got)
	}
	h.put("value 6", path...)
	if got := h.history(path); got != "6 5d 4 3- 2- 1-" {
		t.Errorf("history after the next value: %s", got)
	}

	// Erasing takes everything, at once or later.
	must(t, h.gate.DeleteResource(ctx, h.admin.caller(), path, true))
	if got := h.history(path); got != "7d 6- 5d 4- 3- 2- 1-" {
		t.Errorf("history after erasing: %s", got)
	}
	for number := range int64(8) {
		if got := h.read(path, number); got != "not_found" {
			t.Errorf("an erased value is read: version %d, %s", number, got)
		}
	}
	other := []string{"team", "db", "key2"} // its ids begin as those of the first
	h.put("x", other...)
	must(t, h.gate.DeleteResource(ctx, h.admin.caller(), other, false))
	must(t, h.gate.DeleteResource(ctx, h.admin.caller(), path, true)) // changes nothing any more
	if got := h.read(other, 1); got != "x" {
		t.Errorf("erasing took another path: %s", got)
	}
	must(t, h.gate.DeleteResource(ctx, h.admin.caller(), other, true))
	if got := h.history(other); got != "2d 1-" {
		t.Errorf("history of what was erased after the deletion: %s", got)
	}
	want(t, h.gate.DeleteResource(ctx, h.admin.caller(), []string{"a", "b", "c"}, true), fault.NotFound)
	_, err = h.gate.ResourceVersions(ctx, h.admin.caller(), []string{"a", "b", "c"}, 0, 0)
	want(t, err, fault.NotFound)
	for _, r := range h.records("") {
		if strings.Contains(fmt.Sprint(r), "value ") {
			t.Errorf("a record has a value: %+v", r)
		}
	}
}

func TestResource_KeepsNoValuesUnlessTold(t *testing.T) {
	h := keeping(t, 0)
	path := []string{"team", "db", "key"}
	h.put("one", path...)
	h.put("two", path...)
	if got := h.history(path); got != "2 1-" {
		t.Errorf("history: %s", got)
	}
}

// Whoever stores and erases at the same time ends with one history, in which no
// number is missing and nothing that was erased can be read.
func TestResource_HistoryHasNoGaps(t *testing.T) {
	ctx := context.Background()
	h := keeping(t, 3)
	path := []string{"team", "db", "key"}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			var err error
			if i%4 == 3 {
				err = h.gate.DeleteResource(ctx, h.admin.caller(), path, i%8 == 3)
			} else {
				_, err = h.gate.PutResource(ctx, h.admin.caller(), path, secret.FromString("x"))
			}
			if err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, h.gate.DeleteResource(ctx, h.admin.caller(), path, true))
	all, err := h.gate.ResourceVersions(ctx, h.admin.caller(), path, 0, 0)
	must(t, err)
	for i, v := range all {
		if v.Number != int64(len(all)-i) || len(v.Sealed) > 0 {
			t.Errorf("at place %d of %d: %+v", i, len(all), resource.Version{Number: v.Number, Deleted: v.Deleted})
		}
	}
}
