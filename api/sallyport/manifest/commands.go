package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Command is one command that a package of role cli adds to the command line.
type Command struct {
	// Name is what is typed: lower-case letters, digits and inner hyphens, at
	// most 32. It is also the first argument of the process.
	Name string `json:"name"`
	// Help is the line beside it in sallyport --help.
	Help string `json:"help"`
}

const (
	maxCommands = 16
	maxHelp     = 100 // bytes
	maxScopes   = 32
	maxScope    = 256 // bytes of one
)

var (
	commandPattern = expression{text: `^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`}
	scopePattern   = expression{text: `^(\*|[a-z][a-z0-9-]*):(([A-Za-z0-9._-]+\*?|\*)/)*([A-Za-z0-9._-]+\*?|\*\*?)$`}
)

// ValidCommand reports whether s may name a command.
func ValidCommand(s string) bool { return commandPattern.MatchString(s) }

// CommandList is what the package adds to the command line: its commands, or, if
// it names none, one for each entry point of a CLI plugin in Python, sorted.
func (m Manifest) CommandList() []Command {
	if len(m.Commands) > 0 || !m.Has(RoleCLI) {
		return m.Commands
	}
	var out []Command
	for _, name := range sorted(m.EntryPoints[GroupCLI]) {
		help := m.Summary
		if help == "" || len(help) > maxHelp {
			help = "commands of " + m.Name
		}
		out = append(out, Command{Name: name, Help: help})
	}
	return out
}

// validateCommands checks what concerns role cli alone.
func (m Manifest) validateCommands() error {
	if !m.Has(RoleCLI) {
		if len(m.Commands) > 0 || len(m.Capabilities.Scopes) > 0 {
			return fmt.Errorf("commands and capabilities.scopes need role %s", RoleCLI)
		}
		return nil
	}
	list := m.CommandList()
	if len(list) == 0 || len(list) > maxCommands {
		return fmt.Errorf("role %s needs between 1 and %d commands, each with name and help", RoleCLI, maxCommands)
	}
	seen := map[string]bool{}
	for _, c := range list {
		switch {
		case !ValidCommand(c.Name):
			return fmt.Errorf("commands: %s must be lower-case letters, digits and inner hyphens, at most 32", clip(c.Name))
		case c.Help == "" || len(c.Help) > maxHelp || !plain(c.Help):
			return fmt.Errorf("commands: help of %s must be one line of at most %d bytes", c.Name, maxHelp)
		case seen[c.Name]:
			return fmt.Errorf("commands must not repeat the name %s", c.Name)
		}
		seen[c.Name] = true
	}
	return m.Capabilities.validateCLI()
}

// validateCLI checks the session that a CLI plugin asks for, and the variables.
// The environment of a user can change what a program is: such variables are
// never handed on.
func (c Capabilities) validateCLI() error {
	if len(c.Scopes) > maxScopes || twice(c.Scopes) {
		return fmt.Errorf("capabilities.scopes: at most %d, each once", maxScopes)
	}
	for _, s := range c.Scopes {
		if len(s) > maxScope || !scopePattern.MatchString(s) {
			return fmt.Errorf("capabilities.scopes: %s must be verb:target, for example release:ssh-user-cert", clip(s))
		}
	}
	for _, v := range c.Environment {
		if !PassedOn(v) {
			return fmt.Errorf("capabilities.environment: no CLI plugin is given %s, which changes how programs are loaded, or holds the user's own access", v)
		}
	}
	return nil
}

// Handed are the variables in which a CLI plugin that declares them finds the
// server's address and its session's token, under the names of this project and
// of older clients.
var Handed = []string{"SALLYPORT_URL", "SALLYPORT_TOKEN", "ATTESTATION_API_URL", "ATTESTATION_TOKEN"}

// PassedOn reports whether a CLI plugin may be given a variable of the user's
// environment that it declares.
func PassedOn(name string) bool {
	if slices.Contains(Handed, name) {
		return true
	}
	for _, prefix := range []string{"LD_", "DYLD_", "PYTHON", "SALLYPORT_", "ATTESTATION_", "GODEBUG", "GOTRACEBACK", "MALLOC_", "GLIBC_", "GCONV_"} {
		if strings.HasPrefix(strings.ToUpper(name), prefix) {
			return false
		}
	}
	return true
}
