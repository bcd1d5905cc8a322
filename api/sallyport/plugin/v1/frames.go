package pluginv1

import (
	"errors"
	"io"

	"google.golang.org/grpc/encoding"
	standard "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// BatchBytes is where a sender begins a new message of Calls. A frame that is
// larger travels alone.
const BatchBytes = 64 << 10

// Batch is one message of Calls in its encoded form, HostFrames or PluginFrames:
// the frames one after the other. With the codec of [NewCodec] it is sent and
// received as it is, so that a frame is encoded where it is made and decoded where
// it is used, and whoever passes it on does neither.
type Batch []byte

// frames is the one field of HostFrames and of PluginFrames.
const framesTag = 1<<3 | uint64(protowire.BytesType)

// Append adds an encoded frame.
func (b Batch) Append(frame []byte) Batch {
	b = protowire.AppendVarint(b, framesTag)
	return protowire.AppendBytes(b, frame)
}

// AppendMessage encodes a frame and adds it. After an error the batch is what it
// was.
func (b Batch) AppendMessage(frame proto.Message) (Batch, error) {
	options := proto.MarshalOptions{UseCachedSize: true}
	size := proto.Size(frame)
	longer := protowire.AppendVarint(b, framesTag)
	longer = protowire.AppendVarint(longer, uint64(size)) //nolint:gosec // no size is negative
	longer, err := options.MarshalAppend(longer, frame)
	if err != nil {
		return b, err
	}
	return longer, nil
}

var errBatch = errors.New("the message is no batch of frames")

// Next cuts the first frame off, io.EOF if there is none. The frame shares the
// batch's memory. Fields that are not known are left out.
func (b *Batch) Next() ([]byte, error) {
	for len(*b) > 0 {
		number, kind, n := protowire.ConsumeTag(*b)
		if n < 0 {
			return nil, errBatch
		}
		rest := (*b)[n:]
		if number != 1 || kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, rest); n < 0 {
				return nil, errBatch
			}
			*b = rest[n:]
			continue
		}
		frame, n := protowire.ConsumeBytes(rest)
		if n < 0 {
			return nil, errBatch
		}
		*b = rest[n:]
		return frame, nil
	}
	return nil, io.EOF
}

// FrameID reads the id of an encoded frame, 0 if it has none. It reads to the end:
// a frame that cannot be read is an error here already.
func FrameID(frame []byte) (uint64, error) {
	var id uint64
	for len(frame) > 0 {
		number, kind, n := protowire.ConsumeTag(frame)
		if n < 0 {
			return 0, errBatch
		}
		frame = frame[n:]
		if number == 1 && kind == protowire.VarintType {
			if id, n = protowire.ConsumeVarint(frame); n < 0 {
				return 0, errBatch
			}
		} else if n = protowire.ConsumeFieldValue(number, kind, frame); n < 0 {
			return 0, errBatch
		}
		frame = frame[n:]
	}
	return id, nil
}

// Codec is gRPC's own for protobuf, which also takes a [Batch] as it is.
type Codec struct{ encoding.CodecV2 }

// NewCodec makes one.
func NewCodec() Codec { return Codec{encoding.GetCodecV2(standard.Name)} }

// Marshal encodes a message. A Batch must not be changed any more.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(Batch); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal decodes a message.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if b, ok := v.(*Batch); ok {
		*b = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
