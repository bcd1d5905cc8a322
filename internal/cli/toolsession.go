package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/handover"
	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin/local"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

const (
	toolLife   = 5 * time.Minute  // of a plugin's session
	toolOpen   = 15 * time.Second // to open one
	toolEnding = 5 * time.Second  // to end one
)

// handover is what a plugin is told, and the function that ends what it was
// granted.
func (s *shell) handover(ctx context.Context, m manifest.Manifest, row local.Tool, command string, args []string) (handover.Document, func()) {
	doc := handover.Document{
		Plugin: row.Name, Version: row.Package, Command: command, EntryPoints: m.EntryPoints[manifest.GroupCLI], Output: s.output,
	}
	ctx, cancel := context.WithTimeout(ctx, toolOpen)
	defer cancel()
	c, cfg, err := s.caller(ctx)
	doc.URL = cfg.URL
	if c != nil {
		doc.Context = c.Name
	}
	if err == nil {
		doc.CA, err = s.authorities(c)
	}
	scopes := row.Capabilities.Scopes
	if len(scopes) == 0 || asksForHelp(args) {
		return doc, func() {}
	}
	end := func() {}
	if err == nil {
		doc.Session, end, err = delegate(ctx, cfg, scopes)
	}
	if err != nil {
		doc.NoSession = visible(describe(err).Detail)
	}
	return doc, end
}

// asksForHelp reports whether a plugin is only asked how it is used.
func asksForHelp(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.Contains(args, "--help") || slices.Contains(args, "-h")
}

// authorities are those that are trusted at the server, as PEM; empty for the
// system's.
func (s *shell) authorities(c *identity) (string, error) {
	file := s.ca
	if file == "" && c != nil {
		file = filepath.Join(c.folder, "ca.pem")
	}
	if file == "" {
		return "", nil
	}
	text, err := s.readFile(file, maxContext)
	return string(text), err
}

// delegate opens a session that is narrowed to the scopes, and delegates it to a
// key made for it: what the plugin gets opens nothing without that key, cannot be
// refreshed or passed on, and ends when the function is called.
func delegate(ctx context.Context, cfg sallyport.Config, scopes []string) (*handover.Session, func(), error) {
	own := &opened{}
	cfg.Scopes, cfg.Sessions = scopes, own
	client, err := sallyport.New(cfg)
	if err != nil {
		return nil, func() {}, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, func() {}, fault.Internalf("make key").Because(err)
	}
	thumb, err := sallyport.Thumbprint(public)
	if err != nil {
		return nil, func() {}, err
	}
	got, err := client.Delegate(ctx, sallyport.DelegateRequest{Scopes: scopes, KeyThumbprint: thumb, TTL: toolLife})
	id := "current" // with it ends what it delegated
	if !cfg.Token.Empty() {
		id = got.Session.ID // the user's own session lives on
	}
	end := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), toolEnding)
		defer cancel()
		if id != "" {
			_ = client.EndSession(ctx, id, "the command of the plugin has ended")
		}
		client.Close()
	}
	switch {
	case err == nil:
	case own.is: // the narrowed one is open, and nobody else would end it
		end()
		return nil, func() {}, err
	default:
		client.Close()
		return nil, func() {}, err
	}
	return &handover.Session{
		Token: got.Token.Reveal(), TokenType: got.TokenType, ExpiresAt: got.ExpiresAt, Scopes: scopes, Key: handover.NewKey(private),
	}, end, nil
}

// opened knows whether a client has opened a session. It keeps none.
type opened struct{ is bool }

// Load implements sallyport.SessionCache.
func (*opened) Load(context.Context) (*sallyport.Session, error) { return nil, nil } //nolint:nilnil // there is none

// Store implements sallyport.SessionCache.
func (o *opened) Store(_ context.Context, s *sallyport.Session) error {
	o.is = s != nil
	return nil
}

// plainVariables are handed on to every plugin: how to write for this user's
// terminal.
var plainVariables = []string{
	"TERM", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES", "TZ", "LANG", "LANGUAGE",
	"LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME",
}

// toolEnv is the environment of a plugin.
func (s *shell) toolEnv(row local.Tool, doc handover.Document) []string {
	handed := map[string]string{"SALLYPORT_URL": doc.URL, "ATTESTATION_API_URL": doc.URL}
	if doc.Session != nil {
		handed["SALLYPORT_TOKEN"], handed["ATTESTATION_TOKEN"] = doc.Session.Token, doc.Session.Token
	}
	names := slices.Clone(plainVariables)
	if runtime.GOOS == "windows" {
		names = append(names, "SYSTEMROOT") // without which nothing there has a network
	}
	var env []string
	for _, name := range append(names, row.Capabilities.Environment...) {
		value := s.Getenv(name)
		if slices.Contains(manifest.Handed, name) {
			value = handed[name]
		} else if !manifest.PassedOn(name) {
			continue
		}
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// passing hands the signals that reach this process on to a plugin.
type passing struct {
	caught chan os.Signal
	target chan *os.Process
	stop   func()
}

func (p passing) to(process *os.Process) { p.target <- process }
