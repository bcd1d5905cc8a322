package plugin

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	protobuf "google.golang.org/protobuf/proto"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

// encoded is a message that was encoded before. It is read by calls at the same
// time and must not be changed.
type encoded []byte

// encodeScope encodes the question that Validate, Analyze, Serialize and Vend of
// agentkms.plugin.v1 have in common: a message whose field 1 is the scope. It is
// encoded once for all of them.
func encodeScope(s grant.Scope) (encoded, error) {
	scope, err := structScope(s)
	if err != nil {
		return nil, err
	}
	b, err := protobuf.Marshal(&akms.ValidateRequest{Scope: scope})
	if err != nil {
		return nil, fault.Invalidf("the parameters have text that is not UTF-8").Because(err)
	}
	return b, nil
}

// codec is gRPC's own, which also takes what is encoded already.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal encodes a message.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(encoded); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}
