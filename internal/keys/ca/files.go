package ca

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// FilesConfig names certificates that someone else renews.
type FilesConfig struct {
	Certificate string           // PEM, leaf first; empty with Key: the embedded authority's certificate is shown
	Key         string           // PEM
	ClientCA    string           // PEM; empty: only the embedded authority's clients
	Logger      *slog.Logger     // hears of reloads and of broken files; nil: nobody
	Now         func() time.Time // nil: time.Now
	Every       time.Duration    // at most one look at the files per this time; zero: a second
}

// Files is a server's certificate, key and client CA from files. It looks at
// their content again during handshakes, at most once in FilesConfig.Every, and
// changes to new files only when all of them hold together; until then the old
// ones serve and the fault is logged, once for each state of the files. Safe
// for concurrent use.
type Files struct {
	cfg     FilesConfig
	current atomic.Pointer[loaded]

	mu     sync.Mutex // held by the one handshake that looks
	looked time.Time
	failed [sha256.Size]byte // content that was refused last
	err    error             // why, nil after a good look
}

// loaded is one consistent state of the files.
type loaded struct {
	digest  [sha256.Size]byte
	pair    *tls.Certificate
	clients []*x509.Certificate
}

// maxFile bounds each file.
const maxFile = 1 << 20

// OpenFiles reads the files; at the start they must be good. Faults are
// Invalid, NotFound or Denied and name the path.
func OpenFiles(cfg FilesConfig) (*Files, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Files{cfg: cfg, looked: cfg.Now()}
	content, err := f.read()
	if err != nil {
		return nil, err
	}
	state, err := f.parse(content)
	if err != nil {
		return nil, err
	}
	f.current.Store(state)
	return f, nil
}

// GetCertificate has the signature of tls.Config.GetCertificate. It is for a
// Files with a certificate.
func (f *Files) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	ctx := context.Background()
	if hello != nil && hello.Context() != nil {
		ctx = hello.Context()
	}
	f.Look(ctx)
	return f.current.Load().pair, nil
}

// ClientCAs is the client CA's certificates, nil without such a file.
func (f *Files) ClientCAs() []*x509.Certificate { return f.current.Load().clients }

// Err is why the files on disk are not in use, nil if they are: for readiness
// and status pages.
func (f *Files) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Look reads the files again if the last look is long enough ago and no other
// caller is looking.
func (f *Files) Look(ctx context.Context) {
	if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	now := f.cfg.Now()
	if since := now.Sub(f.looked); since >= 0 && since < f.cfg.Every {
		return
	}
	f.looked = now
	content, err := f.read()
	digest := content.digest()
	if err == nil && digest == f.current.Load().digest {
		f.err = nil
		return
	}
	if f.err != nil && digest == f.failed {
		return // known and reported
	}
	var state *loaded
	if err == nil {
		state, err = f.parse(content)
	}
	if err != nil {
		f.failed, f.err = digest, err
		f.cfg.Logger.ErrorContext(ctx, "certificate files cannot be used, the old ones still serve", slog.Any("err", err))
		return
	}
	f.current.Store(state)
	f.err = nil
	if state.pair == nil {
		f.cfg.Logger.InfoContext(ctx, "client authorities reloaded", slog.Int("authorities", len(state.clients)))
		return
	}
	f.cfg.Logger.InfoContext(ctx, "certificate files reloaded",
		slog.String("serial", SerialText(state.pair.Leaf.SerialNumber)), slog.Time("not_after", state.pair.Leaf.NotAfter))
}

// contents is the bytes of the three files.
type contents [3][]byte

func (c contents) digest() [sha256.Size]byte {
	var all []byte
	for _, b := range c {
		one := sha256.Sum256(b)
		all = append(all, one[:]...)
	}
	return sha256.Sum256(all)
}

func (f *Files) read() (contents, error) {
	var c contents
	for i, path := range []string{f.cfg.Certificate, f.cfg.Key, f.cfg.ClientCA} {
		if path == "" {
			continue
		}
		b, err := readBounded(path)
		if err != nil {
			return c, err
		}
		c[i] = b
	}
	return c, nil
}

func readBounded(path string) (content []byte, err error) {
	file, err := os.Open(path) //nolint:gosec // the operator names the path
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.NotFoundf("the file %s does not exist", path)
	case err != nil:
		return nil, fault.Deniedf("the file %s cannot be read: check its permissions", path).Because(err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fault.Invalidf("%s is not a regular file", path)
	}
	content, err = io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fault.Wrap(err, "read %s", path)
	}
	if len(content) > maxFile {
		return nil, fault.Invalidf("the file %s is larger than %d bytes", path, maxFile)
	}
	return content, nil
}

// parse accepts only what can serve now.
func (f *Files) parse(c contents) (state *loaded, err error) {
	state = &loaded{digest: c.digest()}
	if f.cfg.Certificate != "" {
		if state.pair, err = f.parsePair(c[0], c[1]); err != nil {
			return nil, err
		}
	}
	if f.cfg.ClientCA != "" {
		if state.clients, err = parseAuthorities(f.cfg.ClientCA, c[2]); err != nil {
			return nil, err
		}
	}
	return state, nil
}

func (f *Files) parsePair(certificate, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		// The cause may quote the files; it stays inside.
		return nil, fault.Invalidf("certificate %s and key %s do not make a pair: both must be PEM, leaf first, and belong together", f.cfg.Certificate, f.cfg.Key).Because(err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = parseLeaf(pair.Certificate[0]); err != nil {
			return nil, err
		}
	}
	if now := f.cfg.Now(); now.Before(pair.Leaf.NotBefore) || !now.Before(pair.Leaf.NotAfter) {
		return nil, fault.Invalidf("the certificate in %s is valid from %s to %s, not now", f.cfg.Certificate,
			pair.Leaf.NotBefore.UTC().Format(time.RFC3339), pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return &pair, nil
}

// parseAuthorities reads a bundle in which every block is a CA certificate.
func parseAuthorities(path string, text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil || !c.IsCA {
			return nil, fault.Invalidf("the file %s must hold certificates of authorities only, in PEM", path).Because(err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fault.Invalidf("the file %s holds no certificate in PEM", path)
	}
	return all, nil
}

func parseLeaf(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	return c, fault.Wrap(err, "parse a certificate")
}
