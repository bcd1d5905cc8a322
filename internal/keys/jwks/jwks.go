// Package jwks fetches the public keys of other attestation services and of
// identity providers: from a file, over HTTPS, or by OpenID Connect Discovery,
// and again and again, because such keys are rotated.
//
// What was fetched last stays in force while a source cannot be reached, or answers
// nonsense; a source that was never reached vouches for nobody, and neither does one
// that answers an empty set: it has withdrawn its keys.
package jwks

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/token"
)

// patience bounds one fetch.
const patience = 10 * time.Second

// discovery is where an OpenID Connect provider says where its keys are.
const discovery = "/.well-known/openid-configuration"

// Config says where keys come from.
type Config struct {
	// Sources are files (a path, or file:///path) and https URLs of a JWK set, of an
	// OpenID Connect configuration, or of an issuer that has one. http is for
	// loopback only.
	Sources []string
	Client  *http.Client // with the roots for https; nil for the system's
	Log     *slog.Logger
	Changed func([]token.KeySet) // called when what is trusted has changed; may be nil
}

// Sets are the key sets of some sources. Safe for concurrent use.
type Sets struct {
	cfg    Config
	client *http.Client

	mu      sync.Mutex // one refresh at a time
	texts   []string   // as they were read last; empty while never
	failing atomic.Bool
	look    chan struct{}
	current atomic.Pointer[[]token.KeySet]
}

// New checks the sources; it reads none yet. What is wrong with one is Invalid.
func New(c Config) (*Sets, error) {
	c.Sources = slices.Clone(c.Sources)
	for i, s := range c.Sources {
		u, err := url.Parse(s)
		switch {
		case err != nil || s == "":
			return nil, fault.Invalidf("a source of keys is no path and no URL")
		case u.Scheme == "file":
			c.Sources[i] = u.Path
		case u.Scheme != "" && !fetchable(u):
			return nil, fault.Invalidf("the source of keys %q must be a file, or https, or http on loopback, without a password in it", u.Redacted())
		}
	}
	client := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if c.Client != nil {
		client.Transport = c.Client.Transport
	}
	s := &Sets{cfg: c, client: client, texts: make([]string, len(c.Sources)), look: make(chan struct{}, 1)}
	s.current.Store(&[]token.KeySet{})
	return s, nil
}

// fetchable reports whether what comes from there can be believed.
func fetchable(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	return u.Host != "" && u.User == nil && (u.Scheme == "https" || u.Scheme == "http" && local)
}

// Current are the key sets that count now.
func (s *Sets) Current() []token.KeySet { return *s.current.Load() }

// Refresh reads all sources. A source that fails keeps what it said last, and the
// fault of the first that failed is returned.
func (s *Sets) Refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	changed := false
	sets := make([]token.KeySet, 0, len(s.texts))
	for i, source := range s.cfg.Sources {
		text, err := s.read(ctx, source)
		if err == nil {
			if _, err = token.ParseKeySet(text); err == nil && s.texts[i] != string(text) {
				s.texts[i], changed = string(text), true
			}
			if err != nil && withdrawn(text) && s.texts[i] != "" {
				s.texts[i], changed = "", true
			}
		}
		if err != nil {
			s.cfg.Log.WarnContext(ctx, "a source of trusted keys cannot be used", slog.Any("from", source), slog.Any("err", err))
			if failed == nil {
				failed = fault.Wrap(err, "read keys of %s", source)
			}
		}
		if s.texts[i] == "" {
			continue
		}
		set, err := token.ParseKeySet([]byte(s.texts[i]))
		if err != nil {
			return err
		}
		sets = append(sets, set)
	}
	s.failing.Store(failed != nil)
	if changed {
		s.current.Store(&sets)
		if s.cfg.Changed != nil {
			s.cfg.Changed(sets)
		}
	}
	return failed
}

// The pauses between two refreshes: usually, while a source fails, and at least,
// when tokens come whose key is not known.
const (
	pause  = 5 * time.Minute
	sooner = 15 * time.Second
	least  = 3 * time.Second
)

// Keep refreshes until the context ends: each five minutes, sooner while a source
// fails or after [Sets.Look]. The first time is for the caller.
func (s *Sets) Keep(ctx context.Context) {
	for {
		wait := pause
		if s.failing.Load() {
			wait = sooner
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(least):
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait - least):
		case <-s.look:
		}
		_ = s.Refresh(ctx) // it says so in the log
	}
}

// Look asks [Sets.Keep] to refresh soon: somebody has shown a token of a key that
// is not known, which may be newer than what was read. It returns at once.
func (s *Sets) Look() {
	select {
	case s.look <- struct{}{}:
	default: // asked for already
	}
}

func (s *Sets) read(ctx context.Context, source string) ([]byte, error) {
	if !strings.Contains(source, "://") {
		info, err := os.Stat(source)
		if err != nil || !info.Mode().IsRegular() || info.Size() > token.MaxKeySet {
			return nil, fault.NotFoundf("there is no file of at most %d bytes", token.MaxKeySet).Because(err)
		}
		text, err := os.ReadFile(source) //nolint:gosec // the operator names it
		return text, fault.Wrap(err, "read key set")
	}
	text, err := s.get(ctx, source)
	if fault.Is(err, fault.NotFound) && !strings.HasSuffix(source, discovery) {
		text, err = s.get(ctx, strings.TrimSuffix(source, "/")+discovery)
	}
	if err != nil {
		return nil, err
	}
	from := described(text)
	if from == "" {
		return text, nil
	}
	u, err := url.Parse(from)
	if err != nil || !fetchable(u) || u.Scheme != "https" && strings.HasPrefix(source, "https:") {
		// A provider elsewhere must not send us to what listens on our own loopback.
		return nil, fault.Invalidf("the provider's jwks_uri is not https")
	}
	return s.get(ctx, from)
}

// withdrawn reports whether a text is a set without any key.
func withdrawn(text []byte) bool {
	var c struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	return canon.Lenient(text, token.MaxKeySet, 8, &c) == nil && c.Keys != nil && len(*c.Keys) == 0
}

// described is where an OpenID Connect configuration says that the keys are; empty
// for a key set, and for what is neither.
func described(text []byte) string {
	var c struct {
		Keys json.RawMessage `json:"keys"`
		URI  string          `json:"jwks_uri"`
	}
	if err := canon.Lenient(text, token.MaxKeySet, 16, &c); err != nil || len(c.Keys) > 0 {
		return ""
	}
	return c.URI
}

func (s *Sets) get(ctx context.Context, from string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, fault.Invalidf("the URL cannot be used").Because(err)
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, fault.Unavailablef("the provider cannot be reached").Because(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, token.MaxKeySet+1))
	switch {
	case err != nil:
		return nil, fault.Unavailablef("the provider's answer broke off").Because(err)
	case answer.StatusCode == http.StatusNotFound:
		return nil, fault.NotFoundf("the provider has nothing there")
	case answer.StatusCode != http.StatusOK:
		return nil, fault.Unavailablef("the provider answered with status %d", answer.StatusCode)
	}
	return text, nil
}
