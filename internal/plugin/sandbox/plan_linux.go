//go:build linux && (amd64 || arm64)

package sandbox

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// What a plugin gets that asks for nothing.
const (
	defaultMemory = 512 // MiB
	openFiles     = 512
	stackSize     = 8 << 20 // of the first thread, and of others where a C library makes them
)

// defaultProcesses leaves a Go program one thread for each processor twice.
func defaultProcesses() int { return 128 + 2*runtime.NumCPU() }

// What libraries, and programs that use a network, read of a host.
var (
	libraryPaths = []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime"}
	// Not /dev/zero, which gives memory that nobody counts.
	devicePaths  = []string{"/dev/null", "/dev/random", "/dev/urandom"}
	networkPaths = []string{
		"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services",
		// Certificates, and not /etc/ssl or /etc/pki as a whole, which have private keys.
		"/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem",
		"/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust", "/etc/ca-certificates", "/usr/share/ca-certificates",
		"/usr/local/share/ca-certificates", "/var/lib/ca-certificates",
	}
)

// neverPaths have no files, but the kernel, the devices and other processes.
var neverPaths = []string{"/proc", "/sys", "/dev"}

// recipe decides what one start gets.
func (b *box) recipe(cmd *exec.Cmd, program *os.File) (recipe, []grant, error) {
	can, c := b.sandbox.can, b.plan.Capabilities
	v := &view{links: map[string]string{}}
	v.add(b.plan.SocketDir, socketRights, bind{write: true})
	loader, err := loaderOf(program)
	if err != nil {
		return recipe{}, nil, err
	}
	if loader != "" {
		libraries(v, loader)
	}
	if t := b.plan.Tree; t != nil {
		v.add(t.Dir, readTree|runFile, bind{exec: true})
		if t.Interpreter != "" {
			interpreter(v, t.Interpreter)
		}
	}
	if len(c.Network) > 0 {
		v.optional(networkPaths, readTree, bind{})
		b.notes = append(b.notes, can.network(c))
	}
	for _, f := range c.Files {
		if err := v.mayDeclare(f, append([]string{b.plan.SocketDir}, b.sandbox.private...)); err != nil {
			return recipe{}, nil, err
		}
		v.add(f, readTree, bind{})
	}
	if v.err != nil {
		return recipe{}, nil, v.err
	}
	r := recipe{
		spaces: can.spaces, network: b.ownNetwork(), dropUser: can.dropUser, root: b.sandbox.root.Dir(), binds: v.sorted(), links: v.symlinks(),
		dir: b.plan.SocketDir, loopback: b.Private(), lastCap: can.lastCap, rules: can.landlock.works(),
		limits: can.limits(c), args: cmd.Args, env: cmd.Env,
	}
	if can.seccomp {
		r.filter = &filter{
			inet: len(c.Network) > 0, stream: b.Private(), apart: can.spaces,
			connect: len(c.Network) > 0 || b.Private(), signal: can.spaces || can.landlock.signals(),
		}
	}
	if can.dropUser {
		b.uid = nobody
		if err := os.Chown(b.plan.SocketDir, nobody, nobody); err != nil {
			return recipe{}, nil, fmt.Errorf("give folder to the plugin: %w", err)
		}
	}
	return r, v.grants, nil
}

// mayDeclare judges what a declared path leads to, not its name alone: plain files
// and folders, in which nothing lies that no plugin is given. To a socket a
// plugin could connect, also on a mount that is read-only.
func (v *view) mayDeclare(path string, private []string) error {
	found, err := v.resolve(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(found)
	if err != nil {
		return err
	}
	apart := func(n string) bool { return !below(found, n) && !below(n, found) }
	if !info.Mode().IsRegular() && !info.IsDir() {
		return fmt.Errorf("no plugin is given %s, which is neither a file nor a folder", path)
	}
	for _, n := range neverPaths {
		if !apart(n) {
			return fmt.Errorf("no plugin is given %s", path)
		}
	}
	for _, n := range private {
		target, err := filepath.EvalSymlinks(n)
		if err != nil { // it is not there yet, or cannot be seen
			target = n
		}
		if !apart(filepath.Clean(n)) || !apart(target) {
			return fmt.Errorf("no plugin is given %s: the server keeps files of its own there", path)
		}
	}
	return nil
}

// loaderOf is the dynamic loader that an executable asks for, or nothing.
func loaderOf(src io.ReaderAt) (string, error) {
	program, err := elf.NewFile(src)
	if err != nil {
		return "", nil //nolint:nilerr // no program: executing it says so
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < unix.PathMax {
			name := make([]byte, p.Filesz)
			if _, err := p.ReadAt(name, 0); err != nil {
				return "", fmt.Errorf("read name of the loader: %w", err)
			}
			return strings.TrimRight(string(name), "\x00"), nil
		}
	}
	return "", nil
}

// libraries lets a program that is not self-contained read the host's.
func libraries(v *view, loader string) {
	v.optional(libraryPaths, readTree, bind{exec: true})
	v.optional(devicePaths, deviceRights, bind{write: true, device: true})
	v.add(loader, runFile, bind{exec: true})
}

// interpreter lets the plugin read and execute it, and read the library that it
// has beside itself.
func interpreter(v *view, path string) {
	v.add(path, runFile, bind{exec: true})
	if home := filepath.Dir(filepath.Dir(path)); home != "/" {
		v.optional([]string{home + "/lib", home + "/lib64", home + "/pyvenv.cfg"}, readTree, bind{exec: true})
	}
}

// ports are those that a plugin declares.
func ports(c manifest.Capabilities) []uint16 {
	var list []uint16
	for _, n := range c.Network {
		if p, err := strconv.ParseUint(n[strings.LastIndexByte(n, ':')+1:], 10, 16); err == nil {
			list = append(list, uint16(p))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// view collects what a plugin sees, and its rights.
type view struct {
	binds  []bind
	grants []grant
	links  map[string]string
	err    error
}

// optional adds what is there.
func (v *view) optional(paths []string, rights uint64, form bind) {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			v.add(p, rights, form)
		}
	}
}

// add grants a path: the object that it names, and the links on the way to it.
func (v *view) add(path string, rights uint64, form bind) {
	found, err := v.resolve(path)
	if err != nil {
		v.err = errors.Join(v.err, err)
		return
	}
	info, err := os.Stat(found)
	if err != nil {
		v.err = errors.Join(v.err, err)
		return
	}
	form.path, form.folder = found, info.IsDir()
	v.grants = append(v.grants, grant{found, rights})
	v.binds = append(v.binds, form)
}

// resolve follows links as the kernel does, and keeps them, so that the plugin
// can follow them too.
func (v *view) resolve(path string) (string, error) {
	const most = 40
	path = filepath.Clean(path)
	for range most {
		done, next := "/", ""
		for _, element := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
			if next != "" {
				next = filepath.Join(next, element)
				continue
			}
			at := filepath.Join(done, element)
			to, err := os.Readlink(at)
			switch {
			case errors.Is(err, unix.EINVAL): // no link
				done = at
			case err != nil:
				return "", err
			default:
				v.links[at] = to
				if next = to; !filepath.IsAbs(to) {
					next = filepath.Join(done, to)
				}
			}
		}
		if next == "" {
			return done, nil
		}
		path = next
	}
	return "", &fs.PathError{Op: "resolve", Path: path, Err: unix.ELOOP}
}

// sorted are the mounts, those above before those below, each once. One below
// another that gives nothing new is left out.
func (v *view) sorted() []bind {
	slices.SortStableFunc(v.binds, func(a, b bind) int { return cmp.Compare(a.path, b.path) })
	var out []bind
	for _, b := range v.binds {
		if n := len(out); n > 0 && out[n-1].path == b.path {
			out[n-1].write, out[n-1].device, out[n-1].exec = out[n-1].write || b.write, out[n-1].device || b.device, out[n-1].exec || b.exec
			continue
		}
		if slices.ContainsFunc(out, func(o bind) bool { return below(b.path, o.path) && o.write == b.write && o.exec && !b.device }) {
			continue
		}
		out = append(out, b)
	}
	return out
}

// symlinks are the links that do not lie below a mount, where they exist anyway.
func (v *view) symlinks() []link {
	var out []link
	for at, to := range v.links {
		if !slices.ContainsFunc(v.binds, func(b bind) bool { return below(at, b.path) }) {
			out = append(out, link{at, to})
		}
	}
	slices.SortFunc(out, func(a, b link) int { return cmp.Compare(a.path, b.path) })
	return out
}
