package plugin

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mostWeight bounds what the host holds, decoded, of one message of a plugin, and of
// all calls together that one process has outstanding.
const mostWeight = 16 << 20

// fieldWeight is what a field takes in memory beside its bytes, at most: an answer
// to a call's route that holds nothing is two fields in four bytes, and 209 bytes in
// memory, for the frame, the answer, what chooses it, and the pointer to the frame in
// a list with room to grow. The test measures all that a plugin can send.
const fieldWeight = 112

var errHeavy = errors.New("a message of the plugin has too many parts")

// decode decodes a message of a plugin, if it is not larger in memory than it may be.
func decode(data []byte, m proto.Message) error {
	if len(data) > mostWeight/(1+fieldWeight/2) { // else it cannot be, with two bytes for each field
		n, err := weigh(data, m)
		if err != nil {
			return err
		}
		if n > mostWeight {
			return errHeavy
		}
	}
	return proto.Unmarshal(data, m)
}

// weigh is what an encoded message takes in memory when it is decoded, at most.
func weigh(data []byte, m proto.Message) (int, error) {
	const deepest = 32
	return weighFields(data, m.ProtoReflect().Descriptor(), deepest)
}

func weighFields(data []byte, d protoreflect.MessageDescriptor, deeper int) (int, error) {
	if deeper == 0 {
		return 0, errHeavy
	}
	sum := len(data)
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		data = data[n:]
		if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
			return 0, protowire.ParseError(n)
		}
		sum += fieldWeight
		if f := d.Fields().ByNumber(number); f != nil && f.Message() != nil && kind == protowire.BytesType {
			inner, _ := protowire.ConsumeBytes(data)
			more, err := weighFields(inner, f.Message(), deeper-1)
			if err != nil {
				return 0, err
			}
			sum += more - len(inner)
		}
		data = data[n:]
	}
	return sum, nil
}
