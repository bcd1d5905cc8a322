package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// House is an installation: a folder that sallyport init has filled.
type House struct {
	Programs

	Dir       string // SALLYPORT_HOME
	DataDir   string
	Root      string          // of its authority, PEM
	Operator  tls.Certificate // of the first operator
	LedgerKey string          // verifier key, as init printed it

	config map[string]any
}

// Options are what an installation has beyond the defaults. The zero value is
// SQLite in the folder.
type Options struct {
	DataDir string         // elsewhere than in the folder
	DSN     string         // of PostgreSQL, in place of SQLite
	Config  map[string]any // members of sallyport.yaml; listen.main and listen.operations are set already
	Further []any          // listeners
}

// Found writes a configuration and runs sallyport init on it, as an operator
// does who wants another storage than the default.
func Found(ctx context.Context, p Programs, dir string, o Options) (*House, error) {
	h, err := prepare(p, dir, o)
	if err != nil {
		return nil, err
	}
	if _, err := h.Command(ctx, "init", "--name", "operator"); err != nil {
		return nil, err
	}
	at := filepath.Join(dir, "contexts", "operator")
	if h.Operator, err = tls.LoadX509KeyPair(filepath.Join(at, "cert.pem"), filepath.Join(at, "key.pem")); err != nil {
		return nil, fmt.Errorf("read operator's certificate: %w", err)
	}
	root, err := os.ReadFile(filepath.Join(at, "ca.pem")) //nolint:gosec // of this house
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "ledger.pub")) //nolint:gosec // of this house
	if err != nil {
		return nil, fmt.Errorf("read ledger key: %w", err)
	}
	h.Root, h.LedgerKey = string(root), strings.TrimSpace(string(key))
	return h, nil
}

// prepare makes the folder with its configuration.
func prepare(p Programs, dir string, o Options) (*House, error) {
	h := &House{Programs: p, Dir: dir, DataDir: o.DataDir, config: maps.Clone(o.Config)}
	if h.config == nil {
		h.config = map[string]any{}
	}
	if h.DataDir == "" {
		h.DataDir = filepath.Join(dir, "data")
	}
	listen := map[string]any{"main": map[string]any{"address": "127.0.0.1:0"}, "operations": "127.0.0.1:0"}
	if o.Further != nil {
		listen["further"] = o.Further
	}
	h.config["data_dir"], h.config["listen"] = h.DataDir, listen
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if o.DSN != "" {
		h.config["storage"] = map[string]any{"driver": "postgres", "dsn_file": "dsn"}
		if err := os.WriteFile(filepath.Join(dir, "dsn"), []byte(o.DSN), 0o600); err != nil {
			return nil, fmt.Errorf("write connection string: %w", err)
		}
	}
	return h, h.writeConfig()
}

// writeConfig writes the configuration as JSON, which is YAML.
func (h *House) writeConfig() error {
	text, err := json.MarshalIndent(h.config, "", "  ")
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "sallyport.yaml"), text, 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// Replica is another node of an installation on PostgreSQL: the same key file,
// database, authority and operator, and a data directory of its own.
func (h *House) Replica(dir, dsn string) (*House, error) {
	twin, err := prepare(h.Programs, dir, Options{DSN: dsn, Config: without(h.config, "data_dir", "listen", "storage")})
	if err != nil {
		return nil, err
	}
	twin.Root, twin.Operator, twin.LedgerKey = h.Root, h.Operator, h.LedgerKey
	key, err := os.ReadFile(filepath.Join(h.Dir, "keys", "kek"))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "keys"), 0o700); err != nil {
		return nil, fmt.Errorf("make folder for key file: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keys", "kek"), key, 0o600); err != nil { //nolint:gosec // of the twin
		return nil, fmt.Errorf("write key file: %w", err)
	}
	if err := os.CopyFS(filepath.Join(dir, "contexts"), os.DirFS(filepath.Join(h.Dir, "contexts"))); err != nil {
		return nil, fmt.Errorf("copy operator's context: %w", err)
	}
	return twin, nil
}

func without(m map[string]any, names ...string) map[string]any {
	out := maps.Clone(m)
	for _, n := range names {
		delete(out, n)
	}
	return out
}

// Roots is a pool of the house's authority.
func (h *House) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(h.Root))
	return pool
}

// ExitError is a command that ended with another code than 0.
type ExitError struct {
	Code           int
	Stdout, Stderr string
}

// Error shows what the command said.
func (e *ExitError) Error() string {
	return fmt.Sprintf("exit code %d: %s%s", e.Code, e.Stdout, e.Stderr)
}

// commandTime bounds every command.
const commandTime = 60 * time.Second

// Command runs sallyport in this house and returns its standard output. Another
// exit code than 0 is an [*ExitError].
func (h *House) Command(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Server, args...) //nolint:gosec // ours
	cmd.Env = h.environment()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && cmd.ProcessState != nil && cmd.ProcessState.Exited() {
		return out.String(), &ExitError{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
	}
	if err != nil {
		return out.String(), fmt.Errorf("run sallyport %s: %w", args[0], err)
	}
	return out.String(), nil
}

// environment is that of a user's shell, without what belongs to another house.
func (h *House) environment() []string {
	env := []string{"SALLYPORT_HOME=" + h.Dir}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SALLYPORT_") {
			env = append(env, e)
		}
	}
	return env
}
