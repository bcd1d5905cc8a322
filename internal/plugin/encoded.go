package plugin

import (
	"google.golang.org/grpc/mem"
	protobuf "google.golang.org/protobuf/proto"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
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

// codec is the one of sallyport.plugin.v1, which also takes what is encoded already.
type codec struct{ own.Codec }

func newCodec() codec { return codec{own.NewCodec()} }

// Marshal encodes a message.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(encoded); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.Codec.Marshal(v)
}
