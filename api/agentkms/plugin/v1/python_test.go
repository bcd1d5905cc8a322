package pluginv1

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The Python code of the project templates is made of the very proto file that
// our own is made of: what both carry as descriptor is the same.
func TestPython_IsMadeOfTheSameProto(t *testing.T) {
	text, err := os.ReadFile("../../../../internal/cli/template/python/plugin_pb2.py")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`AddSerializedFile\(b'(.*)'\)\n`).FindSubmatch(text)
	if found == nil {
		t.Fatal("plugin_pb2.py has no descriptor")
	}
	var got descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(unescape(t, string(found[1])), &got); err != nil {
		t.Fatal(err)
	}
	want := protodesc.ToFileDescriptorProto(File_api_agentkms_plugin_v1_plugin_proto)
	want.Name = got.Name // the file lies elsewhere there
	for _, m := range want.GetMessageType() {
		for _, f := range m.GetField() {
			f.JsonName = nil // protoc leaves it out of Python
		}
	}
	if !proto.Equal(&got, want) {
		t.Errorf("plugin_pb2.py is not current: make it anew with protoc 3.21, see the template's README")
	}
	if !strings.Contains(Proto(), "package agentkms.plugin.v1;") {
		t.Error("Proto is not the proto file")
	}
}

// unescape reads a Python bytes literal as protoc writes it.
func unescape(t *testing.T, s string) []byte {
	t.Helper()
	var out bytes.Buffer
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'n':
			out.WriteByte('\n')
		case 'r':
			out.WriteByte('\r')
		case 't':
			out.WriteByte('\t')
		case '\\', '\'', '"':
			out.WriteByte(c)
		case 'x':
			out.WriteByte(hexDigit(s[i+1])<<4 | hexDigit(s[i+2]))
			i += 2
		default:
			t.Fatalf("unknown escape %q", c)
		}
	}
	return out.Bytes()
}

func hexDigit(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}
