package plugin

import (
	"context"
	"fmt"
	"time"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// LogLevel is that of a line in the host's log.
type LogLevel int32

// The levels of [Host.Log].
const (
	LogDebug LogLevel = 1
	LogInfo  LogLevel = 2
	LogWarn  LogLevel = 3
	LogError LogLevel = 4
)

// Log writes a line to the host's log, under the plugin's name. Service log. Lines
// beyond the host's rate are dropped.
func (h *Host) Log(ctx context.Context, level LogLevel, message string, fields map[string]string) error {
	_, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_Log{Log: &own.Log{Level: own.Log_Level(level), Message: message, Fields: fields}}})
	return err
}

// Get reads a key of the plugin's own space. Service kv. A key that is not there
// has version 0 and no value. Values are not sealed at the host: keep no
// credentials there.
func (h *Host) Get(ctx context.Context, key string) (value []byte, version uint64, err error) {
	a, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_KvGet{KvGet: &own.KvGet{Key: key}}})
	return a.GetKvValue().GetValue(), a.GetKvValue().GetVersion(), err
}

// Put writes a key, whatever it was, and returns its new version. A key has 1 to 256
// bytes of UTF-8, a value at most 64 KiB, and a plugin 10,000 keys.
func (h *Host) Put(ctx context.Context, key string, value []byte) (version uint64, err error) {
	a, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_KvPut{KvPut: &own.KvPut{Key: key, Value: value}}})
	return a.GetKvValue().GetVersion(), err
}

// Swap writes a key if it has a version now, 0: if it is not there. Else the error
// is a [Conflict].
func (h *Host) Swap(ctx context.Context, key string, value []byte, version uint64) (next uint64, err error) {
	a, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_KvPut{KvPut: &own.KvPut{Key: key, Value: value, IfVersion: &version}}})
	return a.GetKvValue().GetVersion(), err
}

// Delete removes a key. One that is not there is removed.
func (h *Host) Delete(ctx context.Context, key string) error {
	_, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_KvDelete{KvDelete: &own.KvDelete{Key: key}}})
	return err
}

// List gives keys with a prefix after a key, sorted, and whether there are more.
// Limit 0 is 1000, and no more than that come.
func (h *Host) List(ctx context.Context, prefix, after string, limit int) (keys []string, more bool, err error) {
	a, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_KvList{KvList: &own.KvList{
		Prefix: prefix, After: after, Limit: uint32(min(max(limit, 0), 1000)),
	}}})
	return a.GetKvKeys().GetKeys(), a.GetKvKeys().GetMore(), err
}

// Emit records an event in the host's ledger, as plugin.event of this plugin.
// Service events. Whom it is about is data, at most 32 entries of 4 KiB together.
// No secrets.
func (h *Host) Emit(ctx context.Context, kind string, data map[string]string) error {
	_, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_Emit{Emit: &own.Emit{Type: kind, Data: data}}})
	return err
}

// Leak is a report of a leaked credential: the value, or the SHA-256 of it without
// white space around.
type Leak struct {
	Value       []byte
	SHA256      []byte
	Source      string // what found it
	Location    string // where it was found
	Reason      string
	Idempotency string // the same report under the same key within 10 minutes is one report; may be empty
}

// Raise reports a leaked credential: what matches is revoked. Service signals. It
// returns how many grants matched.
func (h *Host) Raise(ctx context.Context, l Leak) (matches int, err error) {
	r := &own.Raise{Source: l.Source, Location: l.Location, Reason: l.Reason, IdempotencyKey: l.Idempotency}
	switch {
	case len(l.Value) > 0 && len(l.SHA256) > 0:
		return 0, Invalidf("a leak has a value or a SHA-256, not both")
	case len(l.SHA256) > 0:
		r.What = &own.Raise_Sha256{Sha256: l.SHA256}
	default:
		r.What = &own.Raise_Value{Value: l.Value}
	}
	a, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_Raise{Raise: r}})
	return int(a.GetRaised().GetMatches()), err
}

// Vended is a credential that the host gave.
type Vended struct {
	Grant      string // its id: it belongs to the plugin's own subject
	Scope      Scope  // what was granted, which may be less than was asked for
	Value      []byte
	PrivateKey []byte // of a key pair that the host made for it, else nil
	ExpiresAt  time.Time
}

// Vend asks for a credential of a kind that the manifest names under
// capabilities.services.vend, as a subject of the plugin's own: policy decides, and
// the ledger has it. It is revoked when the plugin is removed. The same request
// under the same idempotency key gives the same answer; the key may be empty.
func (h *Host) Vend(ctx context.Context, s Scope, idempotency string) (Vended, error) {
	params, err := own.EncodeParams(s.Params)
	if err != nil {
		return Vended{}, fmt.Errorf("encode parameters: %w", err)
	}
	a, err := h.call(ctx, &own.HostCall{Body: &own.HostCall_Vend{Vend: &own.Vend{
		Kind: s.Kind, Params: params, TtlSeconds: int64(s.TTL / time.Second), IdempotencyKey: idempotency,
	}}})
	if err != nil {
		return Vended{}, err
	}
	v := a.GetVended()
	scope, _, err := readScope(v.GetScope())
	if err != nil {
		return Vended{}, err
	}
	out := Vended{Grant: v.GetGrant(), Scope: scope, Value: v.GetValue(), PrivateKey: v.GetPrivateKey()}
	if t := v.GetExpiresAtUnix(); t > 0 {
		out.ExpiresAt = time.Unix(t, 0).UTC()
	}
	return out, nil
}
