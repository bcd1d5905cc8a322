package plugintest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/sdk/plugin"
	"github.com/sallyport-project/sallyport/sdk/plugintest"
)

// t stands for the argument of a test.
type t struct{ testing.TB }

func (t) Helper()                      {}
func (t) Cleanup(func())               {}
func (t) Fatalf(text string, a ...any) { panic(fmt.Sprintf(text, a...)) }

// A vender is asked for a credential, as a host asks after policy has decided.
func ExamplePlugin_Issue() {
	about := plugin.About{Name: "greeter", Version: "1.0.0", Kinds: []string{"greeting"}}
	p := plugintest.Start(t{}, about, plugin.Vender{Issue: func(_ context.Context, r plugin.Request) (plugin.Issued, error) {
		if r.Scope.Params["name"] == "nobody" {
			return plugin.Issued{}, plugin.Deniedf("nobody is greeted")
		}
		r.Scope.TTL = min(r.Scope.TTL, r.Bounds.MaxTTL)
		return plugin.Issued{Scope: r.Scope, Value: []byte("hello " + r.Scope.Params["name"].(string))}, nil
	}})
	ask := func(name string) (plugin.Issued, error) {
		return p.Issue(context.Background(), plugin.Request{
			Scope:  plugin.Scope{Kind: "greeting", Params: map[string]any{"name": name}, TTL: time.Hour},
			Bounds: plugin.Bounds{Kind: "greeting", MaxTTL: time.Minute},
		})
	}
	issued, err := ask("world")
	fmt.Println(string(issued.Value), issued.Scope.TTL, err)
	_, err = ask("nobody")
	fmt.Println(err, plugin.Denied(err))
	// Output:
	// hello world 1m0s <nil>
	// nobody is greeted true
}

// An extension gets a request, an event and a question; what it asked of its host is
// remembered.
func ExamplePlugin_Do() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes/{id}", func(w http.ResponseWriter, r *http.Request) {
		note, _, _ := plugin.HostFrom(r.Context()).Get(r.Context(), r.PathValue("id"))
		_, _ = fmt.Fprintf(w, "%s reads: %s", plugin.PrincipalOf(r).Name, note)
	})
	p := plugintest.Start(t{}, plugin.About{Name: "notes", Version: "1.0.0"}, plugin.Extension{
		Routes: mux,
		Hooks: map[string]func(context.Context, plugin.Event) error{"grant.*": func(ctx context.Context, e plugin.Event) error {
			return plugin.HostFrom(ctx).Emit(ctx, "seen", map[string]string{"event": e.ID})
		}},
		Gates: map[string]func(context.Context, plugin.Question) (plugin.Verdict, error){
			"release": func(_ context.Context, q plugin.Question) (plugin.Verdict, error) {
				return plugin.Verdict{Allow: q["action"] == "vend", Reason: "only credentials"}, nil
			},
		},
	})
	p.Host.Put("n1", []byte("buy milk"))
	answer, err := p.Do(httptest.NewRequest(http.MethodGet, "/notes/n1", nil), plugin.Principal{Name: "alice", Kind: "operator"})
	if err != nil {
		panic(err)
	}
	text := make([]byte, answer.ContentLength)
	_, _ = answer.Body.Read(text)
	fmt.Println(answer.StatusCode, string(text))
	fmt.Println(p.Hook(context.Background(), plugin.Event{ID: "E1", Type: "grant.issued"}), p.Host.Events()[0].Data["event"])
	verdict, err := p.Gate(context.Background(), "release", plugin.Question{"action": "get"})
	fmt.Println(verdict.Allow, verdict.Reason, err)
	// Output:
	// 200 alice reads: buy milk
	// <nil> E1
	// false only credentials <nil>
}
