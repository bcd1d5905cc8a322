package plugin

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// While somebody reads an answer slowly, the plugin sends what it likes: none of it
// must grow without a bound.
func TestDialogue_KeepsNoFlood(t *testing.T) {
	long := strings.Repeat("x", 1<<16) // a thousand of them are far more than may be kept
	route := func(more bool) *own.PluginFrame {
		return &own.PluginFrame{Body: &own.PluginFrame_Route{Route: &own.RouteResponse{
			Status: 200, More: more, Headers: []*own.Header{{Name: "x", Value: long}},
		}}}
	}
	for name, f := range map[string]*own.PluginFrame{
		"refusals": {Body: &own.PluginFrame_Refusal{Refusal: &own.Refusal{Reason: long}}},
		"heads":    route(true),
		"ends":     route(false),
		"hooks":    {Body: &own.PluginFrame_Hook{Hook: &own.HookResponse{}}},
		"chunks":   {Body: &own.PluginFrame_Chunk{Chunk: &own.BodyChunk{Data: []byte(long), More: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			x := &dialogue{arrived: make(chan struct{}, 1), more: make(chan struct{}, 1)}
			l := &lane{open: map[uint64]*dialogue{1: x}, next: 1}
			x.lane, f.Id = l, 1
			data, err := proto.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			most, broken := 0, false
			for n := 0; n < 2*mostStrays && !broken; n++ {
				broken = l.hand(data) != nil
				size := 0
				for _, f := range x.frames {
					size += proto.Size(f.frame)
				}
				most = max(most, size)
			}
			if limit := credit + own.MaxMessageBytes + framing; most > limit {
				t.Errorf("%d bytes are kept, %d may be", most, limit)
			}
			if !broken {
				t.Error("the plugin is never stopped")
			}
		})
	}
}
