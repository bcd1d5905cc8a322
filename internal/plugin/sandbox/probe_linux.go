//go:build linux && (amd64 || arm64)

package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// abilities are what this host allows.
type abilities struct {
	landlock landlock
	seccomp  bool
	spaces   bool // all namespaces, and mounting in them
	dropUser bool // plugins run as another user than the server
	lastCap  int
	cgroup   *cgroup
	missing  []string // what is not there, and why
}

// probe runs launchers that do everything but execute, first what is demanded,
// then the namespaces.
func probe(root string) abilities {
	a := abilities{lastCap: lastCapability()}
	var err error
	if a.landlock, err = probeLandlock(); err != nil {
		a.miss("landlock", without(err))
	}
	a.seccomp = true
	for range 2 { // each of the two may be refused
		err := a.try(recipe{}, root)
		var failed *stepError
		if err == nil {
			break
		}
		switch {
		case errors.As(err, &failed) && failed.what == stepRules:
			a.landlock = landlock{}
			a.miss("landlock", failed.errno.Error())
		case errors.As(err, &failed) && failed.what == stepFilter:
			a.seccomp = false
			a.miss("seccomp", failed.errno.Error())
		default:
			a.landlock, a.seccomp = landlock{}, false
			a.miss("sandbox", err.Error())
			return a
		}
	}
	if a.landlock.works() && !a.landlock.ports() {
		a.miss("limit of ports", "the kernel's Landlock does not know ports (6.7 and later do)")
	}
	a.probeSpaces(root)
	a.probeCgroup(root)
	return a
}

// probeCgroup begins a process in a group: what forbids that (clone3, in some
// containers) must not be found out by plugins that do not start.
func (a *abilities) probeCgroup(root string) {
	c, err := openCgroup("/", kernel)
	if err != nil {
		a.miss("cgroup", err.Error())
		return
	}
	group, err := c.make("probe", manifest.Capabilities{})
	if err == nil {
		err = a.try(recipe{group: group}, root)
		c.remove(group)
	}
	if err != nil {
		a.miss("cgroup", err.Error())
		return
	}
	a.cgroup = c
}

// probeSpaces tries namespaces, as another user if the server is root.
func (a *abilities) probeSpaces(root string) {
	r := recipe{spaces: true, network: true, loopback: true, root: root, dir: "/", dropUser: os.Geteuid() == 0}
	err := a.try(r, root)
	if err != nil && r.dropUser {
		if r.dropUser = false; a.try(r, root) == nil {
			a.miss("other user", err.Error())
			err = nil
		}
	}
	if err != nil {
		a.miss("namespaces", err.Error())
		if !a.landlock.signals() {
			a.miss("child processes", "there is no namespace that they would end with")
		}
		return
	}
	a.spaces, a.dropUser = true, r.dropUser
}

// try runs a launcher to its end.
func (a *abilities) try(r recipe, root string) error {
	r.probe, r.lastCap, r.rules = true, a.lastCap, a.landlock.works()
	r.limits = a.limits(manifest.Capabilities{})
	if a.seccomp {
		r.filter = &filter{}
	}
	var rules *os.File
	if r.rules {
		var err error
		if rules, err = a.landlock.rules([]grant{{root, socketRights}}, []uint16{443}, false); err != nil {
			return err
		}
		defer func() { _ = rules.Close() }()
	}
	s, err := newStart(r, &exec.Cmd{}, nil, rules)
	if err != nil {
		return err
	}
	defer s.close()
	if r.group != "" {
		f, err := enter(s.cmd.SysProcAttr, r.group)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
	}
	if err := s.cmd.Start(); err != nil {
		return errors.Unwrap(err) // of the start: the path in it says nothing
	}
	s.letGo()
	if err := s.listen(); err != nil {
		s.end()
		return err
	}
	running, err := s.process()
	if err != nil {
		s.end()
		return err
	}
	state, err := running.Wait()
	if err == nil && !state.Success() {
		return errors.New("the launcher ended: " + state.String())
	}
	return err
}

func (a *abilities) miss(what, why string) { a.missing = append(a.missing, "no "+what+": "+why) }

// lacks names what must be there in the mode required, and is not.
func (a *abilities) lacks() string {
	var list []string
	if !a.landlock.works() {
		list = append(list, "Landlock")
	}
	if !a.seccomp {
		list = append(list, "seccomp")
	}
	return strings.Join(list, " and no ")
}

// report says what a plugin gets; full if nothing is missing.
func (a *abilities) report(notes []string) string {
	if len(a.missing) == 0 {
		return strings.Join(append([]string{"full"}, notes...), "; ")
	}
	var has []string
	for _, part := range []struct {
		there bool
		name  string
	}{{a.spaces, "namespaces"}, {a.landlock.works(), "landlock"}, {a.seccomp, "seccomp"}, {true, "limits"}, {a.cgroup != nil, "cgroup"}} {
		if part.there {
			has = append(has, part.name)
		}
	}
	return strings.Join(append(append([]string{strings.Join(has, ", ")}, notes...), a.missing...), "; ")
}

// network says what a plugin with a network reaches.
func (a *abilities) network(c manifest.Capabilities) string {
	text := "network of the host"
	if a.landlock.ports() {
		var list []string
		for _, p := range ports(c) {
			list = append(list, strconv.Itoa(int(p)))
		}
		text += ", TCP to port " + strings.Join(list, ", ")
	}
	if !a.spaces { // the kernel asks file modes alone
		text += ", and unix sockets of the server's user"
	}
	return text
}

// limits of resources; none is higher than the server's own.
func (a *abilities) limits(c manifest.Capabilities) []limit {
	processes := uint64(defaultProcesses()) //nolint:gosec // positive
	if c.Processes > 0 {
		processes = uint64(c.Processes)
	}
	list := []limit{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_FSIZE, 0},
		{unix.RLIMIT_NOFILE, openFiles},
		{unix.RLIMIT_DATA, uint64(memoryOf(c))}, //nolint:gosec // positive
		{unix.RLIMIT_STACK, stackSize},
		{unix.RLIMIT_MEMLOCK, 1 << 20},
		{unix.RLIMIT_MSGQUEUE, 0},
	}
	if a.spaces { // elsewhere it would count what else this user runs
		list = append(list, limit{unix.RLIMIT_NPROC, processes})
	}
	for i := range list {
		var now unix.Rlimit
		if unix.Getrlimit(list[i].resource, &now) == nil {
			list[i].value = min(list[i].value, now.Max)
		}
	}
	return list
}

// lastCapability is the highest number of a capability.
func lastCapability() int {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if n, perr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && perr == nil && n > 0 && n < 64 {
		return n
	}
	for n := range 64 {
		if unix.Prctl(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0) != nil {
			return n - 1
		}
	}
	return 63
}
