package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// identity is a context: who the user is at one server. It is a folder with
// context.json, cert.pem, key.pem, ca.pem and, while one is open, session.json.
type identity struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Subject string `json:"subject"`
	Kind    string `json:"kind"`
	folder  string
}

const (
	contextsDir = "contexts"
	currentFile = "current-context"
	maxContext  = 1 << 20
)

var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func folder(path string) string { return filepath.Dir(path) }

// contextNames lists the contexts, none if there are none or no home.
func (s *shell) contextNames() []string {
	home, err := s.home()
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(home, contextsDir))
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && contextName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// current names the context that is used without --context: the chosen one, or
// the only one. It is empty if there is neither.
func (s *shell) current() (string, error) {
	home, err := s.home()
	if err != nil {
		return "", err
	}
	text, err := s.readFile(filepath.Join(home, currentFile), maxContext)
	if name := strings.TrimSpace(string(text)); err == nil && name != "" {
		return name, nil
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", err
	}
	if names := s.contextNames(); len(names) == 1 {
		return names[0], nil
	}
	return "", nil
}

// choose makes a context the current one.
func choose(home, name string) error {
	return replace(filepath.Join(home, currentFile), []byte(name+"\n"), 0o600)
}

// identity reads the context to act with; nil if none is chosen.
func (s *shell) identity() (*identity, error) {
	name := s.context
	if name == "" {
		var err error
		if name, err = s.current(); err != nil || name == "" {
			return nil, err
		}
	}
	home, err := s.home()
	if err != nil {
		return nil, err
	}
	return s.open(home, name)
}

func (s *shell) open(home, name string) (*identity, error) {
	if !contextName.MatchString(name) {
		return nil, fault.Invalidf("a context has a name of letters, digits, dots, dashes and underscores")
	}
	at := filepath.Join(home, contextsDir, name)
	text, err := s.readFile(filepath.Join(at, "context.json"), maxContext)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.NotFoundf("there is no context %s in %s; see: sallyport auth contexts", name, home).Because(err)
	}
	if err != nil {
		return nil, err
	}
	c := &identity{folder: at}
	if err := canon.Lenient(text, maxContext, 8, c); err != nil {
		return nil, fault.Invalidf("the context %s is damaged", name).Because(err)
	}
	c.Name = name
	return c, nil
}

// keep writes a new context, as a whole or not at all, and makes it the current
// one if there is none.
func (s *shell) keep(home string, c identity, certificate, key, ca []byte) error {
	if err := s.free(home, c.Name); err != nil {
		return err
	}
	all := filepath.Join(home, contextsDir)
	if err := os.MkdirAll(all, 0o700); err != nil {
		return fileFault(all, err)
	}
	temp, err := os.MkdirTemp(all, ".new-*")
	if err != nil {
		return fileFault(all, err)
	}
	defer func() { _ = os.RemoveAll(temp) }() // nothing is there any more when all went well
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fault.Wrap(err, "encode context")
	}
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{
		{"key.pem", key, 0o600}, {"cert.pem", certificate, 0o644}, {"ca.pem", ca, 0o644}, {"context.json", append(text, '\n'), 0o644},
	} {
		if err := create(filepath.Join(temp, f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	if err := os.Rename(temp, filepath.Join(all, c.Name)); err != nil {
		return fileFault(filepath.Join(all, c.Name), err)
	}
	if _, err := os.Stat(filepath.Join(home, currentFile)); errors.Is(err, fs.ErrNotExist) {
		return choose(home, c.Name)
	}
	return nil
}

// free refuses a name for a context that is taken, before anything is done for
// it that cannot be undone.
func (s *shell) free(home, name string) error {
	if !contextName.MatchString(name) {
		return fault.Invalidf("a context has a name of letters, digits, dots, dashes and underscores, and %q is none", name)
	}
	if _, err := os.Lstat(filepath.Join(home, contextsDir, name)); err == nil {
		return fault.Conflictf("there is a context %s in %s already; choose another name", name, home)
	}
	return nil
}

// pair reads certificate and key. A renewal replaces both files, one after the
// other, so a mismatch is looked at once more.
func (c *identity) pair() (tls.Certificate, error) {
	var pair tls.Certificate
	var err error
	for range 3 {
		pair, err = tls.LoadX509KeyPair(filepath.Join(c.folder, "cert.pem"), filepath.Join(c.folder, "key.pem"))
		if err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return pair, fault.Unauthenticatedf("certificate and key of context %s cannot be used; enrol again", c.Name).Because(err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return pair, fault.Unauthenticatedf("the certificate of context %s is damaged; enrol again", c.Name).Because(err)
		}
	}
	return pair, nil
}

func (c *identity) roots() (*x509.CertPool, error) {
	return readRoots(filepath.Join(c.folder, "ca.pem"))
}

func readRoots(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the user names it
	if err != nil {
		return nil, fileFault(path, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fault.Invalidf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}

// sessions keeps the session of a context in its folder.
type sessions struct{ path string }

var _ sallyport.SessionCache = sessions{}

// kept is the file's form. The token is written out: the file is a secret.
type kept struct {
	Token      string                `json:"token"`
	TokenType  string                `json:"token_type"`
	ExpiresAt  time.Time             `json:"expires_at"`
	ObtainedAt time.Time             `json:"obtained_at"`
	Session    sallyport.SessionInfo `json:"session"`
}

// Load reads the session; a file that cannot be read counts as none, since
// another session is easily opened.
func (c sessions) Load(context.Context) (*sallyport.Session, error) {
	text, err := os.ReadFile(c.path)
	if err != nil {
		return nil, nil //nolint:nilerr // no session is no error
	}
	var k kept
	if err := canon.Lenient(text, maxContext, 8, &k); err != nil {
		return nil, nil //nolint:nilerr // no session is no error
	}
	return &sallyport.Session{
		Token: sallyport.NewSecret(k.Token), TokenType: k.TokenType, ExpiresAt: k.ExpiresAt, ObtainedAt: k.ObtainedAt, Session: k.Session,
	}, nil
}

// Store writes the session, or removes it.
func (c sessions) Store(_ context.Context, session *sallyport.Session) error {
	if session == nil {
		if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fileFault(c.path, err)
		}
		return nil
	}
	text, err := json.Marshal(kept{
		session.Token.Reveal(), session.TokenType, session.ExpiresAt, session.ObtainedAt, session.Session,
	})
	if err != nil {
		return fault.Wrap(err, "encode session")
	}
	return replace(c.path, text, 0o600)
}

// sortedContexts reads all contexts that can be read.
func (s *shell) sortedContexts() ([]*identity, error) {
	home, err := s.home()
	if err != nil {
		return nil, err
	}
	names := s.contextNames()
	slices.Sort(names)
	var all []*identity
	for _, n := range names {
		c, err := s.open(home, n)
		if err != nil {
			s.warn("%s", fault.Public(err))
			continue
		}
		all = append(all, c)
	}
	return all, nil
}
