package plugin

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// caller is the far end of a stream of services, as a plugin has it.
type caller struct {
	grpc.ClientStream
	calls   chan []byte
	answers chan *own.HostAnswer
}

func (c *caller) RecvMsg(m any) error {
	raw, ok := <-c.calls
	if !ok {
		return io.EOF
	}
	*m.(*own.Batch) = raw
	return nil
}

func (c *caller) Recv() (*own.HostCall, error) { return nil, errors.New("calls are received encoded") }
func (c *caller) Send(a *own.HostAnswer) error { c.answers <- a; return nil }

// slowDatabase does nothing until it is told to go on.
type slowDatabase struct {
	Database
	begun, on chan struct{}
}

func (d *slowDatabase) wait() {
	d.begun <- struct{}{}
	<-d.on
}

func (d *slowDatabase) Exec(context.Context, string, []Statement) ([]int64, error) {
	d.wait()
	return nil, nil
}

func (d *slowDatabase) Query(context.Context, string, Statement, int) (Rows, error) {
	d.wait()
	return Rows{}, nil
}

// desk is services without a process, with a database that is slow.
type desk struct {
	*caller
	*slowDatabase
	s    *services
	next uint64
	now  time.Time
	err  chan error // of its reader
	once sync.Once
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{
		caller:       &caller{calls: make(chan []byte), answers: make(chan *own.HostAnswer, 4*mostRefused)},
		slowDatabase: &slowDatabase{begun: make(chan struct{}, mostOutstanding), on: make(chan struct{})},
		now:          time.Unix(1, 0), err: make(chan error, 1),
	}
	h := &Host{cfg: Config{Databases: d.slowDatabase, MaxMessage: own.MaxMessageBytes, Now: func() time.Time { return d.now }}}
	h.table.Store(&table{})
	d.s = &services{name: "x", publisher: "acme", asked: &manifest.Services{Database: true}, host: h, stream: d.caller, rows: make(chan struct{}, mostQueries)}
	go func() { d.err <- d.s.read(t.Context()) }()
	t.Cleanup(func() {
		d.hangUp()
		d.s.work.Wait()
	})
	return d
}

// hangUp ends the stream.
func (d *desk) hangUp() { d.once.Do(func() { close(d.calls) }) }

// call sends a call under the next number.
func (d *desk) call(t *testing.T, c *own.HostCall) {
	t.Helper()
	d.next++
	c.Id = d.next
	raw, err := proto.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	d.calls <- raw
}

func execOf(sql string) *own.HostCall {
	return &own.HostCall{Body: &own.HostCall_Exec{Exec: &own.Exec{Statements: []*own.Statement{{Sql: sql}}}}}
}

func queryOf(sql string) *own.HostCall {
	return &own.HostCall{Body: &own.HostCall_Query{Query: &own.Query{Statement: &own.Statement{Sql: sql}}}}
}

// A plugin has no more outstanding than 16 MiB, and may go on when that is done.
func TestServices_BoundBytesInFlight(t *testing.T) {
	d := newDesk(t)
	large := strings.Repeat("x", 3<<20)
	for range 5 {
		d.call(t, execOf(large))
		<-d.begun
	}
	d.call(t, execOf(large))
	if a := <-d.answers; a.GetId() != 6 || a.GetRefusal().GetCode() != own.Code_CODE_EXHAUSTED {
		t.Fatalf("the sixth: %v", a)
	}
	d.call(t, execOf("small"))
	<-d.begun
	close(d.on)
	for range 6 {
		if a := <-d.answers; a.GetRefusal() != nil {
			t.Fatalf("%v", a)
		}
	}
	d.s.work.Wait()
	if d.s.calls != 0 || d.s.weight != 0 {
		t.Fatalf("%d calls of %d bytes are outstanding, and none is", d.s.calls, d.s.weight)
	}
	for range 2 {
		d.call(t, execOf(large))
		<-d.begun
	}
	d.hangUp()
	if err := <-d.err; err == nil || !strings.Contains(err.Error(), "ended the stream") {
		t.Fatal(err)
	}
}

// A message of two bytes for each part would be forty times as large, decoded.
func TestServices_RefuseWhatExpands(t *testing.T) {
	d := newDesk(t)
	const parts = 2 << 20
	var arguments []byte
	for range parts {
		arguments = append(arguments, 2<<3|byte(protowire.BytesType), 0) // Statement.arguments
	}
	statement := protowire.AppendBytes([]byte{1<<3 | byte(protowire.BytesType)}, arguments) // Exec.statements
	exec := protowire.AppendBytes([]byte{8<<3 | byte(protowire.BytesType)}, statement)      // HostCall.exec
	raw := append([]byte{1 << 3, 1}, exec...)
	c := &own.HostCall{}
	if err := proto.Unmarshal(raw, c); err != nil || len(c.GetExec().GetStatements()[0].GetArguments()) != parts {
		t.Fatalf("the test makes something else: %v", err)
	}
	c.Reset()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d.calls <- raw
	if a := <-d.answers; a.GetRefusal().GetCode() != own.Code_CODE_EXHAUSTED {
		t.Fatalf("%v", a)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("it took %d MiB to refuse it", n>>20)
	}
	if err := decode(raw, &own.HostCall{}); !errors.Is(err, errHeavy) {
		t.Errorf("an answer of such parts: %v", err)
	}
}

// Refusals fall due again as time passes; a plugin that collects too many in a second
// breaks the rules.
func TestServices_RefusalsAreForgotten(t *testing.T) {
	d := newDesk(t)
	for range mostOutstanding {
		d.call(t, execOf("wait"))
		<-d.begun
	}
	for range 3 {
		for range mostRefused {
			d.call(t, execOf("more"))
			if a := <-d.answers; a.GetRefusal().GetCode() != own.Code_CODE_EXHAUSTED {
				t.Fatalf("%v", a)
			}
		}
		d.now = d.now.Add(time.Second)
	}
	for range mostRefused {
		d.call(t, execOf("more"))
	}
	d.call(t, execOf("one too many"))
	if err := <-d.err; !errors.Is(err, errServices) {
		t.Fatal(err)
	}
	close(d.on)
}

// Few answers of queries are made at a time; further ones wait.
func TestServices_BoundQueries(t *testing.T) {
	d := newDesk(t)
	for range mostQueries + 3 {
		d.call(t, queryOf("SELECT 1"))
	}
	for range mostQueries {
		<-d.begun
	}
	d.call(t, execOf("beside them"))
	<-d.begun
	if n := len(d.begun); n != 0 {
		t.Fatalf("%d queries more are being answered", n)
	}
	close(d.on)
	for range mostQueries + 4 {
		if a := <-d.answers; a.GetRefusal() != nil {
			t.Fatalf("%v", a)
		}
	}
}
