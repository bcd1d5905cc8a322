package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// What people see while the story goes on. For machines there is nothing but
// one document at the end.

func (d *demo) people() bool { return d.s.output == "table" }

func (d *demo) heading() {
	if d.people() {
		_, _ = fmt.Fprintf(d.s.out, "%s\n", d.s.paint(d.s.out, bold, "Sallyport, with real parts, in "+visible(d.dir)))
	}
}

func (d *demo) announce(n, of int, what string) {
	if d.people() {
		_, _ = fmt.Fprintf(d.s.out, "\n%s\n", d.s.paint(d.s.out, bold, fmt.Sprintf("%2d/%d  %s", n, of, what)))
	}
}

// evidence prints one line of what happened. Tabs, as ssh-keygen prints them,
// become spaces.
func (d *demo) evidence(line string) {
	if d.people() {
		_, _ = fmt.Fprintln(d.s.out, "       "+visible(strings.ReplaceAll(line, "\t", "    ")))
	}
}

func (d *demo) result(s demoStep) {
	if !d.people() {
		return
	}
	took := (time.Duration(s.DurationMS) * time.Millisecond).String()
	switch {
	case s.OK:
		_, _ = fmt.Fprintln(d.s.out, "       "+d.s.paint(d.s.out, green, "ok")+", "+took)
	case s.Skipped != "":
		_, _ = fmt.Fprintln(d.s.out, "       "+d.s.paint(d.s.out, yellow, "skipped: "+visible(s.Skipped)))
	default:
		_, _ = fmt.Fprintln(d.s.out, "       "+d.s.paint(d.s.out, red, "NOT AS IT MUST BE: "+visible(s.Failure))+", "+took)
		d.lastWords()
	}
}

// lastWords shows the end of the server's log beside a failure.
func (d *demo) lastWords() {
	if d.server == nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(d.server.said()), "\n")
	if len(lines) > 5 {
		lines = lines[len(lines)-5:]
	}
	for _, l := range lines {
		d.evidence("server: " + l)
	}
}

// conclude prints the sum, or the document.
func (d *demo) conclude(r demoReport) error {
	return d.s.print(r, func() error {
		colour := green
		switch {
		case !r.OK:
			colour = red
		case r.Skipped > 0:
			colour = yellow
		}
		sum := fmt.Sprintf("%d steps: %d ok, %d failed, %d skipped, in %s",
			len(r.Steps), r.Passed, r.Failed, r.Skipped, (time.Duration(r.DurationMS) * time.Millisecond).Round(100*time.Millisecond))
		_, err := fmt.Fprintln(d.s.out, "\n"+d.s.paint(d.s.out, colour, sum))
		if err == nil && r.Kept != nil {
			err = r.Kept.print(d.s)
		}
		return written(err)
	})
}

// demoKept is what --keep leaves behind.
type demoKept struct {
	Home     string   `json:"home"` // for SALLYPORT_HOME
	URL      string   `json:"url"`
	PID      int      `json:"pid"`
	Log      string   `json:"log"`
	Contexts []string `json:"contexts"`
	Try      []string `json:"try"`
	End      string   `json:"end"`
}

// kept says what is left, nil if the server is not there any more.
func (d *demo) kept() *demoKept {
	if d.server.gone() {
		return nil
	}
	k := &demoKept{
		Home: d.home, URL: d.url, PID: d.server.pid(), Log: d.server.log, Contexts: d.me.contextNames(),
		Try: []string{
			"export SALLYPORT_HOME=" + d.home,
			d.exe + " auth whoami",
			d.exe + " kbs get " + demoResource,
			d.exe + " policy get " + demoPolicy,
			d.exe + " plugin status",
		},
		End: fmt.Sprintf("kill %d; while kill -0 %[1]d 2>/dev/null; do sleep 0.1; done; rm -r %s", d.server.pid(), d.dir),
	}
	if d.agent != nil {
		k.Try = append(k.Try,
			d.exe+" credential vend ssh-user-cert --context "+demoAgentName+" --param principals="+demoPrincipal+" --out "+d.at("id_deploy"),
			d.exe+" credential detect --value-file "+d.at("id_deploy-cert.pub"),
			d.exe+" credential list --context "+demoAgentName)
	}
	k.Try = append(k.Try,
		d.exe+" audit list",
		d.exe+" audit export "+d.at("export"),
		d.exe+" audit verify "+d.at("export")+" --key-file "+filepath.Join(d.home, "ledger.pub"))
	return k
}

func (k *demoKept) print(s *shell) error {
	text := fmt.Sprintf("\nThe server goes on at %s (process %d); it logs to %s.\nContexts: %s. Try:\n", k.URL, k.PID, k.Log, strings.Join(k.Contexts, ", "))
	for _, t := range k.Try {
		text += "  " + t + "\n"
	}
	text += "End it with:\n  " + k.End + "\n"
	_, err := s.out.Write([]byte(text))
	return err
}
