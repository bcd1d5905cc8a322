// Command labels is an extension that keeps labels for machines, and for every other subject:
// the example of docs/plugins/extension.md. It has a table, three routes, a hook
// that labels who was locked, and a gate that gives nothing to who is labelled
// quarantine.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

func main() {
	plugin.Serve(plugin.About{Name: "labels", Version: version}, extension())
}

// version is that of plugin.json; tests make others.
var version = "1.0.0"

// tag is one label.
type tag struct {
	ID      string `json:"tag_id"`
	Machine string `json:"machine_id"`
	Label   string `json:"label"`
	By      string `json:"created_by"`
}

func extension() plugin.Extension {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /machines/{machine_id}/tags", create)
	mux.HandleFunc("GET /machines/{machine_id}/tags", list)
	mux.HandleFunc("DELETE /machines/{machine_id}/tags/{tag_id}", remove)
	return plugin.Extension{
		Routes: mux,
		Hooks: map[string]func(context.Context, plugin.Event) error{
			// An event may come twice: its id is the label's.
			"subject.locked": func(ctx context.Context, e plugin.Event) error {
				return insert(ctx, tag{ID: e.ID, Machine: e.Subject, Label: "locked", By: "hook"})
			},
			"grant.issued": func(ctx context.Context, e plugin.Event) error {
				return insert(ctx, tag{ID: e.ID, Machine: e.Subject, Label: "has " + e.Facts["kind"], By: "hook"})
			},
		},
		Gates: map[string]func(context.Context, plugin.Question) (plugin.Verdict, error){"release": release},
	}
}

func insert(ctx context.Context, t tag) error {
	_, err := plugin.HostFrom(ctx).Exec(ctx, plugin.SQL(
		"INSERT INTO extension_myext_tags (tag_id, machine_id, label, created_by) VALUES ($1, $2, $3, $4) ON CONFLICT (tag_id) DO NOTHING",
		t.ID, t.Machine, t.Label, t.By))
	return err
}

func create(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Label string `json:"label"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&body); err != nil || body.Label == "" {
		answer(w, http.StatusUnprocessableEntity, map[string]string{"detail": "send a label"})
		return
	}
	t := tag{ID: rand.Text(), Machine: r.PathValue("machine_id"), Label: body.Label, By: plugin.PrincipalOf(r).Name}
	if err := insert(r.Context(), t); err != nil {
		panic(err) // logged, and no more than "502" for the caller
	}
	answer(w, http.StatusCreated, t)
}

func list(w http.ResponseWriter, r *http.Request) {
	found, err := tags(r.Context(), r.PathValue("machine_id"))
	if err != nil {
		panic(err)
	}
	answer(w, http.StatusOK, found)
}

func tags(ctx context.Context, machine string) ([]tag, error) {
	rows, err := plugin.HostFrom(ctx).Query(ctx, 100,
		"SELECT tag_id, label, created_by FROM extension_myext_tags WHERE machine_id = $1 ORDER BY label, tag_id", machine)
	out := []tag{}
	for _, row := range rows.Rows {
		t := tag{Machine: machine}
		t.ID, _ = row[0].(string)
		t.Label, _ = row[1].(string)
		t.By, _ = row[2].(string)
		out = append(out, t)
	}
	return out, err
}

func remove(w http.ResponseWriter, r *http.Request) {
	n, err := plugin.HostFrom(r.Context()).Exec(r.Context(), plugin.SQL(
		"DELETE FROM extension_myext_tags WHERE machine_id = $1 AND tag_id = $2", r.PathValue("machine_id"), r.PathValue("tag_id")))
	switch {
	case err != nil:
		panic(err)
	case n[0] == 0:
		answer(w, http.StatusNotFound, map[string]string{"detail": "Tag not found"})
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// release denies credentials to who is labelled quarantine.
func release(ctx context.Context, q plugin.Question) (plugin.Verdict, error) {
	subject, _ := q["subject"].(map[string]any)
	id, _ := subject["id"].(string)
	found, err := tags(ctx, id)
	for _, t := range found {
		if t.Label == "quarantine" {
			return plugin.Verdict{Reason: "the subject is in quarantine"}, nil
		}
	}
	return plugin.Verdict{Allow: err == nil}, err
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the host may have left
}
