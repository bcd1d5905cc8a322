package plugin

import (
	"errors"
	"runtime"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// sender is the one writer of a stream of calls. Answers that are ready at the
// same time travel in one message.
type sender struct {
	stream grpc.ServerStream
	mu     sync.Mutex
	room   sync.Cond     // there is room in the batch again
	batch  own.Batch     // waits to be sent
	ready  chan struct{} // there is something in it
	err    error         // of the stream
	over   chan struct{}
}

func newSender(stream grpc.ServerStream) *sender {
	s := &sender{stream: stream, ready: make(chan struct{}, 1), over: make(chan struct{})}
	s.room.L = &s.mu
	go s.run()
	return s
}

// add puts a frame into the next message, and waits while that is full. A frame
// that cannot be sent is replaced by a refusal, and is an error. It must not be
// called after close.
func (s *sender) add(f *own.PluginFrame) error {
	size := proto.Size(f)
	if size > own.MaxMessageBytes-16 { // the host would break all calls off
		return s.instead(f, errors.New("the answer is larger than a message may be"))
	}
	if err := s.append(f, size); err != nil {
		return s.instead(f, err)
	}
	return nil
}

// instead sends a refusal in the place of an answer that cannot be sent.
func (s *sender) instead(f *own.PluginFrame, why error) error {
	no := &own.PluginFrame{Id: f.GetId(), Body: &own.PluginFrame_Refusal{Refusal: &own.Refusal{
		Code: own.Code_CODE_UNAVAILABLE, Reason: "the plugin's answer cannot be sent",
	}}}
	return errors.Join(why, s.append(no, proto.Size(no)))
}

func (s *sender) append(f *own.PluginFrame, size int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.batch) > 0 && len(s.batch)+size > own.BatchBytes && s.err == nil {
		s.room.Wait()
	}
	if s.err != nil {
		return s.err
	}
	batch, err := s.batch.AppendMessage(f)
	if err != nil {
		return err
	}
	s.batch = batch
	select {
	case s.ready <- struct{}{}:
	default:
	}
	return nil
}

func (s *sender) run() {
	defer close(s.over)
	for range s.ready {
		runtime.Gosched() // what is about to be ready too travels in the same message
		s.mu.Lock()
		batch, failed := s.batch, s.err
		s.batch = make(own.Batch, 0, min(cap(batch), own.BatchBytes))
		s.room.Broadcast()
		s.mu.Unlock()
		if len(batch) == 0 || failed != nil {
			continue
		}
		if err := s.stream.SendMsg(batch); err != nil {
			s.mu.Lock()
			s.err = err
			s.room.Broadcast()
			s.mu.Unlock()
		}
	}
}

// close returns when all is sent.
func (s *sender) close() {
	close(s.ready)
	<-s.over
}
