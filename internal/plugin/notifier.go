package plugin

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/notify"
)

// Notifiers are the channels of the installed plugins with role notifier, sorted by
// name. One that must not run now is among them: what it should tell waits.
func (h *Host) Notifiers() []notify.Channel {
	var out []notify.Channel
	for _, r := range h.table.Load().routes {
		if contains(r.row.Offer.Roles, manifest.RoleNotifier) {
			out = append(out, notifier{h, r.name()})
		}
	}
	return out
}

// notifier is the adapter of role notifier: a channel of its own for each plugin.
type notifier struct {
	host *Host
	name string
}

var _ notify.Channel = notifier{}

// Name is that of the plugin, with what no other channel's name begins with.
func (n notifier) Name() string { return "plugin:" + n.name }

func (n notifier) find() (*route, error) { return n.host.named(n.name) }

// Notify hands one notification to the plugin; see [notify.Channel].
func (n notifier) Notify(ctx context.Context, m notify.Notification) error {
	fields := facts(m)
	q := &own.NotifyRequest{
		EventId: m.ID, Kind: m.Type, Urgency: urgency(m.Urgency), Title: m.Title, Text: lines(m.Title, fields),
		Fields: fields, AtUnixMs: m.At.UnixMilli(),
	}
	_, err := call(ctx, n.host, n.find, true, func(ctx context.Context, i *instance) (struct{}, error) {
		a, err := own.NewNotifierClient(i.conn).Notify(ctx, q)
		if err != nil {
			return struct{}{}, err
		}
		switch no := a.GetRefusal(); {
		case no == nil:
			return struct{}{}, nil
		case no.GetCode() == own.Code_CODE_DENIED: // no repetition mends it
			return struct{}{}, fault.Invalidf("plugin %s does not tell this: %s", i.m.Name, clip(no.GetReason(), maxReason))
		default:
			return struct{}{}, refusal(i.m.Name, no)
		}
	})
	return err
}

func urgency(u notify.Urgency) own.Urgency {
	switch u {
	case notify.High:
		return own.Urgency_URGENCY_HIGH
	case notify.Elevated:
		return own.Urgency_URGENCY_ELEVATED
	default:
		return own.Urgency_URGENCY_LOW
	}
}

// facts are the members of a notification by name, and its data, none of which
// takes the place of a member.
func facts(m notify.Notification) map[string]string {
	out := maps.Clone(m.Data)
	if out == nil {
		out = map[string]string{}
	}
	for name, v := range map[string]string{
		"subject": m.Subject, "grant": m.Grant, "address": m.Address, "tags": strings.Join(m.Tags, ","),
	} {
		delete(out, name)
		if v != "" {
			out[name] = v
		}
	}
	for name, v := range out {
		out[name] = strings.ToValidUTF8(v, "?")
	}
	return out
}

// lines are the title and a line for each fact.
func lines(title string, facts map[string]string) string {
	out := []string{strings.ToValidUTF8(title, "?")}
	for _, name := range slices.Sorted(maps.Keys(facts)) {
		out = append(out, name+": "+clip(facts[name], maxReason))
	}
	return strings.Join(out, "\n")
}

// named finds an installed plugin by its name.
func (h *Host) named(name string) (*route, error) {
	t := h.table.Load()
	for _, r := range t.routes {
		switch {
		case r.name() != name:
		case r.pool == nil:
			return nil, fault.Unavailablef("plugin %s must not run here (%s)", name, r.reason)
		default:
			return r, nil
		}
	}
	if t.closed {
		return nil, fault.Unavailablef("the plugin host has stopped")
	}
	return nil, fault.NotFoundf("plugin %s is not installed", name)
}
