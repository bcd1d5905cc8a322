package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func newCredential(s *shell) *cobra.Command {
	return group("credential", "Get credentials, take them back, report leaks",
		`Credentials are issued by signed plugins, within the bounds of policy, for a
limited time. What was issued is a grant: it can be listed and revoked, and a
report of a leaked value finds it.`,
		"  sallyport credential vend ssh-user-cert --param principals=deploy --out id_deploy\n  sallyport credential list",
		credentialVend(s), credentialList(s), credentialGet(s), credentialRevoke(s), credentialDetect(s))
}

// vending is what credential vend was asked for.
type vending struct {
	params                     []string
	paramsFile, publicKey, out string
	ttl                        time.Duration
	show                       bool
}

func credentialVend(s *shell) *cobra.Command {
	var v vending
	c := &cobra.Command{
		Use: "vend KIND [--param NAME=VALUE]... [--out PREFIX]", Short: "Get a credential", Args: cobra.ExactArgs(1),
		Long: `Get a credential. With --out it goes to files with mode 0600: an SSH certificate
to PREFIX-cert.pub, and the fresh private key to PREFIX unless --public-key gave
your own; of other kinds the value goes to PREFIX. --output json and yaml hold
the value. Otherwise it is printed only with --show.

A parameter is text; one that is given several times, or ends in [], is a list;
JSON for other forms comes by --params-file. Policy may narrow what you get.`,
		Example: `  sallyport credential vend ssh-user-cert --param principals=deploy --ttl 5m --out id_deploy
  sallyport credential vend ssh-user-cert --param principals=deploy --public-key ~/.ssh/id_ed25519.pub --out ~/.ssh/id_ed25519`,
		RunE: func(c *cobra.Command, args []string) error { return s.vend(c.Context(), args[0], v) },
	}
	f := c.Flags()
	f.StringArrayVar(&v.params, "param", nil, "parameter as NAME=VALUE; may be given several times")
	f.StringVar(&v.paramsFile, "params-file", "", "file with a JSON object of parameters, - for standard input")
	f.DurationVar(&v.ttl, "ttl", 5*time.Minute, "how long it should live")
	f.StringVar(&v.publicKey, "public-key", "", "file with your own public key, for kinds that certify one")
	f.StringVar(&v.out, "out", "", "prefix of the files to write")
	f.BoolVar(&v.show, "show", false, "print the value")
	return repeatable(c, "gives the same credential")
}

// listParams are parameters that are lists of texts, of kinds that the house
// itself knows: a single value is a list too.
var listParams = map[string][]string{
	"ssh-user-cert": {"principals", "source_addresses", "extensions"},
}

func (s *shell) parameters(kind string, v vending) (map[string]any, error) {
	params := map[string]any{}
	if v.paramsFile != "" {
		text, err := s.readFile(v.paramsFile, maxSecret)
		if err != nil {
			return nil, err
		}
		if err := canon.Lenient(text, maxSecret, 32, &params); err != nil {
			return nil, fault.Invalidf("%s is no JSON object: %s", v.paramsFile, fault.Public(err)).Because(err)
		}
	}
	given := map[string]bool{}
	for _, p := range v.params {
		name, value, ok := strings.Cut(p, "=")
		name, list := strings.CutSuffix(name, "[]")
		if !ok || name == "" {
			return nil, fault.Invalidf("--param is NAME=VALUE")
		}
		for _, l := range listParams[kind] {
			list = list || l == name
		}
		before, again := params[name]
		if !given[name] { // the file's value is replaced
			again = false
		}
		given[name] = true
		switch old, isList := before.([]any); {
		case again && isList:
			params[name] = append(old, value)
		case again:
			params[name] = []any{before, value}
		case list:
			params[name] = []any{value}
		default:
			params[name] = value
		}
	}
	if v.publicKey != "" {
		text, err := s.readFile(v.publicKey, maxSecret)
		if err != nil {
			return nil, err
		}
		if bytes.Contains(text, []byte("PRIVATE KEY")) {
			return nil, fault.Invalidf("%s is a private key: give the public one, usually %s.pub", v.publicKey, v.publicKey)
		}
		params["public_key"] = string(bytes.TrimSpace(text))
	}
	return params, nil
}

func (s *shell) vend(ctx context.Context, kind string, v vending) error {
	params, err := s.parameters(kind, v)
	if err != nil {
		return err
	}
	if err := v.place(kind); err != nil {
		return err
	}
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	got, err := client.Vend(ctx, sallyport.VendRequest{Kind: kind, Params: params, TTL: v.ttl})
	if err != nil {
		return err
	}
	for _, a := range got.Anomalies {
		s.warn("%s: %s (%s)", a.Level, a.Message, a.Code)
	}
	var files []string
	if v.out != "" {
		if files, err = save(kind, v.out, got); err != nil {
			s.warn("the credential was issued and not saved; take it back with: sallyport credential revoke %s", got.Grant)
			return err
		}
	}
	view := vended{Credential: got, Files: files}
	if v.out == "" {
		view.Value, view.PrivateKey = got.Value.Reveal(), got.PrivateKey.Reveal()
	}
	return s.print(view, func() error { return s.showVended(got, files, v) })
}

// vended is a credential for machines. Written to files, it is not printed.
type vended struct {
	sallyport.Credential
	Value      string   `json:"value,omitempty"`
	PrivateKey string   `json:"private_key,omitempty"`
	Files      []string `json:"files,omitempty"`
}

func (s *shell) showVended(got sallyport.Credential, files []string, v vending) error {
	params, err := json.Marshal(got.Params)
	if err != nil {
		return fault.Wrap(err, "encode parameters")
	}
	value := ""
	if v.out == "" && !v.show {
		value = "not shown; use --show, --out PREFIX or --output json"
	}
	if err := s.facts("grant", got.Grant, "kind", got.Kind, "params", string(params), "expires", when(got.ExpiresAt),
		"plugin", got.Plugin.Name+" "+got.Plugin.Version, "files", strings.Join(files, " "), "value", value); err != nil {
		return err
	}
	if !v.show {
		return nil
	}
	for _, text := range []string{got.Value.Reveal(), got.PrivateKey.Reveal()} {
		if text == "" {
			continue
		}
		if _, err := io.WriteString(s.out, "\n"+strings.TrimRight(text, "\n")+"\n"); err != nil {
			return written(err)
		}
	}
	return nil
}

// save writes a credential to files, where ssh looks for them. The private key
// of a fresh pair may not replace another; a certificate may, since it is
// fetched again and again.
// place finds out whether the files can be where --out wants them, before there is
// a credential that nobody could keep.
func (v vending) place(kind string) error {
	if v.out == "" {
		return nil
	}
	if _, err := os.Stat(folder(v.out)); err != nil {
		return newFault(v.out, err)
	}
	if kind == "ssh-user-cert" && v.publicKey == "" { // the key comes from here
		return replaceable(v.out)
	}
	return nil
}

func save(kind, prefix string, got sallyport.Credential) ([]string, error) {
	value := prefix
	var files []string
	if !got.PrivateKey.Empty() {
		if err := replaceable(prefix); err != nil {
			return nil, err
		}
		if err := replace(prefix, []byte(got.PrivateKey.Reveal()), 0o600); err != nil {
			return nil, err
		}
		files = append(files, prefix)
	}
	if kind == "ssh-user-cert" {
		value = prefix + "-cert.pub"
	} else if len(files) > 0 {
		value = prefix + ".value"
	}
	if err := replace(value, []byte(got.Value.Reveal()), 0o600); err != nil {
		return nil, err
	}
	return append(files, value), nil
}

// replaceable refuses to write a private key over one that was not written
// here before: such a key has its certificate beside it.
func replaceable(prefix string) error {
	if _, err := os.Lstat(prefix); os.IsNotExist(err) {
		return nil
	}
	if _, err := os.Lstat(prefix + "-cert.pub"); err == nil {
		return nil
	}
	return fault.Conflictf("%s exists and is not from here; choose another --out, or give its public half with --public-key", prefix)
}
