package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

func streamBudgets(options) []budget {
	return []budget{atLeast("ratio", 0.6), atLeast("requests_per_s", 110000), atMost("both_cpu_us", 13)}
}

// pluginStream measures the smallest call on the stream of sallyport.plugin.v1
// through the host, with its turn, number, deadline, cancellation and metrics, beside
// a bare stream that echoes messages of the same size and does nothing else. The
// sides take turns in short slices.
func pluginStream(ctx context.Context, o options) (r result, err error) {
	// A kind without a form for its parameters: the host asks the plugin to vet them.
	p, err := wrap(ctx, o.dir, idlePlugin.pkg, "load-vet", 0)
	if err != nil {
		return r, err
	}
	h, err := p.house(o.dir, plugin.Scale{Queue: maxConns})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, h.end()) }()
	if err := h.begin(ctx); err != nil {
		return r, err
	}
	vet, err := h.vet()
	if err != nil {
		return r, err
	}
	if err := vet(ctx); err != nil { // starts the plugin
		return r, fmt.Errorf("first call: %w", err)
	}
	bare, err := startEchoStream(ctx, o.dir)
	if err != nil {
		return r, err
	}
	defer bare.stop()
	pid := h.Status()[0].PID
	both := func() (time.Duration, error) { return twoTimes(pid) }
	var host, floor sample
	for begin := time.Now(); time.Since(begin) < o.warm+2*o.duration || len(floor.times) == 0; {
		s, err := drive{
			conns: o.conns, warm: slice, duration: 5 * slice, cpu: both,
			open: func(context.Context, int) (call, error) { return vet, nil },
		}.run(ctx)
		if err != nil {
			return r, err
		}
		f, err := bare.pipeline(ctx, o.conns, 5*slice)
		if err != nil {
			return r, err
		}
		if time.Since(begin) < o.warm {
			continue
		}
		host.add(s)
		floor.add(f)
	}
	slices.Sort(host.times) // those of each turn were
	r.take(host)
	r.CPUOf = "this process and the plugin's"
	r.against("a bare bidirectional stream that echoes, as many messages in flight", floor.perSecond())
	r.figure("both_cpu_us", r.CPU)
	r.figure("floor_both_cpu_us", floor.cpuEach()/1e3)
	return r, nil
}

// twoTimes is the processor time of this process and another one.
func twoTimes(pid int) (time.Duration, error) {
	mine, err := ownTime()
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat") // it has no children, and a look at all processes takes milliseconds
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	other, err := parseStat(string(text))
	return mine + other.cpu, err
}

// echoStreamCommand makes this program the bare stream's other end.
const echoStreamCommand = "echo-stream"

// echoStream sends each message back as it is.
type echoStream struct{ own.UnimplementedPluginServer }

// Calls echoes.
func (echoStream) Calls(s grpc.BidiStreamingServer[own.HostFrames, own.PluginFrames]) error {
	for {
		var message own.Batch
		if err := s.RecvMsg(&message); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err //nolint:wrapcheck // to gRPC
		}
		if err := s.SendMsg(message); err != nil {
			return err //nolint:wrapcheck // to gRPC
		}
	}
}

// echoStreamServer serves on a socket until standard input ends.
func echoStreamServer(socket string, in io.Reader, out io.Writer) error {
	l, err := net.Listen("unix", socket) //nolint:noctx // bound for the whole run
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	g := grpc.NewServer(grpc.ForceServerCodecV2(own.NewCodec()), grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20))
	own.RegisterPluginServer(g, echoStream{})
	_, _ = fmt.Fprintln(out, "ready")
	go func() {
		_, _ = io.Copy(io.Discard, in)
		g.Stop()
	}()
	if err := g.Serve(l); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// bareStream is an open bare stream.
type bareStream struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	conn   *grpc.ClientConn
	stream grpc.ClientStream
}

func startEchoStream(ctx context.Context, dir string) (*bareStream, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	socket := filepath.Join(dir, "echo.sock")
	b := &bareStream{cmd: exec.CommandContext(ctx, self, echoStreamCommand, socket)} //nolint:gosec // this program
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	b.cmd.Stderr = os.Stderr
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start bare stream: %w", err)
	}
	stdout, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start bare stream: %w", err)
	}
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start bare stream: %w", err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		b.stop()
		return nil, fmt.Errorf("start bare stream: %q, %w", line, err)
	}
	b.conn, err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(own.NewCodec())), grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(1<<20))
	if err == nil {
		b.stream, err = own.NewPluginClient(b.conn).Calls(ctx)
	}
	if err != nil {
		b.stop()
		return nil, fmt.Errorf("open bare stream: %w", err)
	}
	return b, nil
}

func (b *bareStream) stop() {
	if b.conn != nil {
		_ = b.conn.Close()
	}
	_ = b.stdin.Close()
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait() // killed, so it always fails
}

// pipeline keeps so many messages in flight for a time: one goroutine sends, this
// one receives.
func (b *bareStream) pipeline(ctx context.Context, inFlight int, d time.Duration) (sample, error) {
	message, err := own.Batch(nil).AppendMessage(&own.HostFrame{Id: 1 << 40, TimeoutMs: 5000, Body: &own.HostFrame_Vet{
		Vet: &own.VetRequest{Scope: &own.Scope{Kind: "load-vet", Params: []byte(`{"places":["north"]}`), TtlSeconds: 300}},
	}})
	if err != nil {
		return sample{}, fmt.Errorf("make message: %w", err)
	}
	before, err := twoTimes(b.cmd.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	room, sent := make(chan struct{}, inFlight), make(chan int, 1)
	begin := time.Now()
	go func() {
		n := 0
		for ; time.Since(begin) < d && ctx.Err() == nil; n++ {
			room <- struct{}{}
			if b.stream.SendMsg(message) != nil {
				break
			}
		}
		close(room)
		sent <- n
	}()
	got := 0
	for range room {
		var echo own.Batch
		if err := b.stream.RecvMsg(&echo); err != nil {
			return sample{}, fmt.Errorf("receive: %w", err)
		}
		got++
	}
	if n := <-sent; n != got {
		return sample{}, fmt.Errorf("%d messages of %d came back", got, n)
	}
	took := time.Since(begin)
	after, err := twoTimes(b.cmd.Process.Pid)
	return sample{conns: inFlight, took: took, cpu: after - before, times: make([]time.Duration, got)}, err
}
