package e2e

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// lossy passes connections on to a server. Of the first one it swallows whatever
// the server sends after the handshake, and cuts it when done says so: the request
// arrived, and its answer is lost.
func lossy(t *testing.T, server string, done func() bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	var connections atomic.Int32
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			behind, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			if connections.Add(1) > 1 {
				go func() { _, _ = io.Copy(behind, client); _ = behind.Close() }()
				go func() { _, _ = io.Copy(client, behind); _ = client.Close() }()
				continue
			}
			go lose(client, behind, done)
		}
	}()
	return l.Addr().String()
}

func lose(client, server net.Conn, done func() bool) {
	var flights atomic.Int32 // of the client: its hello, then its certificate and the request
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := client.Read(buffer)
			if err != nil {
				return
			}
			flights.Add(1)
			if _, err := server.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			if err != nil {
				return
			}
			if flights.Load() < 2 {
				_, _ = client.Write(buffer[:n])
			}
		}
	}()
	for end := time.Now().Add(10 * time.Second); !done() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	_ = client.Close()
	_ = server.Close()
}

// TestLostAnswer_OfAnInvitation cuts the connection between the command and the
// server once the invitation is recorded: the command repeats it by itself, prints
// a token that works, and no second invitation exists that nobody saw.
func TestLostAnswer_OfAnInvitation(t *testing.T) {
	w := equipped(t, Options{})
	invited := func(kind string) int {
		list, err := w.Records(t.Context(), "")
		if err != nil {
			return 0
		}
		n := 0
		for _, r := range list {
			if r.Type == kind {
				n++
			}
		}
		return n
	}
	proxy := lossy(t, w.Main, func() bool { return invited("subject.invited") > 0 })
	text, err := w.House.Command(t.Context(), "agent", "token", "--role", "deployer", "--url", "https://"+proxy)
	must(t, err)
	who, err := sallyport.Enrol(t.Context(), text[:len(text)-1], "newcomer")
	must(t, err)
	must(t, Eventually(5*time.Second, func() error {
		if first, again := invited("subject.invited"), invited("subject.replayed"); first != 1 || again != 1 {
			return errors.New("not one invitation and one repetition of it")
		}
		return nil
	}))
	if who.Subject.Name != "newcomer" {
		t.Errorf("enrolled %+v", who.Subject)
	}
}
