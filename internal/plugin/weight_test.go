package plugin

import (
	"bytes"
	"runtime"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// TestWeigh_IsNeverLessThanWhatIsHeld decodes, for every field that a plugin can
// send many times, a message of nothing but very many of the smallest: what takes
// most memory for its bytes. It does not run beside other tests.
func TestWeigh_IsNeverLessThanWhatIsHeld(t *testing.T) {
	tried, most := 0, 0
	for _, root := range []proto.Message{&own.PluginFrames{}, &own.HostCall{}} {
		for _, path := range paths(root.ProtoReflect().Descriptor(), nil) {
			for _, smallest := range smallest(path[len(path)-1]) {
				data := smallest
				for n := len(path) - 2; n >= 0; n-- {
					data = field(path[n], data)
				}
				weight, err := weigh(data, root)
				if err != nil {
					t.Fatal(err)
				}
				// Twice, lest something else is allocated meanwhile.
				held := min(holds(t, data, root.ProtoReflect().New().Interface()), holds(t, data, root.ProtoReflect().New().Interface()))
				tried, most = tried+1, max(most, 100*held/weight)
				if held > weight {
					t.Errorf("%s: %d bytes are held of %d, %d were weighed", path[len(path)-1].FullName(), held, len(data), weight)
				}
			}
		}
	}
	// A weight that is far too high refuses what is harmless.
	if tried < 30 || most < 70 {
		t.Errorf("%d messages, the heaviest had %d %% of its weight", tried, most)
	}
}

// holds is how much memory a decoded message keeps.
func holds(t *testing.T, data []byte, m proto.Message) int {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatal(err)
	}
	runtime.GC() // of what growing has left behind
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(m)
	runtime.KeepAlive(data)
	return int(after.HeapAlloc) - int(before.HeapAlloc)
}

// smallest are ways to fill a message with a field: empty ones, ones that have one
// empty field, and for a map one key each.
func smallest(f protoreflect.FieldDescriptor) [][]byte {
	const many = 10_000
	if f.IsMap() {
		var out []byte
		for n := range many {
			key := []byte{byte('a' + n%26), byte('a' + n/26%26), byte('a' + n/676)}
			out = append(out, field(f, field(f.MapKey(), key))...)
		}
		return [][]byte{out}
	}
	out := [][]byte{bytes.Repeat(field(f, nil), many)}
	if f.Message() != nil {
		for n := range f.Message().Fields().Len() {
			out = append(out, bytes.Repeat(field(f, field(f.Message().Fields().Get(n), nil)), many))
		}
	}
	return out
}

// paths are the ways to every field that may be there many times.
func paths(d protoreflect.MessageDescriptor, before []protoreflect.FieldDescriptor) [][]protoreflect.FieldDescriptor {
	var out [][]protoreflect.FieldDescriptor
	for n := range d.Fields().Len() {
		f := d.Fields().Get(n)
		way := append(append([]protoreflect.FieldDescriptor(nil), before...), f)
		if f.IsList() || f.IsMap() {
			out = append(out, way)
		}
		if f.Message() != nil && !f.IsMap() && len(way) < 8 {
			out = append(out, paths(f.Message(), way)...)
		}
	}
	return out
}

// field is one occurrence of a field with a content; a number is zero.
func field(f protoreflect.FieldDescriptor, content []byte) []byte {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.StringKind, protoreflect.BytesKind:
		return protowire.AppendBytes(protowire.AppendTag(nil, f.Number(), protowire.BytesType), content)
	case protoreflect.DoubleKind:
		return protowire.AppendFixed64(protowire.AppendTag(nil, f.Number(), protowire.Fixed64Type), 0)
	default:
		return protowire.AppendVarint(protowire.AppendTag(nil, f.Number(), protowire.VarintType), 0)
	}
}
