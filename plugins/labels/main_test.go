package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/sdk/plugin"
	"github.com/sallyport-project/sallyport/sdk/plugintest"
	"github.com/sallyport-project/sallyport/sdk/plugintest/sqlite"
)

func start(t *testing.T) *plugintest.Plugin {
	t.Helper()
	c := plugintest.Config{Database: sqlite.Open(t, "migrations")}
	return c.Start(t, plugin.About{Name: "labels", Version: version}, extension())
}

// do calls a route as alice, and reads the answer if there is one to read.
func do(t *testing.T, p *plugintest.Plugin, method, path, body string, into any) int {
	t.Helper()
	a, err := p.Do(httptest.NewRequest(method, path, strings.NewReader(body)), plugin.Principal{Name: "alice", Kind: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		if err := json.NewDecoder(a.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	return a.StatusCode
}

func TestLabels_AreMadeListedAndRemoved(t *testing.T) {
	p := start(t)
	var made tag
	if status := do(t, p, http.MethodPost, "/machines/m1/tags", `{"label":"blue"}`, &made); status != http.StatusCreated || made.By != "alice" || made.Label != "blue" {
		t.Errorf("%d, %+v", status, made)
	}
	if status := do(t, p, http.MethodPost, "/machines/m1/tags", `{}`, nil); status != http.StatusUnprocessableEntity {
		t.Errorf("an empty label: %d", status)
	}
	var found []tag
	if status := do(t, p, http.MethodGet, "/machines/m1/tags", "", &found); status != http.StatusOK || len(found) != 1 || found[0] != made {
		t.Errorf("%d, %+v", status, found)
	}
	for _, want := range []int{http.StatusNoContent, http.StatusNotFound} {
		if status := do(t, p, http.MethodDelete, "/machines/m1/tags/"+made.ID, "", nil); status != want {
			t.Errorf("removed with %d, want %d", status, want)
		}
	}
}

// An event that comes twice makes one label, and quarantine closes the gate.
func TestLabels_FollowEventsAndCloseTheGate(t *testing.T) {
	p := start(t)
	for range 2 {
		if err := p.Hook(t.Context(), plugin.Event{ID: "E1", Type: "subject.locked", Subject: "s1"}); err != nil {
			t.Fatal(err)
		}
	}
	var found []tag
	do(t, p, http.MethodGet, "/machines/s1/tags", "", &found)
	if len(found) != 1 || found[0].Label != "locked" {
		t.Errorf("%+v", found)
	}
	ask := func() plugin.Verdict {
		v, err := p.Gate(t.Context(), "release", plugin.Question{"subject": map[string]any{"id": "s1"}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := ask(); !v.Allow {
		t.Errorf("before: %+v", v)
	}
	do(t, p, http.MethodPost, "/machines/s1/tags", `{"label":"quarantine"}`, nil)
	if v := ask(); v.Allow || v.Reason == "" {
		t.Errorf("in quarantine: %+v", v)
	}
}
