package plugin

import (
	"context"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// The service kv of the host: values of a plugin, in its own space.

const tooManyChanges = "the plugin changes more than 200 values a second"

// changes takes from the rate of changes.
func (s *services) changes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.puts.take(putRate, s.host.cfg.Now())
}

// keep answers a HostCall of service kv. The space is that of the process's own
// plugin and publisher, whatever the call says.
func (s *services) keep(ctx context.Context, c *own.HostCall) *own.HostAnswer {
	k, space := s.host.keeper, Space(s.name, s.publisher)
	switch b := c.GetBody().(type) {
	case *own.HostCall_KvGet:
		if err := checkKey(b.KvGet.GetKey()); err != nil {
			return failing(err)
		}
		v, err := k.at(ctx, space, b.KvGet.GetKey())
		if err != nil {
			return failing(err)
		}
		return valueOf(v.Data, v.Version)
	case *own.HostCall_KvPut:
		if !s.changes() {
			return refusing(own.Code_CODE_EXHAUSTED, tooManyChanges)
		}
		version, err := k.put(ctx, space, b.KvPut.GetKey(), b.KvPut.GetValue(), b.KvPut.IfVersion)
		if err != nil {
			return failing(err)
		}
		return valueOf(nil, version)
	case *own.HostCall_KvDelete:
		if !s.changes() {
			return refusing(own.Code_CODE_EXHAUSTED, tooManyChanges)
		}
		if err := k.remove(ctx, space, b.KvDelete.GetKey(), b.KvDelete.IfVersion); err != nil {
			return failing(err)
		}
		return &own.HostAnswer{Body: done}
	case *own.HostCall_KvList:
		keys, more, err := k.list(ctx, space, b.KvList.GetPrefix(), b.KvList.GetAfter(), int(b.KvList.GetLimit()))
		if err != nil {
			return failing(err)
		}
		return &own.HostAnswer{Body: &own.HostAnswer_KvKeys{KvKeys: &own.KvKeys{Keys: keys, More: more}}}
	}
	return refusing(own.Code_CODE_UNIMPLEMENTED, "this host does not know this kind of call")
}

func valueOf(data []byte, version int64) *own.HostAnswer {
	return &own.HostAnswer{Body: &own.HostAnswer_KvValue{KvValue: &own.KvValue{
		Value: data, Version: uint64(version), //nolint:gosec // versions are positive
	}}}
}
