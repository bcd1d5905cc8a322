package cli

import (
	"crypto/x509"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// uploadVariable is where a build may have an upload token.
const uploadVariable = "SALLYPORT_UPLOAD_TOKEN"

func pluginUploadToken(s *shell) *cobra.Command {
	return group("upload-token", "Let a publisher's build bring packages into this server's repository",
		`An upload token lets its bearer bring packages of one publisher, under given names,
into the repository that the server keeps itself, until it expires or is revoked. It
is for a build, which has no identity here. It replaces no signature: what no trusted
publisher has signed is refused whoever brings it.`,
		`  sallyport plugin upload-token create --publisher acme --names 'acme-*' --expires 90d > upload.token
  sallyport plugin upload-token list
  sallyport plugin upload-token revoke 01JZ0V9GQ8E2W5K3M7T4R6X1YB --reason "the build moves"`,
		uploadTokenCreate(s), uploadTokenList(s), uploadTokenRevoke(s))
}

func uploadTokenCreate(s *shell) *cobra.Command {
	var r sallyport.UploadTokenRequest
	var life string
	c := &cobra.Command{
		Use: "create --publisher NAME --names PATTERN --expires TIME", Short: "Make an upload token", Args: cobra.NoArgs,
		Long: `Make an upload token. Only the token goes to standard output, so that it can be
piped; it is not shown again, and the server keeps its digest alone. It holds the
address by which you reach the server, and the hash of its authority's key, so that
plugin publish needs nothing else.

It acts as you: it is allowed no more than you are, and ends when you are revoked.`,
		Example: "  sallyport plugin upload-token create --publisher acme --names 'acme-*' --expires 90d > upload.token",
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			switch {
			case r.Publisher == "":
				return fault.Invalidf("say whose packages the token may bring: --publisher NAME")
			case len(r.Names) == 0:
				return fault.Invalidf("say which packages the token may bring: --names 'acme-*'")
			case life == "":
				return fault.Invalidf("say how long the token is good: --expires 90d")
			}
			if r.TTL, err = span("--expires", life); err != nil {
				return err
			}
			if r.Address, err = s.reached(c.Context()); err != nil {
				return err
			}
			return s.calling(c.Context(), func(client *sallyport.Client) error {
				made, err := client.CreateUploadToken(c.Context(), r)
				if err != nil {
					return err
				}
				out := struct {
					sallyport.UploadTokenRow
					Token string `json:"token"`
				}{made.UploadTokenRow, made.Token.Reveal()}
				return s.print(out, func() error {
					s.note("upload token %s for %s of %s, good until %s; use it with: sallyport plugin publish FILE --token-file", made.ID,
						strings.Join(made.Names, " "), made.Publisher, when(made.ExpiresAt))
					return s.line("%s", made.Token.Reveal())
				})
			})
		},
	}
	f := c.Flags()
	f.StringVar(&r.Publisher, "publisher", "", "whose packages it may bring")
	f.StringSliceVar(&r.Names, "names", nil, "patterns of the names of packages that it may bring")
	f.StringVar(&life, "expires", "", "how long it is good: one minute to 366 days, such as 90d or 12h")
	return repeatable(c, "gives the same token, until it is revoked")
}

// span reads a time such as 90d or 12h.
func span(option, text string) (time.Duration, error) {
	hours := text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		hours = days + "h"
	}
	d, err := time.ParseDuration(hours)
	if hours != text && d < 1<<16*time.Hour {
		d *= 24
	}
	if err != nil || d <= 0 {
		return 0, fault.Invalidf("%s is a time such as 90d or 12h", option)
	}
	return d, nil
}

func uploadTokenList(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the upload tokens", Args: cobra.NoArgs,
		Long:    "List the upload tokens, without what is secret: revoked ones too, and for a week those that have expired.",
		Example: "  sallyport plugin upload-token list",
		RunE: func(c *cobra.Command, _ []string) error {
			return s.calling(c.Context(), func(client *sallyport.Client) error {
				list, err := client.UploadTokens(c.Context())
				if err != nil {
					return err
				}
				return s.print(list, func() error {
					var rows [][]string
					for _, t := range list {
						rows = append(rows, []string{t.ID, t.Publisher, strings.Join(t.Names, " "), t.State, when(t.ExpiresAt), t.Author, t.Reason})
					}
					return s.rows([]string{"ID", "PUBLISHER", "NAMES", "STATE", "EXPIRES", "AUTHOR", "REASON"}, rows)
				})
			})
		},
	}
}

func uploadTokenRevoke(s *shell) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "revoke ID", Short: "End an upload token at once", Args: cobra.ExactArgs(1),
		Long:    "End an upload token at once, on every replica. What it brought stays in the repository; plugin repository yank withdraws it.",
		Example: `  sallyport plugin upload-token revoke 01JZ0V9GQ8E2W5K3M7T4R6X1YB --reason "seen in a build's log"`,
		RunE: func(c *cobra.Command, args []string) error {
			return s.calling(c.Context(), func(client *sallyport.Client) error {
				if err := client.RevokeUploadToken(c.Context(), args[0], reason); err != nil {
					return err
				}
				return s.print(map[string]string{"revoked": args[0]}, func() error { return s.line("%s is revoked", args[0]) })
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	return repeatable(c, "finds it revoked")
}

// uploader is a client that shows an upload token, and the server that it calls.
// to may name that server, and no other.
func (s *shell) uploader(from hush, to string) (*sallyport.Client, string, error) {
	text, err := s.read(from)
	if err != nil {
		return nil, "", err
	}
	defer text.Wipe()
	token := sallyport.NewSecret(string(text.Reveal()))
	t, err := sallyport.ParseUploadToken(token.Reveal())
	if err != nil {
		return nil, "", err
	}
	at := "https://" + t.Address
	if to := strings.TrimSuffix(to, "/"); to != "" && to != at && to+":443" != at {
		return nil, "", fault.Deniedf("the upload token is for %s, and is sent nowhere else: leave --to out, or ask the operator of %s for a token", at, to)
	}
	var roots *x509.CertPool
	if s.ca != "" {
		if roots, err = readRoots(s.ca); err != nil {
			return nil, "", err
		}
	}
	client, err := sallyport.NewUploader(token, roots, "sallyport-cli/"+s.Version)
	return client, at, err
}
