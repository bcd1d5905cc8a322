package plugin

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// Notifier tells people. Role notifier.
type Notifier struct {
	// Notify tells of one event. Required. After an error the host repeats it for
	// about a day; [Invalidf] and [Deniedf] give it up.
	Notify func(ctx context.Context, n Notification) error
}

// Notification is one message to people. It holds no secret. Its texts may come
// from whoever reported something: they are data, not markup.
type Notification struct {
	ID      string // the same in every repetition: receivers drop repeats by it
	Kind    string // grant.revoked, grant.manual, ...
	At      time.Time
	Urgency Urgency
	Title   string
	Text    string            // what is known, in lines
	Fields  map[string]string // the same as data: subject, grant, address, tags, ...
}

// Urgency says how soon a person should look.
type Urgency int32

// The urgencies.
const (
	Low      Urgency = 1
	Elevated Urgency = 2
	High     Urgency = 3
)

// String is low, elevated or high.
func (u Urgency) String() string {
	switch u {
	case High:
		return "high"
	case Elevated:
		return "elevated"
	default:
		return "low"
	}
}

func (n Notifier) role(s *server) error {
	switch {
	case n.Notify == nil:
		return fmt.Errorf("a Notifier needs Notify")
	case s.notifier != nil:
		return errTwice("Notifier")
	}
	s.notifier = &n
	s.roles = append(s.roles, manifest.RoleNotifier)
	return nil
}

type notifierServer struct {
	own.UnimplementedNotifierServer
	n *Notifier
}

// Notify tells of one event.
func (v notifierServer) Notify(ctx context.Context, q *own.NotifyRequest) (*own.NotifyResponse, error) {
	err := v.n.Notify(ctx, Notification{
		ID: q.GetEventId(), Kind: q.GetKind(), At: time.UnixMilli(q.GetAtUnixMs()).UTC(), Urgency: max(Urgency(q.GetUrgency()), Low),
		Title: q.GetTitle(), Text: q.GetText(), Fields: q.GetFields(),
	})
	if err != nil {
		return &own.NotifyResponse{Refusal: refused(ctx, err)}, nil
	}
	return &own.NotifyResponse{}, nil
}
