package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// page FILE runs the commands of a page: its blocks marked sh, line by line, in
// bash. A line whose comment begins with "refused: WORD" must fail and say WORD.
// Nothing else is changed but ports, and that a started server is waited for.
func page(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: page FILE")
	}
	text, err := os.ReadFile(filepath.Join(ts.Getenv("SOURCE"), args[0]))
	ts.Check(err)
	script := ts.MkAbs("page.sh")
	ts.Check(os.WriteFile(script, []byte(pagePrelude+pageScript(string(text))), 0o600))
	cmd := exec.Command("bash", script)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "SALLYPORT_HOME", "SOURCE", "GOCACHE", "GOMODCACHE", "GOPROXY"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Env = append(cmd.Env, "WORK="+ts.MkAbs("."), "TMPDIR="+os.TempDir())
	out, err := cmd.CombinedOutput()
	ts.Logf("%s", out)
	if err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
}

// pagePrelude stands in for what a person has: free ports, and the patience to
// wait for a server.
const pagePrelude = `set -euo pipefail
sallyport() {
	if [[ $1 == init ]]; then
		command sallyport "$@" --listen 127.0.0.1:0 --operations off
	else
		command sallyport "$@"
	fi
}
start_server() {
	rm -f "$WORK/ready.json"
	command sallyport serve --ready-file "$WORK/ready.json" 2>>"$WORK/server.log" &
	server=$!
	trap 'kill $server; wait $server' EXIT
	until [[ -s $WORK/ready.json ]]; do
		kill -0 $server || { cat "$WORK/server.log"; exit 1; }
		sleep 0.05
	done
	SALLYPORT_URL=https://$(sed -n 's/.*"main": *"\([^"]*\)".*/\1/p' "$WORK/ready.json")
	export SALLYPORT_URL
}
stop_server() { kill $server; wait $server; trap - EXIT; }
refused() {
	local word=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "was not refused: $*"
		exit 1
	fi
	echo "$out"
	[[ $out == *"$word"* ]]
}
set -v
`

// pageScript gives the commands of a page.
func pageScript(text string) string {
	var out strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = !inside && line == "```sh"
		case !inside:
		case line == "sallyport serve &":
			out.WriteString("start_server\n")
		default:
			command, comment, _ := strings.Cut(line, "# refused: ")
			if word, _, _ := strings.Cut(comment, " "); word != "" {
				line = "refused '" + strings.TrimRight(word, ",;") + "' " + command
			}
			out.WriteString(line + "\n")
		}
	}
	return out.String()
}
