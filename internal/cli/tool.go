package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/handover"
	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/local"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

// The headings of the help, once there are commands of plugins.
const (
	builtInGroup = "built-in"
	pluginGroup  = "plugins"
)

// laterCommands are names that later versions have commands for, and those of older
// tools whose command lines we take.
var laterCommands = []string{
	"help", "completion", "sallyport", "plugin", "machine", "node", "backup", "reference", "licence", "license", "event", "webhook", "monitor",
	"wrap", "unwrap", "logs", "mcp", "config", "update", "upgrade", "install-plugin", "list-plugins", "plugin-status", "plugin-refresh",
	"uninstall-plugin", "km", "akms", "attestation",
}

// taken says what a command's name means already, empty if it is free.
func (s *shell) taken(command string) string {
	switch {
	case s.builtIn[command]:
		return "the built-in command " + command
	case slices.Contains(laterCommands, command):
		return "the command " + command + ", which is reserved"
	}
	return ""
}

// addTools adds the commands of CLI plugins, as they were written down when these
// were installed: no file of a plugin is opened. What is wrong with them costs one
// warning, and our own commands nothing.
func (s *shell) addTools(root *cobra.Command, args []string) {
	home, err := s.tools()
	if err != nil {
		return // who needs a home says so
	}
	st, err := home.Read()
	if err != nil {
		s.warn("the commands of CLI plugins are left out: %s", describe(err).Detail)
		return
	}
	for _, t := range st.Active() {
		for _, c := range t.Commands {
			if by := s.taken(c.Name); by != "" {
				s.warn("the command %s of plugin %s is left out: it would shadow %s; see: sallyport plugin remove %s --for cli", c.Name, t.Name, by, t.Name)
				continue
			}
			root.AddCommand(s.toolCommand(home, t, c))
		}
	}
	if !slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool { return c.GroupID == pluginGroup }) {
		return
	}
	root.AddGroup(&cobra.Group{ID: builtInGroup, Title: "Available Commands:"}, &cobra.Group{ID: pluginGroup, Title: "Commands of plugins:"})
	root.SetHelpCommandGroupID(builtInGroup)
	root.SetCompletionCommandGroupID(builtInGroup)
	for _, c := range root.Commands() {
		if c.GroupID == "" {
			c.GroupID = builtInGroup
		}
	}
	if c, _, err := root.Find(args); err == nil && c.GroupID == pluginGroup {
		root.TraverseChildren = true // what stands before its name is ours, the rest its own
	}
}

func (s *shell) toolCommand(home *local.Home, t local.Tool, c manifest.Command) *cobra.Command {
	note := ""
	if t.Use == plugin.UseDevelopment {
		note = " (development)"
	}
	return &cobra.Command{
		Use: c.Name, Short: c.Help + note, GroupID: pluginGroup, DisableFlagParsing: true,
		Long: c.Help + "\n\nA command of plugin " + t.Name + " " + t.Package + " of publisher " + t.Publisher + "; its own help is: sallyport " + c.Name + " --help",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.runTool(cmd.Context(), home, t.Name, c.Name, args)
		},
	}
}

// exited is how a plugin's process has ended; it is passed on.
type exited struct{ state *os.ProcessState }

func (e exited) Error() string { return "the plugin ended: " + e.state.String() }

// runTool verifies a plugin, lets it run with what it was granted, and ends that
// with it.
func (s *shell) runTool(ctx context.Context, home *local.Home, name, command string, args []string) error {
	tool, row, err := home.Tool(name)
	if err != nil {
		return err
	}
	defer tool.Close()
	doc, end := s.handover(ctx, tool.Manifest, row, command, args)
	defer end()
	text, err := doc.Bytes()
	if err != nil {
		return fault.Internalf("hand over to plugin %s", name).Because(err)
	}
	defer clear(text)
	r, w, err := os.Pipe()
	if err != nil {
		return fault.Unavailablef("no pipe can be made").Because(err)
	}
	defer func() { _ = r.Close() }()
	cmd := &exec.Cmd{
		Path: tool.Path, Args: append(append(slices.Clone(tool.Args), command), args...), Env: append(tool.Env, s.toolEnv(row, doc)...),
		Stdin: s.in, Stdout: s.out, Stderr: s.err,
	}
	cmd.Env = append(cmd.Env, handover.Variable+"="+pass(cmd, r))
	go func() {
		_, _ = w.Write(text)
		_ = w.Close()
	}()
	return s.supervise(ctx, cmd, tool, s.confinement(tool, row, doc))
}

// confinement is what a plugin may use besides what every one may.
func (s *shell) confinement(tool *plugin.Tool, row local.Tool, doc handover.Document) sandbox.Tool {
	box := sandbox.Tool{Plugin: row.Name, Tree: tool.Tree, Files: row.Capabilities.Files}
	if i := tool.Interpreter; i != nil {
		box.Interpreter = i.Path
	}
	if home, err := s.home(); err == nil {
		box.Private = []string{home}
	}
	for _, at := range append(slices.Clone(row.Capabilities.Network), doc.URL) {
		if port, err := strconv.ParseUint(at[strings.LastIndexByte(at, ':')+1:], 10, 16); err == nil {
			box.Ports = append(box.Ports, uint16(port))
		} else if strings.HasPrefix(at, "https://") {
			box.Ports = append(box.Ports, 443)
		}
	}
	slices.Sort(box.Ports)
	box.Ports = slices.Compact(box.Ports)
	return box
}

// supervise starts the process and waits for its end. The terminal's signals
// reach it as they reach us; those that somebody sends to us alone are passed on.
func (s *shell) supervise(ctx context.Context, cmd *exec.Cmd, tool *plugin.Tool, box sandbox.Tool) error {
	passOn := s.signals()
	defer passOn.stop()
	if err := tool.Unchanged(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // interrupted while it was verified
		return fault.Unavailablef("interrupted before plugin %s ran", box.Plugin).Because(err)
	}
	wait, err := box.Start(cmd)
	if err != nil {
		return err
	}
	passOn.to(cmd.Process)
	if _, limited := ctx.Deadline(); limited {
		defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	}
	err = wait()
	if _, ok := errors.AsType[*exec.ExitError](err); ok || err == nil {
		if cmd.ProcessState.Success() {
			return nil
		}
		return exited{cmd.ProcessState}
	}
	return fault.Unavailablef("the end of plugin %s cannot be seen", box.Plugin).Because(err)
}
