package external

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
)

// Wire makes the three calls of the contract over a connection, as Trustee does,
// and returns gRPC's errors as they come.
type Wire struct{ grpc.ClientConnInterface }

// ValidateAuth is the first call.
func (w Wire) ValidateAuth(ctx context.Context, r Request) (bool, error) {
	a, err := pluginv1.NewKbsPluginClient(w).ValidateAuth(ctx, &pluginv1.ValidateAuthRequest{
		Body: r.Body, Query: r.Query, Path: r.Path, Method: r.Method,
	})
	if err != nil {
		return false, err
	}
	return a.GetRequiresAdminAuth(), genuine(a)
}

// Handle is the second, and the only one that has a context.
func (w Wire) Handle(ctx context.Context, r Request) (Response, error) {
	if r.Context != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, pluginv1.ContextKey, r.Context)
	}
	a, err := pluginv1.NewKbsPluginClient(w).Handle(ctx, &pluginv1.PluginRequest{
		Body: r.Body, Query: r.Query, Path: r.Path, Method: r.Method,
	})
	if err != nil {
		return Response{}, err
	}
	return Response{Body: a.GetBody(), Status: int(a.GetStatusCode()), ContentType: a.GetContentType()}, genuine(a)
}

// NeedsEncryption is the third.
func (w Wire) NeedsEncryption(ctx context.Context, r Request) (bool, error) {
	a, err := pluginv1.NewKbsPluginClient(w).NeedsEncryption(ctx, &pluginv1.NeedsEncryptionRequest{
		Body: r.Body, Query: r.Query, Path: r.Path, Method: r.Method,
	})
	if err != nil {
		return false, err
	}
	return a.GetRequiresPayloadEncryption(), genuine(a)
}

// genuine refuses an answer in which a field that the contract knows has another
// type. To the decoder such a field is unknown, so the message seems to say no:
// not for administrators, not sealed.
func genuine(m proto.Message) error {
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for b := []byte(r.GetUnknown()); len(b) > 0; {
		number, _, n := protowire.ConsumeField(b)
		if n < 0 || fields.ByNumber(number) != nil {
			return fmt.Errorf("the plugin answered with another message than %s", r.Descriptor().Name())
		}
		b = b[n:]
	}
	return nil
}
