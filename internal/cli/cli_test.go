package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// run runs one command line in this process.
func run(t *testing.T, home string, now func() time.Time, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Main(args, strings.NewReader(""), &out, &err, Env{Version: "test", Now: now, Getenv: func(name string) string {
		return map[string]string{"SALLYPORT_HOME": home}[name]
	}})
	return code, out.String(), err.String()
}

func TestCommands_AreExplained(t *testing.T) {
	each(newRoot(&shell{}), func(c *cobra.Command) {
		if c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" || c.Name() == "help" {
			return
		}
		if c.Short == "" || c.Long == "" || !strings.Contains(c.Example, "sallyport") {
			t.Errorf("%s lacks a sentence, a text or an example", c.CommandPath())
		}
		if strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the sentence in lists has no full stop", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			if line = strings.TrimSpace(line); !strings.Contains(line, "sallyport ") {
				t.Errorf("%s: the example %q shows no command", c.CommandPath(), line)
			}
		}
	})
}

func TestFailure_HasTheExitCodeOfItsKind(t *testing.T) {
	for want, errs := range map[int][]error{
		1: {fault.Internalf("x"), errors.New("x"), &sallyport.Error{Kind: sallyport.Internal}},
		2: {fault.Invalidf("x"), &sallyport.Error{Kind: sallyport.Invalid}},
		3: {fault.NotFoundf("x"), &sallyport.Error{Kind: sallyport.NotFound}},
		4: {fault.Deniedf("x"), fault.Wrap(fault.Deniedf("x"), "read"), &sallyport.Error{Kind: sallyport.Denied}},
		5: {fault.Unauthenticatedf("x"), &sallyport.Error{Kind: sallyport.Unauthenticated}},
		6: {fault.Conflictf("x"), &sallyport.Error{Kind: sallyport.Conflict}},
		7: {
			fault.Unavailablef("x"), fault.Exhaustedf("x"), context.DeadlineExceeded,
			&sallyport.Error{Kind: sallyport.Unavailable}, &sallyport.Error{Kind: sallyport.Exhausted},
		},
	} {
		for _, err := range errs {
			if got := describe(err); got.Exit != want {
				t.Errorf("%#v: exit code %d, want %d", err, got.Exit, want)
			}
		}
	}
}

func TestFailure_IsOneVisibleLine(t *testing.T) {
	var out bytes.Buffer
	s := &shell{err: &out, Env: Env{Getenv: func(string) string { return "" }}}
	s.fail(&sallyport.Error{Kind: sallyport.Denied, Detail: "no\nway \x1b[31mred\u202e", RequestID: "1\r2", RetryAfter: 3 * time.Second})
	if got, want := out.String(), "sallyport: no\\nway \\x1b[31mred\\u202e (request 1\\r2) (again in 3 s)\n"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestContext_StaysInItsFolder(t *testing.T) {
	for _, name := range []string{"../x", "a/b", ".hidden", "-x", strings.Repeat("x", 65)} {
		if code, _, text := run(t, t.TempDir(), nil, "auth", "whoami", "--context="+name); code != 2 {
			t.Errorf("context %q: exit code %d, %s", name, code, text)
		}
	}
}

func TestSessions_AreKeptForTheOwnerOnly(t *testing.T) {
	c := sessions{filepath.Join(t.TempDir(), "session.json")}
	if s, err := c.Load(t.Context()); s != nil || err != nil {
		t.Fatalf("an empty folder has %v, %v", s, err)
	}
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	want := sallyport.Session{
		Token: sallyport.NewSecret("t"), TokenType: "Bearer", ExpiresAt: at.Add(time.Hour), ObtainedAt: at,
		Session: sallyport.SessionInfo{ID: "i", ExpiresAt: at.Add(time.Hour), IssuedAt: at},
	}
	if err := c.Store(t.Context(), &want); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(c.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	got, err := c.Load(t.Context())
	if err != nil || got.Token.Reveal() != "t" {
		t.Fatalf("%v, %v", got, err)
	}
	if diff := cmp.Diff(want.Session, got.Session); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(c.path, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Load(t.Context()); s != nil || err != nil {
		t.Errorf("a damaged file gives %v, %v", s, err)
	}
	if err := errors.Join(c.Store(t.Context(), nil), c.Store(t.Context(), nil)); err != nil {
		t.Error(err)
	}
}

func TestLock_IsHeldByOneAndOutlivesNobody(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "lock"), time.Now()
	done, err := lock(path, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(path, now); err == nil {
		t.Error("two hold it")
	}
	if _, err := lock(path, now.Add(2*staleLock)); err != nil {
		t.Errorf("one that a dead process left is held for ever: %v", err)
	}
	done()
	if again, err := lock(path, now); err != nil {
		t.Error(err)
	} else {
		again()
	}
}

func TestSecret_ComesFromOnePlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("of the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from hush
		want string
		kind fault.Kind
		warn bool
	}{
		"file":                {from: hush{file: file, variable: "V"}, want: "of the file"},
		"argument":            {from: hush{argument: "of the argument", variable: "V"}, want: "of the argument", warn: true},
		"environment":         {from: hush{variable: "V"}, want: "of the environment"},
		"standard input":      {from: hush{variable: "W"}, want: "of the input"},
		"a dash":              {from: hush{file: "-", variable: "V"}, want: "of the input"},
		"file and argument":   {from: hush{file: file, argument: "x"}, kind: fault.Invalid},
		"a file that is none": {from: hush{file: file + "x"}, kind: fault.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s := &shell{in: strings.NewReader("of the input\r\n"), err: &out, Env: Env{Getenv: func(name string) string {
				return map[string]string{"V": "of the environment"}[name]
			}}}
			got, err := s.read(c.from)
			if c.want == "" {
				if !fault.Is(err, c.kind) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || string(got.Reveal()) != c.want {
				t.Errorf("%q, %v", got.Reveal(), err)
			}
			if warned := strings.Contains(out.String(), "warning"); warned != c.warn || strings.Contains(out.String(), c.want) {
				t.Errorf("said %q", out.String())
			}
		})
	}
	s := &shell{in: io.LimitReader(endless{}, maxSecret+2), err: io.Discard, Env: Env{Getenv: func(string) string { return "" }}}
	if _, err := s.read(hush{what: "secret"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an endless input: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestParameters_AreTextsAndLists(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(file, []byte(`{"n": 1, "a": "old", "principals": ["x"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &shell{}
	got, err := s.parameters("ssh-user-cert", vending{
		paramsFile: file, params: []string{"principals=deploy", "a=new", "b=1", "b=2", "b=3", "c[]=x", "d=x=y"},
	})
	want := map[string]any{
		"n": 1.0, "a": "new", "principals": []any{"deploy"}, "b": []any{"1", "2", "3"}, "c": []any{"x"}, "d": "x=y",
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"a", "=x", "[]=x"} {
		if _, err := s.parameters("k", vending{params: []string{bad}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSave_KeepsForeignKeys(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "id")
	got := sallyport.Credential{Value: sallyport.NewSecret("cert"), PrivateKey: sallyport.NewSecret("key")}
	if err := os.WriteFile(prefix, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := save("ssh-user-cert", prefix, got); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(prefix); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.Remove(prefix); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again and again, over what it wrote itself
		if files, err := save("ssh-user-cert", prefix, got); err != nil || len(files) != 2 {
			t.Errorf("%v, %v", files, err)
		}
	}
	if info, err := os.Stat(prefix); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
