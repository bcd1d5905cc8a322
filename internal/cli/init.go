package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// plan is what init was asked for.
type plan struct {
	dir, name, trustDomain, listen, operations string
	hosts                                      []string
	sample                                     bool
}

// founded is what init and auth recover print.
type founded struct {
	Directory string    `json:"directory"`
	Config    string    `json:"config"`
	Context   string    `json:"context"`
	Operator  string    `json:"operator"`
	NotAfter  time.Time `json:"certificate_not_after"`
	CAHash    string    `json:"ca_hash"`
	LedgerKey string    `json:"ledger_key"`
	SSHCA     string    `json:"ssh_ca"`
}

func newInit(s *shell) *cobra.Command {
	var p plan
	c := &cobra.Command{
		Use: "init [--dir DIR] [--name OPERATOR]", Short: "Set up a new server, and you as its operator", Args: cobra.NoArgs,
		Long: `Make a folder with everything that a server needs: sallyport.yaml, the key that
wraps all other keys (keys/kek), the data (data/, state/), and a context for its first
operator, who is an administrator.

A folder that has a sallyport.yaml but no data yet is completed: write the file
beforehand for another storage than SQLite. An installation that exists is never
touched. Keep keys/kek in a safe place of its own: without it the data are lost,
and with both somebody else is you. Give the printed key of the ledger to your
auditors now: a key that comes with what it signs proves nothing.

Others on the network need --listen and --host: what they connect to must stand in
the server's certificate, and join tokens carry it.`,
		Example: "  sallyport init\n  sallyport init --dir /srv/sallyport --name alice --trust-domain example.org --listen 0.0.0.0:8443 --host sallyport.example.org",
		RunE:    func(c *cobra.Command, _ []string) error { return s.init(c.Context(), p) },
	}
	f := c.Flags()
	f.StringVar(&p.dir, "dir", "", "folder to make (default $SALLYPORT_HOME)")
	f.StringVar(&p.name, "name", "operator", "name of the first operator, and of the context")
	f.StringVar(&p.trustDomain, "trust-domain", "", "domain of the names in certificates; cannot be changed later (default sallyport.internal)")
	f.StringVar(&p.listen, "listen", "", "address to serve on (default 127.0.0.1:8443)")
	f.StringSliceVar(&p.hosts, "host", nil, "name or address by which others reach the server; the first is the one that they are told")
	f.StringVar(&p.operations, "operations", "", "address for health and metrics, on loopback, or off (default 127.0.0.1:9090)")
	f.BoolVar(&p.sample, "insecure-sample-verifier", false, "believe evidence that proves nothing, for trials on loopback")
	return c
}

func (s *shell) init(ctx context.Context, p plan) error {
	home, err := s.home()
	if p.dir != "" {
		p.dir, err = filepath.Abs(p.dir)
	} else {
		p.dir = home
	}
	if err != nil {
		return err
	}
	if err := s.free(p.dir, p.name); fault.Is(err, fault.Invalid) {
		return err
	} else if err != nil {
		return fault.Conflictf("%s is set up already, and was not touched: start its server (sallyport serve), or name another folder (--dir)", p.dir).Because(err)
	}
	path := filepath.Join(p.dir, configFile)
	ours, err := p.write(path)
	if err != nil {
		return err
	}
	undo := func(err error) error {
		if ours {
			_ = os.Remove(path)
		}
		return err
	}
	cfg, err := app.Load(path)
	if err != nil {
		return undo(err)
	}
	made, err := app.Found(ctx, cfg, p.name)
	if err != nil {
		return undo(err)
	}
	defer made.Private.Wipe()
	return s.welcome(p.dir, p.name, cfg, made, home)
}

// write makes the configuration, unless the operator has written one for a
// server that is not there yet.
func (p plan) write(path string) (ours bool, err error) {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return false, fileFault(p.dir, err)
	}
	if _, err := os.Lstat(path); err == nil {
		if p.trustDomain+p.listen+p.operations != "" || len(p.hosts) > 0 || p.sample {
			return false, fault.Conflictf("%s exists already: change it there, or remove it, instead of giving options", path)
		}
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fileFault(path, err)
	}
	return true, create(path, p.config(), 0o600)
}

// config is the text of a new configuration.
func (p plan) config() []byte {
	var b bytes.Buffer
	b.WriteString("# Configuration of a Sallyport server; docs/operating.md has every member.\n" +
		"# Check a change with: sallyport config check\n" +
		"data_dir: data\n" +
		"state_dir: state # the last checkpoint seen: not to be restored with the data, so that an older database is noticed\n" +
		"kek:\n  file: keys/kek # keep a copy elsewhere: without it the data are lost\n")
	b.WriteString("trust_domain: " + strconv.Quote(first(p.trustDomain, "sallyport.internal")) + " # cannot be changed\n")
	b.WriteString("listen:\n  main:\n    address: " + strconv.Quote(first(p.listen, "127.0.0.1:8443")) + "\n")
	if len(p.hosts) > 0 {
		names, _ := json.Marshal(append(slices.Clone(p.hosts), "localhost", "127.0.0.1", "::1"))
		b.WriteString("    names: " + string(names) + " # in the server's certificate; others are told the first\n")
	}
	b.WriteString("  operations: " + strconv.Quote(first(p.operations, "127.0.0.1:9090")) + "\n")
	if p.sample {
		b.WriteString("verifiers:\n  sample:\n    insecure: true # evidence that proves nothing; loopback only\n")
	}
	return b.Bytes()
}

// welcome keeps the operator's credential and says what comes next.
func (s *shell) welcome(dir, name string, cfg app.Config, made app.Founded, home string) error {
	c := identity{Name: name, URL: address(cfg.Listen.Main.Address), Subject: made.Operator, Kind: "operator"}
	if err := s.keep(dir, c, []byte(made.Certificate), made.Private.Reveal(), []byte(made.CA)); err != nil {
		s.warn("the server is set up, and the operator's credential was not kept; make another with: sallyport auth recover --name NAME")
		return err
	}
	out := founded{
		Directory: dir, Config: filepath.Join(dir, configFile), Context: name, Operator: made.Operator, NotAfter: made.NotAfter,
		CAHash: made.CAHash, LedgerKey: made.LedgerKey, SSHCA: made.SSHCA,
	}
	if err := replace(filepath.Join(dir, "ledger.pub"), []byte(made.LedgerKey+"\n"), 0o644); err != nil {
		return err
	}
	return s.print(out, func() error {
		if err := s.facts("directory", dir, "operator", name+" ("+made.Operator+"), certificate until "+when(made.NotAfter),
			"CA hash", made.CAHash, "ledger key", made.LedgerKey, "SSH CA", made.SSHCA); err != nil {
			return err
		}
		next := "\nNext:\n"
		if dir != home {
			next += "  export SALLYPORT_HOME=" + dir + "\n"
		}
		next += "  sallyport serve                              # run the server\n" +
			"  sallyport auth whoami                        # in another shell: see that it knows you\n" +
			"  sallyport policy set ssh ssh.rego            # say who may get what (docs/policy.md)\n" +
			"  sallyport agent token --role deployer        # invite an agent\n" +
			"Give the ledger key to your auditors, and keep a copy of keys/kek in a safe place.\n"
		_, err := s.out.Write([]byte(next))
		return written(err)
	})
}

// address is the URL of a listener for a client on this machine.
func address(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "https://" + listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, port)
}
