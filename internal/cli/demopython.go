package cli

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/project"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

const (
	demoValidator = "honeytoken" // in Python
	demoBait      = "bait"       // in Go
	demoPython    = "/usr/bin/python3"
)

// demoHoneytokens lets deployers have bait, for a minute.
const demoHoneytokens = `package sallyport

release := {
	"allow": true,
	"bounds": {"kind": "honeytoken", "max_params": {}, "max_ttl_seconds": 60},
	"reasons": ["deployers lay out bait"],
} if {
	input.request.kind == "honeytoken"
	input.subject.role == "deployer"
}
`

// pythonStep lets a validator in Python judge what a vender in Go makes: two
// packages of one publisher, for one kind of credential.
func (d *demo) pythonStep(ctx context.Context, n *demoNotes) error {
	libraries, err := d.pythonLibraries(ctx)
	if err != nil {
		return err
	}
	folder := d.beside()
	for _, name := range []string{demoValidator, demoBait} {
		if _, err := os.Stat(filepath.Join(folder, name, "plugin.json")); err != nil {
			return demoSkip("the plugins honeytoken and bait: run make demo")
		}
	}
	validator, err := d.packValidator(filepath.Join(folder, demoValidator), libraries)
	if err != nil {
		return err
	}
	n.say("%s %s: %d files, %s with its grpcio, which the package brings along", validator.Manifest.Name, validator.Manifest.Version, len(validator.Sources), demoPython)
	bait, err := d.packGo(demoBait)
	if err != nil {
		return err
	}
	if err := d.installAll(ctx, n, validator, bait); err != nil {
		return err
	}
	return d.honeytoken(ctx, n)
}

// pythonLibraries finds grpcio and protobuf of the interpreter that the host will
// run, as Debian has them.
func (d *demo) pythonLibraries(ctx context.Context) (map[string]string, error) {
	out, _, err := d.command(ctx, demoPython, "-c", "import grpc, google.protobuf as p; print(*grpc.__path__); print(*p.__path__)")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != 2 || runtime.GOOS != "linux" {
		return nil, demoSkip("python3-grpcio")
	}
	return map[string]string{"vendor/grpc": lines[0], "vendor/google/protobuf": lines[1]}, nil
}

// packValidator packs the sources of the validator as they are, with the
// libraries beside them. An author would lock wheels instead, and needs a network.
func (d *demo) packValidator(source string, libraries map[string]string) (plugin.Spec, error) {
	_, spec, err := d.s.spec(source, building{})
	if err != nil {
		return plugin.Spec{}, err
	}
	work := d.at("validator")
	libraries["src"] = filepath.Join(source, "src")
	for to, from := range libraries {
		if err := demoCopy(filepath.Join(work, filepath.FromSlash(to)), from); err != nil {
			return plugin.Spec{}, err
		}
	}
	c, err := project.Wrap(project.Folder{Dir: work, Manifest: spec, SearchPath: []string{"src", "vendor"}})
	return c.Spec, err
}

// demoCopy copies the regular files of a folder, but for caches.
func demoCopy(to, from string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return fileFault(path, err)
		}
		if e.IsDir() && e.Name() == "__pycache__" {
			return fs.SkipDir
		}
		if !e.Type().IsRegular() {
			return nil
		}
		rest, err := filepath.Rel(from, path)
		if err != nil {
			return fileFault(path, err)
		}
		text, err := os.ReadFile(path) //nolint:gosec // of the interpreter, or beside this program
		if err != nil {
			return fileFault(path, err)
		}
		target := filepath.Join(to, rest)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return fileFault(target, err)
		}
		return create(target, text, 0o600)
	})
}

// installAll signs packages of one publisher with a key that may sign nothing else,
// and installs them.
func (d *demo) installAll(ctx context.Context, n *demoNotes, specs ...plugin.Spec) error {
	var names []string
	for _, s := range specs {
		names = append(names, s.Manifest.Name)
	}
	key, err := plugin.Keygen(d.at(names[0] + "-publisher"))
	if err != nil {
		return err
	}
	private, err := d.s.readFile(key.Private, maxContext)
	if err != nil {
		return err
	}
	signer, err := plugin.ParsePrivateKey(private)
	if err != nil {
		return err
	}
	public, err := d.s.readFile(key.Public, maxContext)
	if err != nil {
		return err
	}
	_, err = d.operator.TrustPublisher(ctx, sallyport.TrustRequest{
		Publisher: specs[0].Manifest.Publisher, PublicKey: string(public), Names: names,
	})
	if err != nil {
		return err
	}
	for _, spec := range specs {
		file := d.at(spec.Manifest.Name + ".package")
		if _, err := plugin.Build(spec, file); err != nil {
			return err
		}
		if _, err := plugin.Sign(file, signer); err != nil {
			return err
		}
		got, err := d.install(ctx, file)
		if err != nil {
			return err
		}
		if err := d.serves(ctx, n, got.Name); err != nil {
			return err
		}
	}
	return nil
}

// serves waits until a plugin is ready, and shows by what it runs.
func (d *demo) serves(ctx context.Context, n *demoNotes, name string) error {
	return demoWait(ctx, 20*time.Second, "the start of "+name, func() (bool, error) {
		all, err := d.operator.Plugins(ctx)
		if err != nil {
			return false, err
		}
		for _, s := range all.Status {
			if s.Name != name || s.State != string(plugin.Ready) {
				continue
			}
			by := "by itself"
			if s.Interpreter != nil {
				by = "by " + s.Interpreter.Path
			}
			n.say("%s is ready for %s: process %d, %s", name, strings.Join(s.Roles, ", "), s.PID, by)
			return true, nil
		}
		return false, nil
	})
}

// honeytoken gets one, and sees the validator refuse another.
func (d *demo) honeytoken(ctx context.Context, n *demoNotes) error {
	if _, err := d.operator.SetPolicy(ctx, "honeytokens", "sallyport", demoHoneytokens); err != nil {
		return err
	}
	_, err := d.agent.Vend(ctx, sallyport.VendRequest{Kind: demoValidator, TTL: time.Minute, Params: map[string]any{"name": "backup-key"}})
	why, err := demoRefused(err, "a honeytoken that says not what for", fault.Invalid, fault.Denied)
	if err != nil {
		return err
	}
	n.say("the agent asks for a honeytoken without a purpose: %s", why)
	c, err := d.agent.Vend(ctx, sallyport.VendRequest{
		Kind: demoValidator, TTL: time.Minute, Params: map[string]any{"name": "backup-key", "purpose": "alarm on the build server"},
	})
	if err != nil {
		return err
	}
	value := c.Value.Reveal()
	n.say("with one, Python agrees and Go makes it: %s..., grant %s", value[:min(len(value), 13)], c.Grant)
	return demoMust(strings.HasPrefix(value, "hny_live_"), "what was vended is no honeytoken")
}
