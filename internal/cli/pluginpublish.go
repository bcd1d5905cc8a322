package cli

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/repository"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// holding are the flags that name private keys.
type holding struct {
	files  []string
	folder string
}

func (h *holding) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&h.files, "key", nil, "private key to sign with, as plugin keygen makes it; may be given several times")
	c.Flags().StringVar(&h.folder, "keys", "", "folder with such keys, of which all *.key are used")
}

// read gives the keys, and how to wipe them.
func (h *holding) read(s *shell) (repository.Keys, func(), error) {
	files := h.files
	if h.folder != "" {
		found, err := filepath.Glob(filepath.Join(h.folder, "*.key"))
		if err != nil {
			return nil, nil, fault.Wrap(err, "look for keys")
		}
		sort.Strings(found)
		files = append(files[:len(files):len(files)], found...)
	}
	var list []ed25519.PrivateKey
	wipe := func() {
		for _, k := range list {
			clear(k)
		}
	}
	for _, file := range files {
		text, err := s.readFile(file, maxSecret)
		if err != nil {
			wipe()
			return nil, nil, err
		}
		key, err := plugin.ParsePrivateKey(text)
		clear(text)
		if err != nil {
			wipe()
			return nil, nil, err
		}
		list = append(list, key)
	}
	return repository.NewKeys(list...), wipe, nil
}

func (s *shell) publicKeys(files []string) ([]ed25519.PublicKey, error) {
	var out []ed25519.PublicKey
	for _, file := range files {
		text, err := s.readFile(file, maxSecret)
		if err != nil {
			return nil, err
		}
		key, err := plugin.ParsePublicKey(text)
		if err != nil {
			return nil, err
		}
		out = append(out, key)
	}
	return out, nil
}

// withDir runs a publisher's change and shows what came of it.
func (s *shell) withDir(path string, h *holding, do func(*repository.Dir, repository.Keys) (repository.Status, error)) error {
	d, err := repository.Open(path, s.Now)
	if err != nil {
		return err
	}
	keys, wipe, err := h.read(s)
	if err != nil {
		return err
	}
	defer wipe()
	status, err := do(d, keys)
	if err != nil {
		return err
	}
	return s.showRepository(status)
}

func (s *shell) showRepository(st repository.Status) error {
	return s.print(st, func() error {
		var rows [][]string
		for _, r := range st.Roles {
			expires := "-"
			if r.Version > 0 {
				expires = when(r.Expires)
			}
			rows = append(rows, []string{r.Role, strconv.FormatInt(r.Version, 10), expires, strconv.Itoa(r.Threshold) + " of " + strconv.Itoa(len(r.Keys)), strings.Join(r.Names, " ")})
		}
		if err := s.rows([]string{"ROLE", "VERSION", "EXPIRES", "SIGNERS", "PATHS"}, rows); err != nil {
			return err
		}
		for _, w := range st.Staged {
			line := "waits: " + w.Role + " version " + strconv.FormatInt(w.Version, 10) + ", "
			if w.Needed > 0 {
				line += strconv.Itoa(w.Needed) + " more of these keys must sign (plugin repository sign): " + strings.Join(w.Missing, " ")
			} else {
				line += "signed; it counts after: plugin repository refresh"
			}
			if err := s.line("%s", line); err != nil {
				return err
			}
			for _, change := range w.Changes {
				if err := s.line("  %s", change); err != nil {
					return err
				}
			}
		}
		return s.line("%d packages, %s", len(st.Releases), st.Reason)
	})
}

func repositoryInit(s *shell) *cobra.Command {
	var h holding
	var roots, targets, lives, names []string
	var rootNeed, targetsNeed int
	c := &cobra.Command{
		Use: "init FOLDER --keys FOLDER", Short: "Make a repository", Args: cobra.ExactArgs(1),
		Long: `Make a repository in an empty folder. Its keys are made in the folder of --keys, one
for each role, unless it has them: root and targets belong offline, snapshot and
timestamp to the machine that refreshes daily. Where several people must sign, give
their public keys with --root and --targets; each of them then runs plugin
repository sign. --uploads names the packages that a server may take in.

Metadata is good for: root 365d, targets 90d, snapshot 7d, timestamp 1d, unless
--life says otherwise.`,
		Example: "  sallyport plugin repository init ./plugins --keys ./keys\n" +
			"  sallyport plugin repository init ./plugins --keys ./keys --root ann.pub,bob.pub,cy.pub --root-threshold 2 --uploads 'acme-*' --life timestamp=12h",
		RunE: func(c *cobra.Command, args []string) error {
			if h.folder == "" {
				return fault.Invalidf("say where the keys are, or shall be made: --keys FOLDER")
			}
			p := repository.Plan{UploadNames: names}
			var err error
			if p.Lives, err = readLives(repository.DefaultLives, lives); err != nil {
				return err
			}
			if err := s.planned(&p, h.folder, roots, targets); err != nil {
				return err
			}
			p.Root.Threshold, p.Targets.Threshold = rootNeed, targetsNeed
			keys, wipe, err := h.read(s)
			if err != nil {
				return err
			}
			defer wipe()
			_, status, err := repository.Init(c.Context(), args[0], p, keys, s.Now)
			if err != nil {
				return err
			}
			return s.showRepository(status)
		},
	}
	h.flags(c)
	f := c.Flags()
	f.StringSliceVar(&roots, "root", nil, "public keys of those who hold the root (default: one made here)")
	f.IntVar(&rootNeed, "root-threshold", 1, "how many of them must sign")
	f.StringSliceVar(&targets, "targets", nil, "public keys of those who say which packages there are (default: one made here)")
	f.IntVar(&targetsNeed, "targets-threshold", 1, "how many of them must sign")
	f.StringSliceVar(&names, "uploads", nil, "patterns of package names that a server may take in (default: none)")
	f.StringArrayVar(&lives, "life", nil, "how long metadata is good, as ROLE=90d; may be given several times")
	return c
}

// planned fills in who holds which role. Without names there are no uploads.
func (s *shell) planned(p *repository.Plan, folder string, roots, targets []string) error {
	for _, r := range []struct {
		name  string
		to    *repository.Holders
		files []string
	}{
		{repository.RoleRoot, &p.Root, roots},
		{repository.RoleTargets, &p.Targets, targets},
		{repository.RoleSnapshot, &p.Snapshot, nil},
		{repository.RoleTimestamp, &p.Timestamp, nil},
		{repository.RoleUploads, &p.Uploads, nil},
	} {
		if r.name == repository.RoleUploads && len(p.UploadNames) == 0 {
			continue
		}
		var err error
		if r.to.Keys, err = s.holders(folder, r.name, r.files); err != nil {
			return err
		}
	}
	return nil
}

// holders are the public keys of a role: those given, else the one of the
// folder, which is made if it is not there.
func (s *shell) holders(folder, role string, files []string) ([]ed25519.PublicKey, error) {
	if len(files) > 0 {
		return s.publicKeys(files)
	}
	prefix := filepath.Join(folder, role)
	if _, err := os.Stat(prefix + ".pub"); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fault.Unavailablef("the folder %s cannot be made", folder).Because(err)
		}
		if _, err := plugin.Keygen(prefix); err != nil {
			return nil, err
		}
	}
	return s.publicKeys([]string{prefix + ".pub"})
}

// readLives reads ROLE=90d.
func readLives(l repository.Lives, list []string) (repository.Lives, error) {
	for _, text := range list {
		role, span, _ := strings.Cut(text, "=")
		d, err := repository.ParseLife(span)
		if err != nil {
			return l, err
		}
		switch role {
		case repository.RoleRoot:
			l.Root = d
		case repository.RoleTargets:
			l.Targets = d
		case repository.RoleSnapshot:
			l.Snapshot = d
		case repository.RoleTimestamp:
			l.Timestamp = d
		default:
			return l, fault.Invalidf("--life is for root, targets, snapshot or timestamp, for example timestamp=12h")
		}
	}
	return l, nil
}

func repositoryKey(s *shell) *cobra.Command {
	var h holding
	var r repository.Rekey
	var add []string
	c := &cobra.Command{
		Use: "key FOLDER --role ROLE", Short: "Change who holds a role", Args: cobra.ExactArgs(1),
		Long: `Give a role other keys, or another threshold: root, targets, snapshot, timestamp, or
uploads. The next root waits until enough of the present and of the new holders have
signed. After a theft of the snapshot or timestamp key, replace it so: clients then
forget the versions that the thief drove up.`,
		Example: "  sallyport plugin repository key ./plugins --role timestamp --add new.pub --remove 3f1c22d0 --keys ./keys",
		RunE: func(c *cobra.Command, args []string) error {
			if r.Role == "" || len(add)+len(r.Remove)+len(r.Names) == 0 && r.Threshold == 0 {
				return fault.Invalidf("say which role, and what changes: --role ROLE with --add, --remove, --threshold or --names")
			}
			var err error
			if r.Add, err = s.publicKeys(add); err != nil {
				return err
			}
			return s.withDir(args[0], &h, func(d *repository.Dir, keys repository.Keys) (repository.Status, error) {
				return d.Rekey(c.Context(), r, keys)
			})
		},
	}
	h.flags(c)
	f := c.Flags()
	f.StringVar(&r.Role, "role", "", "root, targets, snapshot, timestamp or uploads")
	f.StringSliceVar(&add, "add", nil, "public keys to add")
	f.StringSliceVar(&r.Remove, "remove", nil, "ids of keys to remove, as plugin repository status --output json shows them, or their first 8 characters")
	f.IntVar(&r.Threshold, "threshold", 0, "how many must sign (default: as before)")
	f.StringSliceVar(&r.Names, "names", nil, "for uploads: patterns of package names")
	return c
}

func repositorySign(s *shell) *cobra.Command {
	var h holding
	c := &cobra.Command{
		Use: "sign FOLDER --key KEY", Short: "Sign what waits", Args: cobra.ExactArgs(1),
		Long: `Add a signature to all metadata that waits for one of this key. Look at plugin
repository status first: it shows what would change. The folder can be carried to
where the key is.`,
		Example: "  sallyport plugin repository sign ./plugins --key ann.key",
		RunE: func(c *cobra.Command, args []string) error {
			return s.withDir(args[0], &h, func(d *repository.Dir, keys repository.Keys) (repository.Status, error) {
				return d.Sign(c.Context(), keys)
			})
		},
	}
	h.flags(c)
	return c
}

func repositoryRefresh(s *shell) *cobra.Command {
	var h holding
	var lives []string
	c := &cobra.Command{
		Use: "refresh FOLDER --keys FOLDER", Short: "Say that this is the present state", Args: cobra.ExactArgs(1),
		Long: `Make a new snapshot and timestamp, and put in place what is signed. Run it at least
once in the life of the timestamp, for example every hour. --life makes this one
longer, for a bundle that is carried to where no network is.`,
		Example: "  sallyport plugin repository refresh ./plugins --key snapshot.key --key timestamp.key\n" +
			"  sallyport plugin repository refresh ./plugins --keys ./keys --life timestamp=14d --life snapshot=14d",
		RunE: func(c *cobra.Command, args []string) error {
			l, err := readLives(repository.Lives{}, lives)
			if err != nil {
				return err
			}
			return s.withDir(args[0], &h, func(d *repository.Dir, keys repository.Keys) (repository.Status, error) {
				return d.Refresh(c.Context(), keys, l)
			})
		},
	}
	h.flags(c)
	c.Flags().StringArrayVar(&lives, "life", nil, "life of this timestamp or snapshot, as timestamp=14d")
	return c
}

func repositoryYank(s *shell) *cobra.Command {
	var h holding
	var reason string
	c := &cobra.Command{
		Use: "yank FOLDER NAME@VERSION --reason TEXT", Short: "Withdraw a package", Args: cobra.ExactArgs(2),
		Long:    "Withdraw a package: it is not installed any more, and upgrade says why. Where it runs it goes on; to stop it, revoke its key or raise min_secure_version.",
		Example: "  sallyport plugin repository yank ./plugins sshcert@1.1.0 --reason 'certificates live too long' --keys ./keys",
		RunE: func(c *cobra.Command, args []string) error {
			name, version, ok := named(args[1])
			if !ok || version == "" {
				return fault.Invalidf("say what is withdrawn: NAME@VERSION")
			}
			return s.withDir(args[0], &h, func(d *repository.Dir, keys repository.Keys) (repository.Status, error) {
				return d.Yank(c.Context(), name, version, reason, keys)
			})
		},
	}
	h.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for those who have it")
	return c
}

func repositoryStatus(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "status FOLDER", Short: "Show roles, expiry, and what waits for signatures", Args: cobra.ExactArgs(1),
		Long:    "Show the roles of a repository, when their metadata expires, and what waits for signatures.",
		Example: "  sallyport plugin repository status ./plugins --output json",
		RunE: func(c *cobra.Command, args []string) error {
			return s.withDir(args[0], &holding{}, func(d *repository.Dir, _ repository.Keys) (repository.Status, error) {
				return d.Status(c.Context())
			})
		},
	}
}

func pluginPublish(s *shell) *cobra.Command {
	var h holding
	var to, file string
	c := &cobra.Command{
		Use: "publish FILE --to FOLDER|URL", Short: "Put a package into a repository", Args: cobra.ExactArgs(1),
		Long: `Put a signed package into a repository: a folder, with the keys of its roles at hand
or waiting for them (see plugin repository status); or a Sallyport server that takes
packages in, which verifies it and signs for it. A version never changes.

A build that has no identity at that server shows an upload token, which an operator
there makes (plugin upload-token create): from --token-file, or from
SALLYPORT_UPLOAD_TOKEN. It names the server, and is sent to that one alone. Where the
server's certificate is of another authority than its own, name that with --ca.`,
		Example: "  sallyport plugin publish my.spk --to ./plugins --keys ./keys\n  sallyport plugin publish my.spk --to https://plugins.example:8443\n" +
			"  sallyport plugin publish my.spk --token-file upload.token",
		RunE: func(c *cobra.Command, args []string) error {
			token := hush{what: "upload token", file: file, variable: uploadVariable}
			switch {
			case to != "" && !strings.Contains(to, "://"):
				if file != "" {
					return fault.Invalidf("an upload token is for a server, and --to names a folder")
				}
				return s.withDir(to, &h, func(d *repository.Dir, keys repository.Keys) (repository.Status, error) {
					status, _, err := d.Publish(c.Context(), args[0], repository.RoleTargets, keys)
					return status, err
				})
			case file != "" || s.Getenv(uploadVariable) != "":
				client, at, err := s.uploader(token, to)
				if err != nil {
					return err
				}
				defer client.Close()
				return s.upload(c.Context(), client, args[0], at)
			case to == "":
				return fault.Invalidf("say where the package goes: --to FOLDER or --to URL, or show an upload token with --token-file")
			}
			s.url = strings.TrimSuffix(to, "/")
			return s.uploadOwn(c.Context(), args[0], to)
		},
	}
	h.flags(c)
	c.Flags().StringVar(&to, "to", "", "folder of the repository, or URL of a Sallyport server")
	c.Flags().StringVar(&file, "token-file", "", "file with an upload token, - for standard input")
	return c
}

// uploadOwn publishes as the caller of the context, in a session that is good for
// uploads alone and ends with this one.
func (s *shell) uploadOwn(ctx context.Context, file, at string) error {
	_, cfg, err := s.caller(ctx)
	if err != nil {
		return err
	}
	own := &opened{}
	if cfg.Token.Empty() {
		cfg.Scopes, cfg.Sessions = []string{"administer:package", "administer:package/*"}, own
	}
	client, err := sallyport.New(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	err = s.upload(ctx, client, file, at)
	if own.is {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), toolEnding)
		defer cancel()
		_ = client.EndSession(ending, "current", "the upload has ended")
	}
	return err
}

// upload sends a package to a server that takes packages in.
func (s *shell) upload(ctx context.Context, client *sallyport.Client, file, at string) error {
	f, err := os.Open(file) //nolint:gosec // the user names it
	if err != nil {
		return fileFault(file, err)
	}
	defer func() { _ = f.Close() }()
	stop := s.busy("publishing " + file)
	r, err := client.UploadPlugin(ctx, f)
	stop()
	if err != nil {
		return err
	}
	return s.print(r, func() error {
		return s.facts("published", r.Name+" "+r.Version, "publisher", r.Publisher, "digest", r.Digest, "at", at)
	})
}
