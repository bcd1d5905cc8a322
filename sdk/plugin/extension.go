package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// Extension adds routes, reactions and questions. Role extension. The manifest says
// which routes, events and gates are wanted, and has the migrations that make the
// tables; see docs/plugins/extension.md.
type Extension struct {
	// Routes answers requests below the prefix, with paths as the manifest's routes
	// have them: a [http.ServeMux] with the same patterns does. The host has
	// authenticated and authorised the request; [PrincipalOf] says who calls. What
	// is flushed is sent at once. Optional.
	Routes http.Handler
	// Hooks are told of events, by type (grant.issued), by noun (grant.*), or *. All
	// that match are called, one after the other. An event comes again after an
	// error, and may come again anyway: know it by its ID. Ten seconds. Optional.
	Hooks map[string]func(ctx context.Context, e Event) error
	// Gates answer questions before a decision, by the gate's name. An error, and no
	// answer in time, is a denial. Optional.
	Gates map[string]func(ctx context.Context, q Question) (Verdict, error)
	// Start is called once per process, with the host's services open and the tables
	// made, before anything else. Optional.
	Start func(ctx context.Context) error
	// Stop is called before the process ends in good order. Optional.
	Stop func(ctx context.Context) error
}

// Event is one thing that has happened.
type Event struct {
	ID       string // the same in every repetition
	Position uint64 // in the ledger
	Type     string
	Subject  string // id of the subject that it concerns; may be empty
	At       time.Time
	Facts    map[string]string // never a secret
}

// Question is what is about to be decided: the input that policy was asked with, a
// JSON object.
type Question map[string]any

// Verdict is the answer of a gate. It allows nothing that policy did not.
type Verdict struct {
	Allow  bool
	Reason string // shown to the caller: short, without secrets
}

// Principal is who calls a route.
type Principal struct {
	ID   string
	Kind string // agent, operator, workload, machine
	Name string
	Role string
}

type principalKey struct{}

// PrincipalOf says who calls, as the host has authenticated it. The zero value is
// nobody: the request does not come from the host.
func PrincipalOf(r *http.Request) Principal {
	p, _ := r.Context().Value(principalKey{}).(Principal)
	return p
}

// WithPrincipal gives a request a caller, for tests of handlers.
func WithPrincipal(r *http.Request, p Principal) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), principalKey{}, p))
}

func (e Extension) role(s *server) error {
	switch {
	case s.extension != nil:
		return errTwice("Extension")
	case e.Routes == nil && len(e.Hooks) == 0 && len(e.Gates) == 0:
		return fmt.Errorf("an Extension needs Routes, Hooks or Gates")
	}
	s.extension = &e
	s.roles = append(s.roles, manifest.RoleExtension)
	return nil
}

// Hear calls all hooks that match an event, as the host does.
func (e Extension) Hear(ctx context.Context, event Event) error {
	var errs []error
	for _, pattern := range slices.Sorted(maps.Keys(e.Hooks)) {
		front, star := strings.CutSuffix(pattern, "*")
		if pattern == event.Type || star && strings.HasPrefix(event.Type, front) {
			errs = append(errs, e.Hooks[pattern](ctx, event))
		}
	}
	return errors.Join(errs...)
}

func (e *Extension) hook(ctx context.Context, q *own.HookRequest) error {
	event := Event{ID: q.GetId(), Position: q.GetPosition(), Type: q.GetType(), Subject: q.GetSubject(), At: time.UnixMilli(q.GetAtUnixMs()).UTC()}
	if err := json.Unmarshal(q.GetData(), &event.Facts); err != nil {
		return fmt.Errorf("read the facts of an event: %w", err)
	}
	return e.Hear(ctx, event)
}

func (e *Extension) gate(ctx context.Context, q *own.GateRequest) (*own.GateResponse, error) {
	ask := e.Gates[q.GetGate()]
	if ask == nil {
		return nil, errUnknown
	}
	var question Question
	if err := json.Unmarshal(q.GetQuestion(), &question); err != nil {
		return nil, fmt.Errorf("read a question: %w", err)
	}
	v, err := ask(ctx, question)
	return &own.GateResponse{Allow: v.Allow, Reason: v.Reason}, err
}

// extensionServer has the optional RPCs of role extension.
type extensionServer struct {
	own.UnimplementedExtensionServer
	e *Extension
}

// Start begins.
func (s extensionServer) Start(ctx context.Context, _ *own.StartRequest) (*own.StartResponse, error) {
	if s.e.Start == nil {
		return &own.StartResponse{}, nil
	}
	if err := s.e.Start(ctx); err != nil {
		return &own.StartResponse{Error: refused(ctx, err).GetReason()}, nil
	}
	return &own.StartResponse{}, nil
}

// Stop ends.
func (s extensionServer) Stop(ctx context.Context, _ *own.StopRequest) (*own.StopResponse, error) {
	if s.e.Stop != nil {
		if err := s.e.Stop(ctx); err != nil {
			refused(ctx, err)
		}
	}
	return &own.StopResponse{}, nil
}
