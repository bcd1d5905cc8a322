package pluginv1

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"
)

// frames reads a whole batch, as a message decoder does.
func frames(b Batch) ([][]byte, error) {
	var out [][]byte
	for {
		f, err := b.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
}

func TestBatch_IsTheMessage(t *testing.T) {
	one := &PluginFrame{Id: 7, Body: &PluginFrame_Refusal{Refusal: &Refusal{Code: Code_CODE_DENIED, Reason: "no"}}}
	two := &PluginFrame{Id: 1 << 60}
	b, err := Batch(nil).AppendMessage(one)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := proto.Marshal(two)
	if err != nil {
		t.Fatal(err)
	}
	b = b.Append(encoded)
	var got PluginFrames
	if err := proto.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(&got, &PluginFrames{Frames: []*PluginFrame{one, two}}) {
		t.Fatalf("%v", &got)
	}
	list, err := frames(b)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d frames, %v", len(list), err)
	}
	for n, want := range []uint64{7, 1 << 60} {
		if id, err := FrameID(list[n]); err != nil || id != want {
			t.Errorf("id %d, %v", id, err)
		}
	}
}

func TestBatch_LeavesWhatCannotBeEncoded(t *testing.T) {
	b, err := Batch("before").AppendMessage(&PluginFrame{Id: 1, Body: &PluginFrame_Refusal{Refusal: &Refusal{Reason: "\xff"}}})
	if err == nil || string(b) != "before" {
		t.Fatalf("%q, %v", b, err)
	}
}

// Whatever a decoder of the message takes, the batch reads alike, and the other
// way round.
func FuzzBatch(f *testing.F) {
	seed, err := proto.Marshal(&PluginFrames{Frames: []*PluginFrame{{Id: 3, Body: &PluginFrame_Vet{Vet: &VetResponse{}}}, {}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range [][]byte{seed, nil, []byte("\x0a\x02\x08\x01"), []byte("\x0a\x05\x08\x01\x08\x02"), []byte("\x10\x01"), []byte("\x0a\xff\xff\xff\xff\x0f")} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want PluginFrames
		wrong := proto.Unmarshal(data, &want)
		list, err := frames(data)
		if wrong == nil && (err != nil || len(list) != len(want.GetFrames())) {
			t.Fatalf("%d frames of %d, %v", len(list), len(want.GetFrames()), err)
		}
		for n, frame := range list {
			id, err := FrameID(frame)
			var one PluginFrame
			if err := proto.Unmarshal(frame, &one); err == nil && id != one.GetId() {
				t.Fatalf("id %d, want %d", id, one.GetId())
			}
			if wrong == nil && (err != nil || id != want.GetFrames()[n].GetId()) {
				t.Fatalf("frame %d: id %d, %v", n, id, err)
			}
		}
	})
}
