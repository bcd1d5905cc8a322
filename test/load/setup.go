package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/store"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func (in *installation) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(in.root))
	return pool
}

// pack builds and signs a plugin package from a folder of the module that has a
// main package and its plugin.json.
func pack(ctx context.Context, dir, pkg string) (file string, key []byte, publisher string, err error) {
	return packSized(ctx, dir, pkg, 0)
}

// packSized is pack with an executable that is padded to a size.
func packSized(ctx context.Context, dir, pkg string, size int64) (file string, key []byte, publisher string, err error) {
	binary, err := build(ctx, dir, pkg)
	if err != nil {
		return "", nil, "", err
	}
	if info, err := os.Stat(binary); err != nil {
		return "", nil, "", fmt.Errorf("look at plugin: %w", err)
	} else if info.Size() < size { // what follows the program in its file is not looked at
		if err := os.Truncate(binary, size); err != nil {
			return "", nil, "", fmt.Errorf("pad plugin: %w", err)
		}
	}
	source, err := folderOf(ctx, pkg)
	if err != nil {
		return "", nil, "", err
	}
	text, err := os.ReadFile(filepath.Join(source, "plugin.json")) //nolint:gosec // of the module
	if err != nil {
		return "", nil, "", fmt.Errorf("read plugin.json: %w", err)
	}
	m, err := plugin.ReadSpec(text)
	if err != nil {
		return "", nil, "", fmt.Errorf("read plugin.json: %w", err)
	}
	keys, err := plugin.Keygen(filepath.Join(dir, m.Name+"-publisher"))
	if err != nil {
		return "", nil, "", fmt.Errorf("make publisher's key: %w", err)
	}
	file = filepath.Join(dir, m.Name+".package")
	spec := plugin.Spec{Manifest: m, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: binary}}}
	if _, err := plugin.Build(spec, file); err != nil {
		return "", nil, "", fmt.Errorf("build package: %w", err)
	}
	private, err := os.ReadFile(keys.Private)
	if err != nil {
		return "", nil, "", fmt.Errorf("read publisher's key: %w", err)
	}
	parsed, err := plugin.ParsePrivateKey(private)
	if err != nil {
		return "", nil, "", fmt.Errorf("read publisher's key: %w", err)
	}
	if _, err := plugin.Sign(file, parsed); err != nil {
		return "", nil, "", fmt.Errorf("sign package: %w", err)
	}
	key, err = os.ReadFile(keys.Public)
	return file, key, m.Publisher, err
}

// install builds a plugin and installs it as an operator.
func install(ctx context.Context, admin *sallyport.Client, dir, pkg string) error {
	file, key, publisher, err := pack(ctx, dir, pkg)
	if err != nil {
		return err
	}
	if _, err := admin.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: publisher, PublicKey: string(key)}); err != nil {
		return fmt.Errorf("trust publisher: %w", err)
	}
	f, err := os.Open(file) //nolint:gosec // ours
	if err != nil {
		return fmt.Errorf("open package: %w", err)
	}
	defer func() { _ = f.Close() }()
	if _, err := admin.InstallPlugin(ctx, f, sallyport.InstallRequest{}); err != nil {
		return fmt.Errorf("install %s: %w", pkg, err)
	}
	return nil
}

// agent is an enrolled agent with an open session.
type agent struct {
	tls   *tls.Config
	token string
	body  []byte // what it asks for
}

// most agents that share the connections between them.
const mostAgents = 8

// enrol makes agents with the role that the policies of the scenarios know.
func enrol(ctx context.Context, admin *sallyport.Client, roots *x509.CertPool, n int) ([]agent, error) {
	list := make([]agent, 0, n)
	for i := range n {
		invited, err := admin.Invite(ctx, sallyport.InviteRequest{Kind: "agent", Role: "loader", Name: fmt.Sprintf("loader-%d", i)})
		if err != nil {
			return nil, fmt.Errorf("invite agent: %w", err)
		}
		who, err := sallyport.Enrol(ctx, invited.Token.Reveal(), "")
		if err != nil {
			return nil, fmt.Errorf("enrol agent: %w", err)
		}
		client, err := sallyport.New(sallyport.Config{URL: who.URL, Roots: roots, Certificate: &who.Certificate, Timeout: 10 * time.Second})
		if err != nil {
			return nil, fmt.Errorf("make agent's client: %w", err)
		}
		session, err := client.OpenSession(ctx, nil)
		client.Close()
		if err != nil {
			return nil, fmt.Errorf("open session: %w", err)
		}
		list = append(list, agent{token: session.Token.Reveal(), tls: &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{who.Certificate}, NextProtos: []string{"http/1.1"},
		}})
	}
	return list, nil
}

// running founds and starts a server, prepares it as its operator, and gives it
// to do.
func running(ctx context.Context, o options, prepare func(*server, *sallyport.Client) error, do func(*server) error) error {
	return runningAs(ctx, o, "server", "", prepare, do)
}

// runningAs is running in a folder, with this program as the server if it is given a
// command.
func runningAs(
	ctx context.Context, o options, folder, command string, prepare func(*server, *sallyport.Client) error, do func(*server) error,
) (err error) {
	if o.driver == store.PostgreSQL {
		pg, failed := startPostgres()
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, pg.Stop()) }()
		o.dsn = pg.DSN("postgres")
	}
	in, err := found(ctx, o, filepath.Join(o.dir, folder))
	if err != nil {
		return err
	}
	if command != "" {
		in.command = []string{command}
	}
	s, err := in.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	admin, err := s.admin()
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := prepare(s, admin); err != nil {
		return fmt.Errorf("%w; the server says: %s", err, s.log)
	}
	return do(s)
}
