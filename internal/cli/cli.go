// Package cli is the command line: it reads arguments, calls the server through
// the SDK (or a noun, where a command works offline), and prints.
//
// It decides nothing itself. One file holds one group of commands; what all of
// them share is here, in context.go (who calls), output.go (what is printed) and
// input.go (where secrets come from). It may read the environment, through the
// function that [Env] hands in.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Env is what a program adds to its arguments and streams. Getenv is required.
type Env struct {
	Getenv  func(name string) string
	Version string
	Now     func() time.Time // nil for the wall clock
}

// Main runs one command line, without the program's name, and returns the exit
// code (docs/cli.md). It returns when the command has ended; an interrupt or
// SIGTERM ends the command's context.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer, env Env) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if env.Now == nil {
		env.Now = time.Now
	}
	s := &shell{Env: env, in: stdin, out: stdout, err: stderr}
	root := newRoot(s)
	s.addTools(root, args)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[exited](err); ok {
		return e.code()
	}
	if !s.started { // cobra's own complaints about the command line
		err = usage(err)
	}
	if s.output == "" {
		s.output = formatOf(args)
	}
	return s.fail(err)
}

// shell is what commands share: streams, and the options of every command.
type shell struct {
	Env
	in       io.Reader
	out, err io.Writer

	output  string // table, json or yaml
	url     string
	token   string
	context string
	ca      string
	side    string // of plugin commands: server or cli

	started bool            // the command line was understood
	builtIn map[string]bool // names and aliases of our own commands
}

// groups is every command, in the order of the help. It is written out, as
// nothing registers itself.
func (s *shell) groups() []func(*shell) *cobra.Command {
	return []func(*shell) *cobra.Command{
		newInit, newServe, newDemo, newConfig, newDoctor, newRestore, newStatus, newVersion,
		newAuth, newAgent, newPolicy, newPlugin, newExtension, newCredential, newResource, newKBS, newEvidence, newReference, newAudit, newKey,
	}
}

func newRoot(s *shell) *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "Prove what you are, get what you need, for as long as you need it",
		Long: `Sallyport hands out secrets and credentials to those who prove what they are,
records every decision in a ledger that nobody can rewrite, and takes a
credential back when it leaks.

Where things are: $SALLYPORT_HOME, by default ~/.sallyport, holds the server's
configuration and the contexts (who you are at which server). Every option of a
context can be given by the environment: SALLYPORT_URL, SALLYPORT_TOKEN,
SALLYPORT_CONTEXT.`,
		Example: `  sallyport init --name alice        # a new server, and you as its operator
  sallyport serve                    # run it
  sallyport agent token --role deployer | sallyport agent enrol --name build-7 --as build-7
  sallyport credential vend ssh-user-cert --context build-7 --param principals=deploy --out id_deploy`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return s.prepare() },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fault.Invalidf("%s; see: %s --help", err, c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVarP(&s.output, "output", "o", "table", "how to print: table, json or yaml")
	f.StringVar(&s.url, "url", "", "address of the server, https://host:port (SALLYPORT_URL)")
	f.StringVar(&s.token, "token", "", "session token; better in SALLYPORT_TOKEN, arguments can be seen by others")
	f.StringVar(&s.context, "context", "", "identity to act with, see: sallyport auth contexts (SALLYPORT_CONTEXT)")
	f.StringVar(&s.ca, "ca", "", "file with the server's root certificate, where no context has it")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return s.contextNames(), cobra.ShellCompDirectiveNoFileComp
	})
	for _, group := range s.groups() {
		root.AddCommand(group(s))
	}
	each(root, strict)
	s.builtIn = map[string]bool{}
	for _, c := range root.Commands() {
		for _, name := range append(c.Aliases, c.Name()) {
			s.builtIn[name] = true
		}
	}
	return root
}

// prepare runs before every command, once the command line is understood.
func (s *shell) prepare() error {
	s.started = true
	if s.token != "" {
		s.warn("--token shows the token to everybody who may list processes: set SALLYPORT_TOKEN instead")
	}
	if !known(s.output) {
		given := s.output
		s.output = formats[0]
		return fault.Invalidf("--output is %q: use table, json or yaml", given)
	}
	s.url = first(s.url, s.Getenv("SALLYPORT_URL"), s.Getenv("ATTESTATION_API_URL"))
	s.token = first(s.token, s.Getenv("SALLYPORT_TOKEN"), s.Getenv("ATTESTATION_TOKEN"))
	s.context = first(s.context, s.Getenv("SALLYPORT_CONTEXT"))
	return nil
}

// home is the folder with configuration and contexts.
func (s *shell) home() (string, error) {
	if h := s.Getenv("SALLYPORT_HOME"); h != "" {
		return filepath.Abs(h)
	}
	h := first(s.Getenv("HOME"), s.Getenv("USERPROFILE"))
	if h == "" {
		return "", fault.Invalidf("there is no home folder: set SALLYPORT_HOME")
	}
	return filepath.Join(h, ".sallyport"), nil
}

// strict gives a command its last touches: a group prints its help, and refuses
// words that are no command of it.
func strict(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	if c.HasSubCommands() && c.RunE == nil && c.Run == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			hint := ";"
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return fault.Invalidf("%q is no command of %s%s see: %s --help", args[0], c.CommandPath(), hint, c.CommandPath())
		}
		c.SuggestionsMinimumDistance = 2
		return
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fault.Invalidf("%s; it is used as: %s", err, c.UseLine())
			}
			return nil
		}
	}
}

func each(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, sub := range c.Commands() {
		each(sub, do)
	}
}

func usage(err error) error {
	if fault.KindOf(err) != fault.Internal {
		return err
	}
	return fault.Invalidf("%s; see: sallyport --help", err)
}

// group makes a command that only holds others.
func group(use, short, long, example string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long, Example: example}
	c.AddCommand(subs...)
	return c
}

// first is the first text that is not empty.
func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
