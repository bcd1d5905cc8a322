// Command sallyport is the server, its command line, and the agent on a machine.
package main

import (
	"os"
	"runtime/debug"

	"github.com/sallyport-project/sallyport/internal/cli"
)

// version is set by the linker; without it the module's version is used.
var version string

func main() { os.Exit(run()) }

func run() int {
	if info, ok := debug.ReadBuildInfo(); version == "" && ok {
		version = info.Main.Version
	}
	return cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, cli.Env{Getenv: os.Getenv, Version: version})
}
