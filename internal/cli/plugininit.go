package cli

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/cli/template"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func pluginInit(s *shell) *cobra.Command {
	var p template.Project
	c := &cobra.Command{
		Use: "init DIR --role ROLE --lang LANGUAGE", Short: "Begin a plugin", Args: cobra.ExactArgs(1),
		Long: `Make the project of a small plugin that builds, tests and runs at once, with a
README that says how. It uses the SDK of its language; for agentkms.plugin.v1 in
Python it needs grpcio and the proto file, which lies beside it. Several roles
make one package that has them all, as far as one program can. Nothing is
overwritten.`,
		Example: `  sallyport plugin init mytoken --role credential-vender --lang go --publisher acme
  sallyport plugin init pager --role notifier --publisher acme
  sallyport plugin init tags --role extension,cli --lang python --publisher acme
  sallyport plugin init honeytoken --role scope-validator,credential-vender --lang python --publisher acme`,
		RunE: func(_ *cobra.Command, args []string) error {
			dir := args[0]
			p.Name = first(p.Name, base(dir))
			p.Kind = first(p.Kind, p.Name)
			files, err := p.Files()
			if err != nil {
				return err
			}
			if err := writeProject(dir, files); err != nil {
				return err
			}
			made := make([]string, 0, len(files))
			for _, f := range files {
				made = append(made, filepath.Join(dir, f.Path))
			}
			return s.print(map[string]any{"name": p.Name, "kind": p.Kind, "roles": p.Roles, "files": made}, func() error {
				return s.facts("plugin", p.Name, "kind", p.Kind, "roles", strings.Join(p.Roles, " "),
					"files", strings.Join(made, " "), "next", "read "+filepath.Join(dir, "README.md"))
			})
		},
	}
	f := c.Flags()
	f.StringSliceVar(&p.Roles, "role", nil, "what it does: "+strings.Join(template.Roles(), ", "))
	f.StringVar(&p.Language, "lang", template.Go, "language: go or python")
	f.StringVar(&p.Name, "name", "", "name of the package (default: that of the folder)")
	f.StringVar(&p.Publisher, "publisher", "me", "who signs it")
	f.StringVar(&p.Kind, "kind", "", "credential kind that it serves (default: the name)")
	f.StringVar(&p.Contract, "contract", "", "wire contract, sallyport.plugin.v1 or agentkms.plugin.v1 (default: the former where it has the roles; for kbs its own)")
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(template.Roles(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions([]string{template.Go, template.Python}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// base is the name that a folder will have.
func base(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	return filepath.Base(abs)
}

// writeProject writes a project's files, all of them or, where one is in the
// way, none.
func writeProject(dir string, files []template.File) error {
	for _, f := range files {
		path := filepath.Join(dir, f.Path)
		if _, err := os.Lstat(path); err == nil {
			return fault.Conflictf("%s exists already, and nothing is overwritten; choose an empty folder", path)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a project is public
		return fileFault(dir, err)
	}
	for _, f := range files {
		if err := create(filepath.Join(dir, f.Path), f.Text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
