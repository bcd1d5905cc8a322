// Package cli is what the author of a CLI plugin imports: what the command line
// has handed over, and a client that acts with it.
//
//	func main() {
//		client, err := cli.Client()
//		if err != nil {
//			cli.Exit(err)
//		}
//		list, err := client.Grants(context.Background(), sallyport.GrantFilter{})
//		...
//	}
//
// The arguments of the process are the command that was typed and what followed
// it, unread. A program that was started otherwise gets an error from here that
// says so. The package imports no library beyond the SDK.
package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/sallyport-project/sallyport/api/sallyport/handover"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// document is read once: it is gone from the descriptor afterwards.
var document = sync.OnceValues(read)

// Handover is what the command line has handed over. It may be called at any
// time, and gives the same each time.
func Handover() (handover.Document, error) { return document() }

// Client acts at the user's server with the session that was handed over: within
// the scopes that the manifest asks for, until the process ends. Without one the
// error is of kind Unauthenticated and says what the user can do.
func Client() (*sallyport.Client, error) {
	d, err := document()
	if err != nil {
		return nil, err
	}
	return connect(d)
}

func connect(d handover.Document) (*sallyport.Client, error) {
	if d.Session == nil {
		why := d.NoSession
		if why == "" {
			why = "the plugin's manifest asks for no scopes"
		}
		return nil, &sallyport.Error{Kind: sallyport.Unauthenticated, Detail: "the plugin has no session: " + why}
	}
	key, err := d.Session.Key.Private()
	if err != nil {
		return nil, &sallyport.Error{Kind: sallyport.Invalid, Detail: err.Error()}
	}
	c := sallyport.Config{
		URL: d.URL, Token: sallyport.NewSecret(d.Session.Token), Key: key, UserAgent: "sallyport-plugin/" + d.Plugin + "-" + d.Version,
	}
	if d.CA != "" {
		c.Roots = x509.NewCertPool()
		if !c.Roots.AppendCertsFromPEM([]byte(d.CA)) {
			return nil, &sallyport.Error{Kind: sallyport.Invalid, Detail: "the server's authority that was handed over cannot be read"}
		}
	}
	return sallyport.New(c)
}

func read() (handover.Document, error) {
	fd, err := strconv.ParseUint(os.Getenv(handover.Variable), 10, 64)
	if err != nil {
		return handover.Document{}, errors.New("this is a plugin of the sallyport command line, and is started by it: sallyport plugin install FILE --for cli")
	}
	f := os.NewFile(uintptr(fd), "handover")
	if f == nil {
		return handover.Document{}, errors.New("the handover of the command line is not open")
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, handover.MaxBytes+1))
	if err != nil {
		return handover.Document{}, fmt.Errorf("read handover: %w", err)
	}
	return handover.Parse(text)
}

// exits are the exit codes of the command line (docs/cli.md).
var exits = map[sallyport.Kind]int{
	sallyport.Invalid: 2, sallyport.NotFound: 3, sallyport.Denied: 4, sallyport.Unauthenticated: 5, sallyport.Conflict: 6,
	sallyport.Unavailable: 7, sallyport.Exhausted: 7,
}

// Exit prints an error as the command line does, and ends the process with the
// exit code of its kind.
func Exit(err error) {
	code := 1
	if e, ok := errors.AsType[*sallyport.Error](err); ok && exits[e.Kind] != 0 {
		code = exits[e.Kind]
	}
	_, _ = fmt.Fprintln(os.Stderr, err)
	os.Exit(code)
}
